// Package timers recycles timers.
package timers

import (
	"sync"
	"time"
)

// Timers keeps timers for the next ones who need one. The zero value is ready to use and safe for concurrent use. It belongs
// to one runtime.
type Timers struct{ pool sync.Pool }

// Start returns a timer that strikes after d.
func (t *Timers) Start(d time.Duration) *time.Timer {
	if timer, ok := t.pool.Get().(*time.Timer); ok {
		timer.Reset(d)
		return timer
	}
	return time.NewTimer(d)
}

// Stop takes a timer back. Whether it has struck or not: once stopped, its channel is empty.
func (t *Timers) Stop(timer *time.Timer) {
	timer.Stop()
	t.pool.Put(timer)
}
