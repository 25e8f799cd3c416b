// Package timers recycles timers.
package timers

import (
	"sync"
	"time"
)

// Pool keeps timers for the next ones who need one. The zero value is ready to use and safe for concurrent use. It belongs
// to one runtime.
type Pool struct{ kept sync.Pool }

// Start returns a timer that strikes after d.
func (p *Pool) Start(d time.Duration) *time.Timer {
	if timer, ok := p.kept.Get().(*time.Timer); ok {
		timer.Reset(d)
		return timer
	}
	return time.NewTimer(d)
}

// Stop takes a timer back. Whether it has struck or not: once stopped, its channel is empty.
func (p *Pool) Stop(timer *time.Timer) {
	timer.Stop()
	p.kept.Put(timer)
}
