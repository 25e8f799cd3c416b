package count

import "sync/atomic"

// Admission is what is counted at the door of an instance that has its own, or of an app.
type Admission struct {
	Admitted    atomic.Int64 // requests that got a worker
	QueueFull   atomic.Int64 // shed: too many were waiting
	WaitTooLong atomic.Int64 // shed: it waited too long
	PushedOut   atomic.Int64 // shed: made room for a newer one
	Deadline    atomic.Int64 // shed: its deadline could not be met
	Gone        atomic.Int64 // its caller left before there was a worker
	Refused     atomic.Int64 // the app was not serving
	Abandoned   atomic.Int64 // code that was left behind
	ConnsShed   atomic.Int64 // connections and streams: MaxConns had no room for them

	QueueWait      atomic.Int64 // nanoseconds that admitted requests waited
	BusyTime       atomic.Int64 // nanoseconds that workers were busy
	DownstreamTime atomic.Int64 // of that, waiting for other apps
}

// Add adds what other has counted.
func (a *Admission) Add(other *Admission) { add(a, other) }
