package pyramid

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// timesName is the histogram of all compositions of an app.
const timesName = "watt_compose_part_seconds"

// What becomes of a part, beside the reasons why it can fail.
const (
	outcomeOK       = "ok"
	outcomeCanceled = "canceled"
)

// register returns the app's histogram, which its first composition registers.
func register(metrics prometheus.Registerer) (*prometheus.HistogramVec, error) {
	times := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    timesName,
		Help:    "Time that the parts of composed answers took, by what became of them.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"part", "outcome"})
	err := metrics.Register(times)
	if known, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if times, ok = known.ExistingCollector.(*prometheus.HistogramVec); ok {
			return times, nil
		}
		err = fmt.Errorf("there is another metric with that name: %w", err)
	}
	return times, err
}
