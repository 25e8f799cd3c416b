package watt

import (
	"errors"
	"time"

	"github.com/org/watt/internal/process"
)

// Status is what is known of one app. Counters count from the start of the runtime and never go back.
type Status struct {
	// App is the configuration in force, defaults filled in.
	App
	// Addr is the address that the app listens at, once that is open; with Listen ":0" it has the port.
	Addr string
	// State is that of the best instance: "ready", "silent" (its process shows no sign of life), "starting", "restarting",
	// "draining", "failed", "drained" (by Drain), "new" or "stopped"; Since is when it began.
	State string
	Since time.Time

	// Busy workers, requests that wait for one, and long-lived requests and connections, now.
	Busy, Queued, Conns int
	// Streams are the long-lived requests among Conns, and Upgraded the connections that were upgraded; the rest are
	// raw. PublicConns are the connections that the public side has open, idle ones included.
	Streams, Upgraded, PublicConns int
	// Overloaded reports whether the queue has not been empty for 100 ms.
	Overloaded bool

	// Admitted requests, and those shed by reason: the queue was full or there is none (QueueFull), the wait too long
	// (WaitTooLong), a newer request took the place (PushedOut), or the deadline too near (Deadline).
	// Gone are those whose caller left while they waited, Refused those that came while the app drained
	// or had been given up, and public connections for which no instance in a process of its own was there in time.
	Admitted, QueueFull, WaitTooLong, PushedOut, Deadline, Gone, Refused uint64
	// ConnsShed are long-lived requests and connections that MaxConns had no room for. An event stream among them has been
	// admitted before that turned out.
	ConnsShed uint64
	// QueueWait is the time that requests waited, BusyTime the time that workers were busy, together.
	QueueWait, BusyTime time.Duration
	// DownstreamTime is the part of BusyTime during which requests waited for other apps: for calls by Env.Client, until
	// their answers' bodies end, and for what [Downstream] tells. What is waited for at the same time counts once. The rest
	// of BusyTime is the app's own: where an entrypoint has much of it, work is in the wrong place. Requests in progress
	// count up to now, and until they give their worker back: at their end, or when they turn out to be long-lived.
	DownstreamTime time.Duration
	// Panics of handlers, restarts of instances after they had ended by themselves, and code that did not return when it had to.
	Panics, Restarts, Abandoned uint64

	// PerInstance has an entry for each instance; none for an app with a URL.
	PerInstance []InstanceStatus
	// PerCaller has an entry for main, and one for each app that may call this one.
	PerCaller []CallerStatus
	// PerListener has an entry for each public listener: one, or one for each instance that has a process of its own.
	PerListener []ListenerStatus
}

// InstanceStatus is what is known of one instance.
type InstanceStatus struct {
	// Instance is its number, counted from 0.
	Instance int
	// State is as in Status; Since is when it began. While it is "silent" it is given nothing.
	State string
	Since time.Time
	// Generation counts the lives of the instance: 1 is the first.
	Generation uint64
	// Busy is how many of its workers are.
	Busy int
	// LastError is why it last ended or could not start, "" if it never has. If it lives in a process of its own, the
	// first line is followed by the end of what that wrote to stderr, 64 KiB at most.
	LastError string
	// Restarts by cause: it has "ended" by itself, its process was "killed" by a signal, its "start" has failed, or
	// somebody has "asked" for it.
	Restarts map[string]uint64

	// Requests that are over, by method ("GET", ..., "other") and class of status ("2xx", ..., "other" if there was no
	// answer). An answer that a panic has cut off is a 5xx, and what WriteError or nobody has answered once the client had
	// gone, or the caller had given up, a 4xx: 499. What was shed is in [Status] alone, and of a Serve app requests are not
	// seen.
	Requests map[string]map[string]uint64
	// Duration is the time from a request's arrival until its handler has returned, but of those that have become
	// long-lived; QueueWait the part of it before there was a worker.
	Duration, QueueWait Times
	// SentBytes of answers' bodies, Panics of handlers, and requests HandedOver to an idle sibling, which counts them too.
	SentBytes, Panics, HandedOver uint64

	// PID is the process that the instance lives in, if it is one of its own; otherwise 0. CPUTime is what that has used,
	// and Memory how many bytes it has in memory, both 0 where the system does not tell.
	PID     int
	CPUTime time.Duration
	Memory  int64
}

// CallerStatus is what is known of one app's calls of another by [Env.Client]. A call is counted when it ends, which is
// with the body of its answer.
type CallerStatus struct {
	// Caller is the name of the app that calls, "" for main.
	Caller string
	// Errors by kind: "overloaded", "unavailable", "timeout", "canceled", "died" or "other". Whatever the callee has
	// answered is none.
	Errors map[string]uint64
	// Duration of all calls, failed ones included.
	Duration Times
	// SentBytes of requests' bodies, as far as they were read or were in memory, and ReceivedBytes of answers' bodies.
	SentBytes, ReceivedBytes uint64
}

// ListenerStatus is what is known of one public listener.
type ListenerStatus struct {
	// Instance is whose it is; 0 for the one of an app in this process.
	Instance int
	// Accepted connections so far.
	Accepted uint64
	// Queued connections wait to be accepted; -1 if the system does not tell.
	Queued int
	// Chosen reports whether new connections get there.
	Chosen bool
}

// Times is a distribution of durations.
type Times struct {
	Count uint64
	// Sum of all, the median and the 99th percentile; these two are accurate to a fifth.
	Sum, P50, P99 time.Duration
	// Buckets are those of Prometheus's native histograms with schema 2: number i has what took longer than 2^((i-1)/4)
	// seconds, but not longer than 2^(i/4). The first, -80, also has all that is shorter (than 1 µs), and the last, 49,
	// all that is longer (than 68 minutes). Only those that are not empty are there.
	Buckets map[int]uint64 `json:"-"`
}

// Status returns what is known of every app, in the order given to [New]. Before the start it shows
// the configuration with its defaults.
func (rt *Runtime) Status() []Status {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	var all []Status
	if rt.running.Load() == nil {
		for _, config := range allWithDefaults(rt.configs) {
			all = append(all, Status{App: config, State: stateNew})
		}
		return all
	}
	for _, a := range rt.apps {
		all = append(all, a.status())
	}
	return all
}

func (a *app) status() Status {
	s := Status{App: *a.conf(), Addr: a.place.addr(), Restarts: a.restarts.Load()}
	a.place.count(&s)
	s.Calls = append([]string(nil), s.Calls...)
	a.mu.Lock()
	defer a.mu.Unlock()
	s.State, s.Since = a.stateLocked(), a.since
	for _, in := range a.instances {
		one := in.status()
		a.loadServed(&one)
		s.PerInstance = append(s.PerInstance, one)
	}
	s.PerCaller, s.PerListener = a.perCaller(), a.place.listeners()
	return s
}

func (in *instance) status() InstanceStatus {
	in.mu.Lock()
	defer in.mu.Unlock()
	state, since := in.seenLocked()
	s := InstanceStatus{
		Instance: in.index, State: state, Since: since, Generation: in.started, Busy: in.member.Busy(),
		Restarts: in.app.tallies.restartsOf(in.index),
	}
	if o, ok := in.life.(*own); ok {
		s.PID, s.Busy = o.process.PID(), few(&o.slot.Busy)
		s.CPUTime, s.Memory = process.Usage(s.PID)
	}
	if in.lastErr != nil {
		s.LastError = in.lastErr.Error()
		if exit, ok := errors.AsType[*process.ExitError](in.lastErr); ok && exit.Output != "" {
			s.LastError += "\n" + exit.Output
		}
	}
	return s
}
