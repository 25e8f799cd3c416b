package watt

import (
	"context"
	"sync"
	"time"
)

// requests are those in progress on one generation, or with an app's siblings.
type requests struct {
	mu       sync.Mutex
	first    *request
	draining bool
	closed   bool          // nothing joins any more
	empty    chan struct{} // closed when the last one ends, if somebody waits
}

func (l *requests) add(q *request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addLocked(q)
}

// join is add where that may come too late, which it reports.
func (l *requests) join(q *request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.addLocked(q)
	}
	return !l.closed
}

func (l *requests) addLocked(q *request) {
	q.mu.Lock()
	q.draining = l.draining
	q.mu.Unlock()
	if q.next = l.first; q.next != nil {
		q.next.prev = q
	}
	l.first = q
}

func (l *requests) remove(q *request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q.prev != nil {
		q.prev.next = q.next
	} else {
		l.first = q.next
	}
	if q.next != nil {
		q.next.prev = q.prev
	}
	q.next, q.prev = nil, nil
	if l.first == nil && l.empty != nil {
		close(l.empty)
		l.empty = nil
	}
}

// wait returns when none is in progress, or ctx's cause.
func (l *requests) wait(ctx context.Context) error {
	l.mu.Lock()
	if l.first == nil {
		l.mu.Unlock()
		return nil
	}
	if l.empty == nil {
		l.empty = make(chan struct{})
	}
	empty := l.empty
	l.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close is wait, after which nothing joins any more.
func (l *requests) close(ctx context.Context) error {
	for {
		if err := l.wait(ctx); err != nil {
			return err
		}
		l.mu.Lock()
		l.closed = l.first == nil
		closed := l.closed
		l.mu.Unlock()
		if closed {
			return nil
		}
	}
}

// waiting returns how long those that wait for other apps have done so up to now, together.
func (l *requests) waiting(now time.Time) (sum time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for q := l.first; q != nil; q = q.next {
		sum += q.downstream.waited(now)
	}
	return sum
}

// oldest returns the one that began first, or nil.
func (l *requests) oldest() *request {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.first
	for q != nil && q.next != nil {
		q = q.next
	}
	return q
}

// drain ends the long-lived ones, now and from now on.
func (l *requests) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draining = true
	for q := l.first; q != nil; q = q.next {
		q.drain()
	}
}

// cut cuts all and returns how many there are, but for those whose connections are among hijacked.
func (l *requests) cut(hijacked *conns) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for q := l.first; q != nil; q = q.next {
		q.cut()
		if !hijacked.has(q.connection()) {
			n++
		}
	}
	return n
}

// abandon lets the callers of all go.
func (l *requests) abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for q := l.first; q != nil; q = q.next {
		q.abandon()
	}
}
