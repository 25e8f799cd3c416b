package funnel

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// batchMetrics are what a Batch counts.
type batchMetrics struct {
	size, took prometheus.Histogram
	lost       *prometheus.CounterVec
	waiting    prometheus.GaugeFunc
}

func newBatchMetrics(name string, waiting func() float64) *batchMetrics {
	labels := prometheus.Labels{"name": name}
	m := &batchMetrics{
		size: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "watt_batch_calls", Help: "Calls per committed transaction.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "watt_batch_seconds", Help: "Time that transactions took, from begin to commit.", ConstLabels: labels,
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watt_batch_lost_total", Help: "Transactions that were lost, by what failed.", ConstLabels: labels,
		}, []string{"at"}),
		waiting: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "watt_batch_waiting", Help: "Calls that wait for their turn.", ConstLabels: labels,
		}, waiting),
	}
	for _, at := range []string{"begin", "savepoint", "rollback", "commit"} { // the first one shows as an increase
		m.lost.WithLabelValues(at)
	}
	return m
}

func (m *batchMetrics) committed(t *transaction) {
	m.size.Observe(float64(t.size))
	m.took.Observe(time.Since(t.began).Seconds())
}

func (m *batchMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.size, m.took, m.lost, m.waiting}
}

// Describe implements [prometheus.Collector].
func (b *Batch) Describe(c chan<- *prometheus.Desc) {
	for _, m := range b.counted().all() {
		m.Describe(c)
	}
}

// Collect implements [prometheus.Collector].
func (b *Batch) Collect(c chan<- prometheus.Metric) {
	for _, m := range b.counted().all() {
		m.Collect(c)
	}
}

func (b *Batch) counted() *batchMetrics {
	b.once.Do(func() { b.metrics = newBatchMetrics(b.Name, b.howManyWait) })
	return b.metrics
}

func (b *Batch) howManyWait() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return float64(b.waiting.Len())
}
