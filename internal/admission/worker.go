package admission

import (
	"context"
	"time"
)

// Member is one instance's place in a [Pool]. It outlives the instance: a
// restart closes it and opens it again with a new value, and workers that are
// busy with the old one's requests stay taken until those end.
type Member[T any] struct {
	pool *Pool[T]

	// Guarded by pool.mu.
	open bool
	busy int      // tickets in use, of any term
	term *term[T] // since the last Open
}

// term is the time from one Open of a [Member] to the next.
type term[T any] struct {
	value T
	busy  int           // tickets in use
	idle  chan struct{} // made by whoever waits for busy to be 0, closed then
}

// Open lets m be given work, which from now on gets value.
func (m *Member[T]) Open(value T) {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	m.open, m.term = true, &term[T]{value: value}
	m.pool.changedLocked()
	m.pool.grantLocked(m.pool.now())
}

// Close keeps new work from m. What is in progress stays in progress, and
// counts against its workers also after it was opened again.
func (m *Member[T]) Close() {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	m.open = false
	m.pool.changedLocked()
}

// Idle waits until nothing is in progress with the value that m was last opened
// with, and returns nil, or the cause of ctx if that ends first. What is left
// of earlier values does not count. Unless m is closed, it may have been given
// new work by then.
func (m *Member[T]) Idle(ctx context.Context) error {
	m.pool.mu.Lock()
	t := m.term
	if t == nil || t.busy == 0 {
		m.pool.mu.Unlock()
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	m.pool.mu.Unlock()

	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Busy returns how many requests are in progress on m, of any value it had.
func (m *Member[T]) Busy() int {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	return m.busy
}

// Ticket is an admitted request's hold on a worker. Exactly one call of
// Release or Discard ends it; a second one would free a worker that another
// request holds. The zero value is invalid.
type Ticket[T any] struct {
	member *Member[T]
	term   *term[T]
	start  time.Duration
}

// Value returns what the member was opened with when the request was admitted.
func (t Ticket[T]) Value() T {
	return t.term.value
}

// After returns how long after at the ticket was given.
func (t Ticket[T]) After(at time.Time) time.Duration {
	return t.start - at.Sub(t.member.pool.epoch)
}

// Release gives the worker to the next waiter, or back. The time it was held
// counts as a service time.
func (t Ticket[T]) Release() {
	p := t.member.pool
	p.mu.Lock()
	now := p.now()
	p.stats.serve(now - t.start)
	p.endLocked(t, now)
	p.mu.Unlock()
}

// Discard is Release for a ticket whose time says nothing about how long a
// request takes: never used, or given back early by a stream that goes on.
func (t Ticket[T]) Discard() {
	p := t.member.pool
	p.mu.Lock()
	p.endLocked(t, p.now())
	p.mu.Unlock()
}

// idlestLocked returns the open member that has fewest workers busy, the first
// of equals, or nil if no worker is free.
func (p *Pool[T]) idlestLocked() *Member[T] {
	var idlest *Member[T]
	least := p.limits.Workers
	for _, m := range p.members {
		if m.open && m.busy < least {
			idlest, least = m, m.busy
		}
	}
	return idlest
}

// startLocked takes a worker of m.
func (p *Pool[T]) startLocked(m *Member[T], now time.Duration) Ticket[T] {
	m.busy++
	m.term.busy++
	p.busy++
	p.ended -= now
	p.stats.Admitted++
	p.changedLocked()
	return Ticket[T]{member: m, term: m.term, start: now}
}

// endLocked gives the worker of t back, and then to whoever waits for it. That may
// be another one than t's: limits and members may have changed meanwhile.
func (p *Pool[T]) endLocked(t Ticket[T], now time.Duration) {
	m := t.member
	m.busy--
	t.term.busy--
	p.busy--
	p.ended += now
	p.changedLocked()
	if t.term.busy == 0 && t.term.idle != nil {
		close(t.term.idle)
		t.term.idle = nil
	}
	if p.queue.length > 0 {
		p.grantLocked(now)
	}
}

// workersLocked returns how many workers the open members have.
func (p *Pool[T]) workersLocked() int {
	workers := 0
	for _, m := range p.members {
		if m.open {
			workers += p.limits.Workers
		}
	}
	return workers
}
