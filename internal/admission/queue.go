package admission

import (
	"context"
	"time"
)

// overloadAfter is how long the queue must not have been empty to be overloaded.
const overloadAfter = 100 * time.Millisecond

// queue is the list of those who wait, and the rules of who is next. Its zero
// value is empty.
type queue[T any] struct {
	length         int
	oldest, newest *waiter[T]
	filled         time.Duration // when it was last empty
	turn, turned   time.Duration // how long the last turn of the newest is, and until when
}

// waiter is a request in the queue. It leaves the queue settled with a ticket
// or an error, or with neither when its caller has gone.
type waiter[T any] struct {
	since        time.Duration
	gone         <-chan struct{} // closed when the caller has gone
	older, newer *waiter[T]
	queued       bool

	ticket  Ticket[T] // set, or err, before settled gets its one word
	err     error
	settled chan struct{}
}

// newWaiter returns a waiter that is not in the queue yet.
func (p *Pool[T]) newWaiter(ctx context.Context, since time.Duration) *waiter[T] {
	w, ok := p.spare.Get().(*waiter[T])
	if !ok {
		w = &waiter[T]{settled: make(chan struct{}, 1)}
	}
	w.since, w.gone = since, ctx.Done()
	return w
}

// overloaded reports whether the queue has not been empty for a while.
func (q *queue[T]) overloaded(now time.Duration) bool {
	return q.length > 0 && now-q.filled >= overloadAfter
}

// newestFirst reports whether the newest is next.
func (q *queue[T]) newestFirst(now time.Duration) bool {
	return q.overloaded(now) && now < q.turned
}

// next returns who gets the next free worker.
func (q *queue[T]) next(now time.Duration) *waiter[T] {
	if q.newestFirst(now) {
		return q.newest
	}
	return q.oldest
}

// surplus returns who has to go when too many wait, and what to tell them.
func (q *queue[T]) surplus(now time.Duration) (*waiter[T], Reason) {
	if q.overloaded(now) {
		return q.oldest, PushedOut
	}
	return q.newest, QueueFull
}

// ahead returns how many would be served before somebody who has come at that time.
func (q *queue[T]) ahead(since, now time.Duration) int {
	later := 0
	for w := q.newest; w != nil && w.since > since; w = w.older {
		later++
	}
	if q.newestFirst(now) {
		return later
	}
	return q.length - later
}

// insert adds w behind those who have come before it.
func (q *queue[T]) insert(w *waiter[T], now time.Duration) {
	if q.length == 0 {
		q.filled, q.turn, q.turned = now, 0, now
	}
	for w.older = q.newest; w.older != nil && w.older.since > w.since; {
		w.newer, w.older = w.older, w.older.older
	}
	if w.older == nil {
		q.oldest = w
	} else {
		w.older.newer = w
	}
	if w.newer == nil {
		q.newest = w
	} else {
		w.newer.older = w
	}
	q.length++
	w.queued = true
}

func (q *queue[T]) remove(w *waiter[T]) {
	if w.older == nil {
		q.oldest = w.newer
	} else {
		w.older.newer = w.newer
	}
	if w.newer == nil {
		q.newest = w.older
	} else {
		w.newer.older = w.older
	}
	w.older, w.newer = nil, nil
	q.length--
	w.queued = false
}

// fullLocked reports whether a newcomer that finds no free worker is shed, and
// why. In overload the queue is never full: the oldest makes room.
func (p *Pool[T]) fullLocked(now time.Duration) (Reason, bool) {
	switch {
	case p.limits.Queue <= 0 || p.limits.Wait <= 0:
		return NoQueue, true
	case p.queue.length >= p.limits.Queue && !p.queue.overloaded(now):
		return QueueFull, true
	}
	return 0, false
}

// grantLocked gives free workers to waiters: when it returns, nobody waits
// while a worker is free. That is why newcomers never overtake, and why every
// change that may free a worker ends here.
func (p *Pool[T]) grantLocked(now time.Duration) {
	for p.queue.length > 0 {
		m := p.idlestLocked()
		if m == nil {
			return
		}
		w := p.queue.next(now)
		select {
		case <-w.gone: // await returns the cause
			p.abandonLocked(w, now)
		default:
			p.stats.QueueWait += now - w.since
			p.settleLocked(w, p.startLocked(m, now), nil)
		}
	}
}

// trimLocked sheds those that are too many for the queue.
func (p *Pool[T]) trimLocked(now time.Duration) {
	for p.queue.length > max(p.limits.Queue, 0) {
		w, reason := p.queue.surplus(now)
		p.missedLocked(now, p.limits.Wait)
		p.settleLocked(w, Ticket[T]{}, p.shedLocked(reason, now-w.since))
	}
}

// expireLocked sheds those that have waited too long.
func (p *Pool[T]) expireLocked(now time.Duration) {
	for p.queue.length > 0 && now-p.queue.oldest.since >= p.limits.Wait {
		w := p.queue.oldest
		p.missedLocked(now, p.limits.Wait)
		p.settleLocked(w, Ticket[T]{}, p.shedLocked(WaitTooLong, now-w.since))
	}
}

// missedLocked notes that a request waits in vain, or would, which had patience as its time to wait. Where an overloaded
// queue is served in order, that proves that not everybody can be served in time: it is the newest's turn then, for half of
// patience, so that those who wait meanwhile can still be served in order after it. If that is proved again no longer after
// the turn than it lasted, the next turn lasts twice as long, up to half of Limits.Wait.
func (p *Pool[T]) missedLocked(now, patience time.Duration) {
	q := &p.queue
	if !q.overloaded(now) || q.newestFirst(now) {
		return
	}
	if now-q.turned > q.turn { // it went well for as long as it had not
		q.turn = 0
	}
	q.turn = min(max(patience/2, 2*q.turn), p.limits.Wait/2)
	q.turned = now + q.turn
}

// abandonLocked lets w go, whose caller has gone.
func (p *Pool[T]) abandonLocked(w *waiter[T], now time.Duration) {
	p.missedLocked(now, now-w.since)
	p.stats.Abandoned++
	p.removeLocked(w)
}

// settleLocked ends the wait of w.
func (p *Pool[T]) settleLocked(w *waiter[T], ticket Ticket[T], err error) {
	p.removeLocked(w)
	w.ticket, w.err = ticket, err
	w.settled <- struct{}{}
}

func (p *Pool[T]) removeLocked(w *waiter[T]) {
	p.queue.remove(w)
	p.changedLocked()
	if p.queue.length == 0 {
		p.timer.Stop()
	}
}

// armLocked sets the timer for the oldest. It is not set again when the oldest
// leaves: whoever is the oldest then is due later, and sees to it in wake.
func (p *Pool[T]) armLocked(now time.Duration) {
	due := p.queue.oldest.since + p.limits.Wait - now
	if p.timer == nil {
		p.timer = time.AfterFunc(due, p.wake)
		return
	}
	p.timer.Reset(due)
}

// wake is the timer's function.
func (p *Pool[T]) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.expireLocked(now)
	if p.queue.length > 0 {
		p.armLocked(now)
	}
}
