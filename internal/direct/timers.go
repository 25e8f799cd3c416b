package direct

import (
	"sync"
	"time"
)

// Timers recycles timers. The zero value is ready to use and safe for concurrent use. It belongs to one runtime.
type Timers struct{ pool sync.Pool }

func (t *Timers) start(d time.Duration) *time.Timer {
	if timer, ok := t.pool.Get().(*time.Timer); ok {
		timer.Reset(d)
		return timer
	}
	return time.NewTimer(d)
}

// stop takes a timer back. Whether it has struck or not: once stopped, its channel is empty.
func (t *Timers) stop(timer *time.Timer) {
	timer.Stop()
	t.pool.Put(timer)
}
