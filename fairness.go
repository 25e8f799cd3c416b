package watt

import (
	"runtime"
	"sync/atomic"
	"time"
)

// timeSlice is how long callers may keep a processor among themselves: as long as Go lets one goroutine compute.
const timeSlice = 10 * time.Millisecond

// fairness knows since when callers have called without a pause. Go lets a goroutine that is started or woken have what is
// left of the time of the one that does so. Callers in a loop and those they call pass a processor on to one another like
// that, and collections of garbage keep Go's monitor from noticing how long they have had it: everything else on that
// processor, on the only one above all, would wait for seconds (go.dev/issue/52934).
type fairness struct{ began, last atomic.Int64 }

// yield gives the others their turn once in a timeSlice without a pause. Whoever calls now and then has kept nobody waiting,
// and would itself wait for all that computes: where something does, its own turns are the pauses.
func (f *fairness) yield(now time.Time) {
	const pause, grain = timeSlice / 2, timeSlice / 10 // noted no finer: all callers share what is written
	t, began, last := now.UnixNano(), f.began.Load(), f.last.Load()
	if last <= t && t-last < int64(grain) {
		return
	}
	f.last.Store(t)
	switch {
	case t-last >= int64(pause), t < began: // a clock may have been set back
		f.began.Store(t)
	case t-began >= int64(timeSlice) && f.began.CompareAndSwap(began, t):
		runtime.Gosched()
	}
}
