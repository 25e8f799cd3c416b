package admission

import "time"

// DisarmTimer stops the pool's timer and reports whether it was armed.
func (p *Pool[T]) DisarmTimer() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.timer != nil && p.timer.Stop()
}

// RetryAfter returns what a ShedError would say now.
func (p *Pool[T]) RetryAfter() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.retryAfterLocked()
}
