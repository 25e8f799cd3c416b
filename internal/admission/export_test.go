package admission

// DisarmTimer stops the pool's timer and reports whether it was armed.
func (p *Pool[T]) DisarmTimer() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.timer != nil && p.timer.Stop()
}
