package watt

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Status is what is known of one app. Counters count from the start of the runtime and never go back.
type Status struct {
	// App is the configuration in force, defaults filled in.
	App
	// Addr is the address that the app listens at, once that is open; with Listen ":0" it has the port.
	Addr string
	// State is "new", "starting", "ready" (at least one instance is), "restarting", "draining",
	// "failed" (every instance is) or "stopped"; Since is when it began.
	State string
	Since time.Time

	// Busy workers, requests that wait for one, and long-lived requests and connections, now.
	Busy, Queued, Conns int
	// Overloaded reports whether the queue has not been empty for 100 ms.
	Overloaded bool

	// Admitted requests, and those shed by reason: the queue was full or there is none (QueueFull), the wait too long
	// (WaitTooLong), a newer request took the place (PushedOut), or the deadline too near (Deadline).
	// Gone are those whose caller left while they waited, Refused those that came while the app drained
	// or had been given up.
	Admitted, QueueFull, WaitTooLong, PushedOut, Deadline, Gone, Refused uint64
	// QueueWait is the time that requests waited, BusyTime the time that workers were busy, together.
	QueueWait, BusyTime time.Duration
	// DownstreamTime is the part of BusyTime during which requests waited for calls by Env.Client of other apps, their
	// answers' bodies included; calls at the same time count once. The rest is the app's own time. A request is counted
	// when it ends.
	DownstreamTime time.Duration
	// Panics of handlers, restarts of instances after they had ended by themselves, and code that did not return when it had to.
	Panics, Restarts, Abandoned uint64

	// PerInstance has an entry for each instance; none for an app with a URL.
	PerInstance []InstanceStatus
}

// InstanceStatus is what is known of one instance.
type InstanceStatus struct {
	// Instance is its number, counted from 0.
	Instance int
	// State is as in Status, and Since when it began.
	State string
	Since time.Time
	// Generation counts the lives of the instance: 1 is the first.
	Generation uint64
	// Busy is how many of its workers are.
	Busy int
	// LastError is why it last ended or could not start, "" if it never has.
	LastError string
	// PID is the process that the instance lives in, if it is one of its own; otherwise 0.
	PID int
}

// Status returns what is known of every app, in the order given to [New]. Before the start it shows
// the configuration with its defaults.
func (rt *Runtime) Status() []Status {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	var all []Status
	if rt.running.Load() == nil {
		for _, config := range allWithDefaults(rt.configs) {
			all = append(all, configured(config))
		}
		return all
	}
	for _, a := range rt.apps {
		all = append(all, a.status())
	}
	return all
}

// configured is the status of an app before the start.
func configured(config App) Status {
	return Status{App: config, State: stateNew}
}

func (a *app) status() Status {
	s := Status{App: *a.conf(), Addr: a.place.addr(), Restarts: a.restarts.Load()}
	a.place.count(&s)
	s.Calls = append([]string(nil), s.Calls...)
	a.mu.Lock()
	defer a.mu.Unlock()
	s.State, s.Since = a.stateLocked(), a.since
	for _, in := range a.instances {
		s.PerInstance = append(s.PerInstance, in.status())
	}
	return s
}

func (in *instance) status() InstanceStatus {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := InstanceStatus{
		Instance: in.index, State: in.state, Since: in.since, Generation: in.started, Busy: in.member.Busy(),
	}
	if o, ok := in.life.(*own); ok {
		s.PID, s.Busy = o.process.PID(), int(o.slot.Busy.Load())
	}
	if in.lastErr != nil {
		s.LastError = in.lastErr.Error()
	}
	return s
}

// Gather implements [prometheus.Gatherer] for what the apps have registered in their Env.Metrics.
func (rt *Runtime) Gather() ([]*dto.MetricFamily, error) {
	rt.mu.Lock()
	apps := rt.apps
	rt.mu.Unlock()
	gatherers := prometheus.Gatherers{rt.Env().registry}
	for _, a := range apps {
		gatherers = append(gatherers, a.registries()...)
	}
	return gatherers.Gather()
}

// registries returns those of the generations that live.
func (a *app) registries() []prometheus.Gatherer {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []prometheus.Gatherer
	for _, in := range a.instances {
		if l := in.current(); l != nil {
			all = append(all, l.metrics())
		}
	}
	return all
}
