// Package admission decides at an app's door: run now, wait, or shed.
//
// A [Pool] has members, each with the same number of workers, and one bounded
// queue in front of all of them. A worker is the right to have one request in
// progress; a [Ticket] is an admitted request's hold on one. To shed is to
// refuse before any work was done, so what was shed may always be retried.
//
// # The queue
//
// The queue is bounded in number and in time. It is overloaded once it has not
// been empty for 100 ms, and until it is empty. As long as everybody in it is
// served in time, it is served in order nevertheless: a few callers who come
// again as soon as they have been served keep a queue from ever being empty,
// and would be served newest first at the expense of a few who never are. But
// when somebody waits in vain, or is about to, serving in order would make
// everybody late, and whoever has waited longest has most likely given up: then
// it is the newest's turn. That lasts for half of the time that this one could
// have waited; those who wait meanwhile have time left when it is over. A turn
// that soon follows the last is twice as long, up to half of Limits.Wait.
//
// The newcomer to a full queue is shed, and in an overloaded one pushes out the
// oldest. What outlived its caller is never run, and what would wait beyond its
// deadline is shed before it waits.
//
// This is the adaptive LIFO, with the 100 ms of the controlled delay, of
// Facebook's services: Ben Maurer, "Fail at Scale", ACM Queue 13(8), 2015,
// https://queue.acm.org/detail.cfm?id=2839461. Instead of its second, shorter
// time limit for overloaded queues, the oldest are pushed out by number. The
// turns are our own.
package admission

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Limits bounds a [Pool].
type Limits struct {
	// Workers is how many requests each member may have in progress.
	// If zero, none is ever run.
	Workers int
	// Queue is how many requests may wait, for all members together.
	// If zero, none may wait.
	Queue int
	// Wait is how long a request may wait. If zero, none may wait.
	Wait time.Duration
}

// Pool admits requests to the workers of its members. Its methods, and those
// of its members and tickets, are safe for concurrent use; none blocks but
// [Pool.Acquire] and [Member.Idle].
type Pool[T any] struct {
	epoch time.Time // the clock's zero: one reading of time.Since is half the price of time.Now

	// What every ticket needs comes first, in as few cache lines as can be: of a thousand pools, few are in a cache.
	mu      sync.Mutex
	limits  Limits
	members []*Member[T]
	busy    int           // tickets in use, those of closed and removed members included
	ended   time.Duration // the ends of all tickets less their starts; see Stats
	refused error
	observe func(View)
	queue   queue[T]    // empty while a worker is free, and while refused is set
	stats   Stats       // the cumulative part
	timer   *time.Timer // armed while somebody waits, for the oldest or earlier

	spare sync.Pool // of *waiter[T], out of the queue and with nothing to be read from settled
}

// New returns a pool without members. It starts nothing.
func New[T any](limits Limits) *Pool[T] {
	return &Pool[T]{epoch: time.Now(), limits: limits}
}

// Acquire returns a ticket for a worker of the open member that has fewest
// busy, the first added of equals. If none is free it waits in the queue, also
// while no member is open. The caller releases or discards the ticket, once.
//
// The error is a [*ShedError], the error given to [Pool.Refuse], or the
// cause of ctx if that ended first.
func (p *Pool[T]) Acquire(ctx context.Context) (Ticket[T], error) {
	return p.AcquireOr(ctx, time.Time{}, nil)
}

// ErrMoved is the error of a request that need not wait here any more.
var ErrMoved = errors.New("it has been moved")

// AcquireOr is Acquire for a request that may find a worker elsewhere: if it has to wait it calls waits, unless that is
// nil, and when the channel that this returns is closed before there is a worker, its error is [ErrMoved]. Such a
// request is in no count. It may come back: it takes its place among those who wait by when it came first, which is
// since, unless that is zero, and it has waited as long.
func (p *Pool[T]) AcquireOr(ctx context.Context, since time.Time, waits func() (moved <-chan struct{})) (Ticket[T], error) {
	if ctx.Err() != nil {
		p.mu.Lock()
		p.stats.Abandoned++
		p.mu.Unlock()
		return Ticket[T]{}, context.Cause(ctx)
	}
	p.mu.Lock()
	if m := p.idlestLocked(); m != nil && p.refused == nil {
		ticket := p.startLocked(m, p.now())
		p.mu.Unlock()
		return ticket, nil
	}
	w, err := p.enqueueLocked(ctx, since)
	p.mu.Unlock()
	if err != nil {
		return Ticket[T]{}, err
	}
	var moved <-chan struct{}
	if waits != nil {
		moved = waits()
	}
	return p.await(ctx, w, moved)
}

// AcquireNow is Acquire for a request that may find a worker elsewhere, and does not wait: if none is free its error is
// [ErrMoved], and it is in no count.
func (p *Pool[T]) AcquireNow() (Ticket[T], error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refused != nil {
		p.stats.Refused++
		return Ticket[T]{}, p.refused
	}
	m := p.idlestLocked()
	if m == nil {
		return Ticket[T]{}, ErrMoved
	}
	return p.startLocked(m, p.now()), nil
}

// enqueueLocked has somebody wait who cannot run at once, and does so since then, or now if that is zero; or sheds it.
func (p *Pool[T]) enqueueLocked(ctx context.Context, since time.Time) (*waiter[T], error) {
	if p.refused != nil {
		p.stats.Refused++
		return nil, p.refused
	}
	now := p.now()
	if reason, full := p.fullLocked(now); full {
		return nil, p.shedLocked(reason, 0)
	}
	came := now
	if !since.IsZero() {
		came = min(now, since.Sub(p.epoch))
	}
	wait := p.timeToServeLocked(p.queue.ahead(came, now) + 1)
	if deadline, ok := ctx.Deadline(); ok {
		if left := time.Until(deadline); wait > left {
			if left >= p.timeToServeLocked(1) { // else it could not be served in any order
				p.missedLocked(now, left)
			}
			return nil, p.shedLocked(Deadline, wait)
		}
	}
	w := p.newWaiter(ctx, came)
	p.queue.insert(w, now)
	if p.queue.oldest == w {
		p.armLocked(now)
	}
	p.changedLocked()
	p.expireLocked(now)
	p.trimLocked(now)
	return w, nil
}

// await returns what became of w, unless its caller goes first, or it is moved.
func (p *Pool[T]) await(ctx context.Context, w *waiter[T], moved <-chan struct{}) (Ticket[T], error) {
	select {
	case <-w.settled:
		if ctx.Err() == nil {
			ticket, err := w.ticket, w.err
			*w = waiter[T]{settled: w.settled}
			p.spare.Put(w)
			return ticket, err
		}
	case <-moved:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case ctx.Err() == nil && w.queued:
		p.removeLocked(w)
		return Ticket[T]{}, ErrMoved
	case ctx.Err() == nil: // settled in the same moment
		return w.ticket, w.err
	case w.queued:
		p.abandonLocked(w, p.now())
	case w.ticket.member != nil: // granted in the same moment: hand it on
		p.endLocked(w.ticket, p.now())
	}
	return Ticket[T]{}, context.Cause(ctx)
}

// Resize changes the limits. New workers are given to waiters at once; workers
// too many are not revoked, but not given again either. Who has waited longer
// than the new limit is shed, and so are those that are too many for the new
// queue: the newest, or the oldest in overload. A turn of the newest is over.
func (p *Pool[T]) Resize(limits Limits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limits = limits
	p.changedLocked()
	now := p.now()
	p.queue.turn, p.queue.turned = 0, now
	p.grantLocked(now)
	p.expireLocked(now)
	p.trimLocked(now)
	if p.queue.length > 0 {
		p.armLocked(now)
	}
}

// Refuse answers everyone who waits and everyone who comes with err, at once.
// Nil admits again. Tickets in use are not affected.
func (p *Pool[T]) Refuse(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = err
	p.changedLocked()
	if err == nil {
		return
	}
	for p.queue.length > 0 {
		p.stats.Refused++
		p.settleLocked(p.queue.oldest, Ticket[T]{}, err)
	}
}

// View is what [Pool.Observe] tells.
type View struct {
	Busy   int // requests in progress
	Queued int // requests waiting
	Room   int // how many more would pass [Pool.Check], before any of them has come

	// Takes is how long a request that has to wait takes until it is served, at the present rate. If zero, it
	// need not wait, or nothing is known.
	Takes time.Duration
	// RetryAfter is what a [ShedError] would say.
	RetryAfter time.Duration
}

// Observe has f told how the pool looks: now and whenever that changes. It is called with the pool locked, and must
// be quick.
func (p *Pool[T]) Observe(f func(View)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.observe = f
	p.changedLocked()
}

// changedLocked is small enough to be inlined: mostly nobody observes.
func (p *Pool[T]) changedLocked() {
	if p.observe != nil {
		p.tellLocked()
	}
}

func (p *Pool[T]) tellLocked() {
	free := max(p.workersLocked()-p.busy, 0)
	v := View{Busy: p.busy, Queued: p.queue.length, RetryAfter: p.retryAfterLocked()}
	if p.refused == nil {
		v.Room = free + max(p.placesLocked()-p.queue.length, 0)
	}
	if free == 0 {
		v.Takes = p.takesLocked()
	}
	p.observe(v)
}

// Check returns the error for work that is to end in a request, and is better not begun: when it comes to
// [Pool.Acquire], it would be shed, or somebody who waits would be because of it. That is stricter than Acquire, where
// who has come last may be served first: also in overload the queue has to have room, and whoever waits in it is
// expected to be served before Limits.Wait has passed, and the request by then, unless that is zero. Check counts
// nothing, and does not know who else has been told to begin.
func (p *Pool[T]) Check(by time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.refused != nil:
		return p.refused
	case p.idlestLocked() != nil:
		return nil
	case p.limits.Queue <= 0 || p.limits.Wait <= 0:
		return p.shedErrorLocked(NoQueue, 0)
	case p.queue.length >= p.limits.Queue:
		return p.shedErrorLocked(QueueFull, 0)
	case p.queue.length >= p.placesLocked():
		return p.shedErrorLocked(Deadline, p.timeToServeLocked(p.queue.length+1))
	}
	if !by.IsZero() && p.takesLocked() > time.Until(by) {
		return p.shedErrorLocked(Deadline, p.timeToServeLocked(p.queue.length+1))
	}
	return nil
}

// Add returns a new member, closed.
func (p *Pool[T]) Add() *Member[T] {
	m := &Member[T]{pool: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.members = append(p.members, m)
	return m
}

// Remove takes m out for good: it gets no new work, whether it is opened or
// not. Its tickets stay valid, and count as busy until they are released.
func (p *Pool[T]) Remove(m *Member[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.members = slices.DeleteFunc(p.members, func(other *Member[T]) bool { return other == m })
}

// now reads the monotonic clock. It is called with mu held, so that it does not go
// back for the queue.
func (p *Pool[T]) now() time.Duration {
	return time.Since(p.epoch)
}
