package watt

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// request is one request in progress at an app's door: what its context carries, and what has to be
// given back when it ends.
type request struct {
	app    *app
	gen    *generation
	caller string
	trace  trace
	cancel context.CancelCauseFunc

	timer  *time.Timer // ends the wait for the first byte of the answer; nil if the caller keeps time
	unlink func() bool // ends the tie to the caller's context
	untime func()      // ends the timer of the deadline

	mu        sync.Mutex
	ticket    ticket
	holds     bool // a worker
	longLived bool // a place under MaxConns instead
	upgraded  bool // its connection was hijacked and has a place
	draining  bool // long-lived requests are no longer welcome

	next, prev *request // in the generation's list; guarded by its mutex
}

// requestKey is the context key of the *request being served.
type requestKey struct{}

func requestOf(ctx context.Context) *request {
	q, _ := ctx.Value(requestKey{}).(*request)
	return q
}

// Caller returns the name of the app that made the request which ctx belongs to, or "" if it came
// from outside, from main or from a test. It is read from the connection, never from a header.
func Caller(ctx context.Context) string {
	if q := requestOf(ctx); q != nil {
		return q.caller
	}
	return ""
}

// callerOf returns the name of the app that serves the request of ctx, for errors of its calls.
func callerOf(ctx context.Context) string {
	if q := requestOf(ctx); q != nil {
		return q.app.name
	}
	return ""
}

// LongLived gives the worker of the request that ctx belongs to back: for long polls and streams
// that wait more than they work. From now on the request counts under the app's MaxConns, and its
// context ends when the app's drain begins. While MaxConns is reached it keeps its worker. Upgraded
// connections and answers of type text/event-stream are long-lived by themselves.
func LongLived(ctx context.Context) {
	if q := requestOf(ctx); q != nil {
		_ = q.becomeLongLived()
	}
}

// becomeLongLived trades the worker for a place under MaxConns.
func (q *request) becomeLongLived() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.holds {
		return nil
	}
	if err := q.app.conns.enter(); err != nil {
		return err
	}
	q.holds, q.longLived = false, true
	q.ticket.Discard()
	if q.draining {
		q.cancel(errDraining)
	}
	return nil
}

// hijacked gives the worker back: the connection has a place of its own.
func (q *request) hijacked() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.holds {
		q.ticket.Discard()
	}
	q.holds, q.upgraded = false, true
	if q.draining {
		q.cancel(errDraining)
	}
}

// drain ends the request if it is long-lived, and keeps it from becoming so.
func (q *request) drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.draining = true
	if q.longLived || q.upgraded {
		q.cancel(errDraining)
	}
}

// bind derives the request's context from the server's. With a call it ends with the caller's too,
// and has the caller's deadline.
func (q *request) bind(r *http.Request, c *call) *http.Request {
	ctx, cancel := context.WithCancelCause(r.Context())
	q.cancel = cancel
	if c != nil {
		if deadline, ok := c.ctx.Deadline(); ok {
			ctx, q.untime = context.WithDeadline(ctx, deadline)
		}
		q.unlink = context.AfterFunc(c.ctx, func() {
			if !c.answered.Load() {
				cancel(context.Cause(c.ctx))
			}
		})
	}
	return r.WithContext(context.WithValue(ctx, requestKey{}, q))
}

// limit gives a request from another process the time that its caller has left.
func (q *request) limit(r *http.Request, remaining time.Duration) *http.Request {
	ctx, cancel := context.WithTimeout(r.Context(), remaining)
	q.untime = cancel
	return r.WithContext(ctx)
}

// answering is called before the first byte of the answer.
func (q *request) answering() {
	if q.timer != nil {
		q.timer.Stop()
	}
}

// release ends the request's context and what is tied to it.
func (q *request) release() {
	if q.timer != nil {
		q.timer.Stop()
	}
	if q.unlink != nil {
		q.unlink()
	}
	if q.untime != nil {
		q.untime()
	}
	q.cancel(context.Canceled)
}

// end gives back what the request holds.
func (q *request) end() {
	q.release()
	q.gen.requests.remove(q)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.holds {
		q.ticket.Release()
	}
	if q.longLived {
		q.app.conns.leave()
	}
	q.holds, q.longLived = false, false
}

// requests are those in progress on one generation.
type requests struct {
	mu       sync.Mutex
	first    *request
	draining bool
	empty    chan struct{} // closed when the last one ends, if somebody waits
}

func (l *requests) add(q *request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q.draining = l.draining
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

// drain ends the long-lived ones, now and from now on.
func (l *requests) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draining = true
	for q := l.first; q != nil; q = q.next {
		q.drain()
	}
}

// cut ends the contexts of all and returns how many there are.
func (l *requests) cut(cause error) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for q := l.first; q != nil; q = q.next {
		q.cancel(cause)
		n++
	}
	return n
}
