package metrics

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/org/watt"
)

// The buckets of [watt.Times] are native ones of this schema: four for each power of two.
const (
	schema    = 2
	perDouble = 4
)

// The classic buckets are the powers of two from 122 µs to 32 s, each of which ends where a native one does: so both
// say the same.
const (
	firstClassic = -13
	lastClassic  = 5
)

// histogram is both a native and a classic one.
type histogram struct {
	prometheus.Metric // native
	classic           []*dto.Bucket
}

func (k sink) histogram(d *prometheus.Desc, t *watt.Times) {
	buckets := make(map[int]int64, len(t.Buckets))
	for i, n := range t.Buckets {
		buckets[i] = int64(n) //nolint:gosec // it is not above 2^53
	}
	native, err := prometheus.NewConstNativeHistogram(d, t.Count, t.Sum.Seconds(), buckets, nil, 0, schema,
		prometheus.DefNativeHistogramZeroThreshold, time.Time{}, k.labels...)
	if err != nil {
		k.metrics <- prometheus.NewInvalidMetric(d, err)
		return
	}
	k.metrics <- histogram{native, classicBuckets(t)}
}

func classicBuckets(t *watt.Times) []*dto.Bucket {
	all := make([]*dto.Bucket, 0, lastClassic-firstClassic+1)
	for exponent := firstClassic; exponent <= lastClassic; exponent++ {
		var n uint64
		for i, in := range t.Buckets {
			if i <= exponent*perDouble {
				n += in
			}
		}
		limit := math.Ldexp(1, exponent)
		all = append(all, &dto.Bucket{CumulativeCount: &n, UpperBound: &limit})
	}
	return all
}

// Write implements [prometheus.Metric].
func (h histogram) Write(m *dto.Metric) error {
	err := h.Metric.Write(m)
	if m.Histogram != nil {
		m.Histogram.Bucket = h.classic
		m.Histogram.CreatedTimestamp = nil // the year 1
	}
	return err
}
