package metrics

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/org/watt"
)

// Collector makes metrics of a runtime's Status, for a registry of one's own.
type Collector struct {
	rt    *watt.Runtime
	descs *descs
	past  past
}

// NewCollector returns a collector of rt's metrics, those in Env.Metrics left out: [watt.Runtime.Gather] has them.
func NewCollector(rt *watt.Runtime) *Collector { return &Collector{rt: rt, descs: newDescs()} }

// main is the caller that is no app; no app can have that name.
const main = "(main)"

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range c.descs.all {
		descs <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	now := time.Now()
	for _, s := range c.rt.Status() {
		app := sink{metrics, c.descs, []string{s.Name}}
		app.limits(&s)
		app.shed(&s)
		app.connections(&s)
		app.gauge(c.descs.saturation, c.past.saturation(&s, now))
		for i := range s.PerInstance {
			in := &s.PerInstance[i]
			one := app.with(strconv.Itoa(in.Instance))
			one.instance(&s, in)
			one.served(in)
		}
		for i := range s.PerListener {
			app.listener(&s.PerListener[i])
		}
		for i := range s.PerCaller {
			app.caller(&s.PerCaller[i])
		}
	}
}

// sink takes samples with some labels.
type sink struct {
	metrics chan<- prometheus.Metric
	d       *descs
	labels  []string
}

func (k sink) with(labels ...string) sink {
	return sink{k.metrics, k.d, slices.Concat(k.labels, labels)}
}

func (k sink) gauge(d *prometheus.Desc, v float64) {
	k.metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, k.labels...)
}

func (k sink) counter(d *prometheus.Desc, v float64) {
	k.metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, k.labels...)
}

func (k sink) limits(s *watt.Status) {
	k.with(s.Profile.String(), s.Isolation.String()).gauge(k.d.info, 1)
	k.gauge(k.d.workers, float64(max(s.Workers, 0)*len(s.PerInstance)))
	k.gauge(k.d.workersBusy, float64(s.Busy))
	k.counter(k.d.busySeconds, s.BusyTime.Seconds())
	k.counter(k.d.downstreamSeconds, s.DownstreamTime.Seconds())
	k.gauge(k.d.queueCapacity, capacity(s, s.Queue))
	k.gauge(k.d.queueLength, float64(s.Queued))
	k.gauge(k.d.overloaded, truth(s.Overloaded))
	k.counter(k.d.abandoned, float64(s.Abandoned))
}

// capacity is what all doors of an app may take together, of what each may take so much: each of its own processes has one.
func capacity(s *watt.Status, each int) float64 {
	doors := 1
	if s.Isolation == watt.OwnProcess {
		doors = len(s.PerInstance)
	}
	return float64(max(each, 0) * doors)
}

func (k sink) shed(s *watt.Status) {
	k.counter(k.d.admitted, float64(s.Admitted))
	for _, reason := range []struct {
		name string
		n    uint64
	}{
		{"queue_full", s.QueueFull},
		{"wait_too_long", s.WaitTooLong},
		{"pushed_out", s.PushedOut},
		{"deadline", s.Deadline},
		{"gone", s.Gone},
		{"refused", s.Refused},
	} {
		k.with(reason.name).counter(k.d.shed, float64(reason.n))
	}
}

func (k sink) connections(s *watt.Status) {
	for _, kind := range []struct {
		name string
		n    int
	}{
		{"stream", s.Streams}, {"upgraded", s.Upgraded}, {"raw", max(0, s.Conns-s.Streams-s.Upgraded)}, {"public", s.PublicConns},
	} {
		k.with(kind.name).gauge(k.d.connections, float64(kind.n))
	}
	k.gauge(k.d.connectionsLimit, capacity(s, s.MaxConns))
	k.counter(k.d.connectionsShed, float64(s.ConnsShed))
}

// states are those of an instance.
func states() []string {
	return []string{"new", "starting", "ready", "silent", "restarting", "draining", "drained", "failed", "stopped"}
}

func (k sink) instance(s *watt.Status, in *watt.InstanceStatus) {
	k.gauge(k.d.up, truth(in.State == "ready"))
	for _, name := range states() {
		k.with(name).gauge(k.d.state, truth(in.State == name))
	}
	if !in.Since.IsZero() {
		k.gauge(k.d.stateSince, float64(in.Since.UnixMilli())/1000)
	}
	k.gauge(k.d.generation, float64(in.Generation))
	for _, cause := range []string{"ended", "killed", "start", "asked"} {
		k.with(cause).counter(k.d.restarts, float64(in.Restarts[cause]))
	}
	k.gauge(k.d.instanceWorkers, float64(max(s.Workers, 0)))
	k.gauge(k.d.instanceBusy, float64(in.Busy))
	if in.PID != 0 && in.Memory > 0 {
		k.counter(k.d.cpuSeconds, in.CPUTime.Seconds())
		k.gauge(k.d.memoryBytes, float64(in.Memory))
	}
}

func (k sink) served(in *watt.InstanceStatus) {
	for method, classes := range in.Requests {
		for class, n := range classes {
			k.with(method, class).counter(k.d.requests, float64(n))
		}
	}
	k.histogram(k.d.duration, &in.Duration)
	k.histogram(k.d.queueWait, &in.QueueWait)
	k.counter(k.d.responseBytes, float64(in.SentBytes))
	k.counter(k.d.panics, float64(in.Panics))
	k.counter(k.d.handedOver, float64(in.HandedOver))
}

func (k sink) listener(l *watt.ListenerStatus) {
	k = k.with(strconv.Itoa(l.Instance))
	k.counter(k.d.accepted, float64(l.Accepted))
	k.gauge(k.d.chosen, truth(l.Chosen))
	if l.Queued >= 0 {
		k.gauge(k.d.backlog, float64(l.Queued))
	}
}

func (k sink) caller(c *watt.CallerStatus) {
	name := c.Caller
	if name == "" {
		name = main
	}
	k = k.with(name)
	k.histogram(k.d.callDuration, &c.Duration)
	for kind, n := range c.Errors {
		k.with(kind).counter(k.d.callErrors, float64(n))
	}
	k.counter(k.d.callSent, float64(c.SentBytes))
	k.counter(k.d.callReceived, float64(c.ReceivedBytes))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
