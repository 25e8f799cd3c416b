package watt

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// request is one request in progress at an app's door, and its context: what it carries, what ends it,
// and what has to be given back when it ends.
//
// Most handlers never ask when their context ends. So the context that can tell is made when somebody
// first does; until then the request only remembers.
type request struct {
	app      *app
	gen      *generation
	caller   string
	trace    trace
	base     context.Context //nolint:containedctx // the server's; the request is a context itself
	call     *call           // on whose behalf it is served, if that is of this process
	deadline time.Time       // the caller's; zero if it has none
	timer    *time.Timer     // ends the wait for the first byte of the answer; nil if the caller keeps time
	answer   answer1
	method   string
	path     string

	mu        sync.Mutex
	real      context.Context //nolint:containedctx // made when first needed
	endReal   context.CancelCauseFunc
	untime    context.CancelFunc // ends its timer
	cause     error              // why the context has ended
	ticket    ticket
	holds     bool // a worker
	longLived bool // a place under MaxConns instead
	upgraded  bool // its connection was hijacked and has a place
	draining  bool // long-lived requests are no longer welcome

	next, prev *request // in the generation's list; guarded by its mutex
}

// Deadline returns the caller's deadline.
func (q *request) Deadline() (time.Time, bool) { return q.deadline, !q.deadline.IsZero() }

// Done returns a channel that is closed when the request's context ends.
func (q *request) Done() <-chan struct{} { return q.context().Done() }

// Err returns why the context has ended, in one of the context package's two words.
func (q *request) Err() error {
	q.mu.Lock()
	ctx, cause := q.real, q.cause
	q.mu.Unlock()
	switch {
	case errors.Is(cause, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case cause != nil:
		return context.Canceled
	case ctx != nil:
		return ctx.Err()
	case !q.deadline.IsZero() && !time.Now().Before(q.deadline):
		return context.DeadlineExceeded
	}
	return q.base.Err()
}

// Value returns the request for its key, and otherwise what the server's context holds.
func (q *request) Value(key any) any {
	if key == (requestKey{}) {
		return q
	}
	q.mu.Lock()
	remembered := q.real == nil && q.cause == nil
	q.mu.Unlock()
	if remembered {
		return q.base.Value(key)
	}
	return q.context().Value(key) // it also knows the cause
}

// context returns the context that can tell when it ends.
func (q *request) context() context.Context {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.real == nil {
		q.real, q.endReal = context.WithCancelCause(q.base)
		if !q.deadline.IsZero() {
			q.real, q.untime = context.WithDeadline(q.real, q.deadline)
		}
		if q.cause != nil {
			q.endReal(q.cause)
		}
	}
	return q.real
}

// cancel ends the context. Only the first cause counts.
func (q *request) cancel(cause error) {
	q.mu.Lock()
	if q.cause == nil {
		q.cause = cause
	}
	end := q.endReal
	q.mu.Unlock()
	if end != nil {
		end(cause)
	}
}

// PeerClosed ends the context of a request whose caller, in this process, has closed the connection.
func (q *request) PeerClosed() { q.cancel(q.call.cause()) }

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
	if !q.holds {
		q.mu.Unlock()
		return nil
	}
	if err := q.app.conns.enter(); err != nil {
		q.mu.Unlock()
		return err
	}
	q.holds, q.longLived = false, true
	q.ticket.Discard()
	draining := q.draining
	q.mu.Unlock()
	if draining {
		q.cancel(errDraining)
	}
	return nil
}

// hijacked gives the worker back: the connection has a place of its own. From now on the handler
// reads for itself when the other side closes.
func (q *request) hijacked() {
	q.unwatch()
	q.mu.Lock()
	if q.holds {
		q.ticket.Discard()
	}
	q.holds, q.upgraded = false, true
	draining := q.draining
	q.mu.Unlock()
	if draining {
		q.cancel(errDraining)
	}
}

// drain ends the request if it is long-lived, and keeps it from becoming so.
func (q *request) drain() {
	q.mu.Lock()
	q.draining = true
	ends := q.longLived || q.upgraded
	q.mu.Unlock()
	if ends {
		q.cancel(errDraining)
	}
}

// serve takes over the worker and the deadline of a call of this process, and the watch over its end.
// If its caller has gone, nothing is begun.
func (q *request) serve(c *call, conn *doorConn) {
	if !c.claim() {
		panic(http.ErrAbortHandler)
	}
	q.call, q.ticket, q.holds, q.gen = c, c.ticket, true, c.ticket.Value()
	q.deadline, _ = c.ctx.Deadline()
	if !conn.Watch(q) {
		conn.told.Store(false)
		q.PeerClosed()
	}
}

// what describes the request to whoever has to find out why it does not end.
func (q *request) what() string {
	if q.caller == "" {
		return q.method + " " + q.path
	}
	return q.method + " " + q.path + " from " + q.caller
}

// unwatch ends the tie to the caller's connection.
func (q *request) unwatch() {
	if q.call != nil {
		q.answer.peer.pipe.Watch(nil)
	}
}

// answering is called before the first byte of the answer.
func (q *request) answering() {
	if q.timer != nil {
		q.timer.Stop()
	}
}

// end ends the request's context, and gives back what the request holds.
func (q *request) end() {
	q.answering()
	q.unwatch()
	q.cancel(context.Canceled)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.holds {
		q.ticket.Release()
	}
	if q.longLived {
		q.app.conns.leave()
	}
	q.holds, q.longLived = false, false
	if q.untime != nil {
		q.untime()
	}
}
