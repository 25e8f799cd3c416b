package watt

import (
	"runtime"
	"sync/atomic"
	"time"
)

// timeSlice is how long callers may keep a processor among themselves: as long as Go lets one goroutine compute.
const timeSlice = 10 * time.Millisecond

// fairness knows since when callers have called without a pause. A goroutine that another one starts or wakes runs in the
// rest of that one's time slice. So callers in a loop and those whom they call pass a processor to and fro, while garbage
// collections keep Go's monitor from noticing for how long: everything else on that processor would wait for seconds, the
// more so if there is no other (go.dev/issue/52934).
type fairness struct{ began, last atomic.Int64 }

// yield lets other goroutines run, once in each timeSlice without a pause. Callers that pause do not yield: they have kept
// nobody waiting, and would have to wait for all that computes. Where something computes, it makes the pauses itself.
func (f *fairness) yield(now time.Time) {
	const pause, grain = timeSlice / 2, timeSlice / 10 // last is written only once in a grain, since all callers share it
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
