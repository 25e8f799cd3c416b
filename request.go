package watt

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/direct"
)

// request is one request in progress at an app's door: what its context carries, and what has to be
// given back when it ends. Its context is a part of it.
type request struct {
	requestContext
	app      *app
	gen      *generation
	peer     *peer // who has made it
	trace    trace
	call     *call            // of this process, on whose behalf it is served without a connection; or nil
	exchange *direct.Exchange // with that call, or one of another process by its trunk; or nil
	arrived  time.Time
	by       time.Time   // when the first byte of the answer must be out; zero if only the deadline limits it
	timer    *time.Timer // sees to that; nil if the caller keeps time
	answer   http1Answer
	intake   *intake // what it reads, if that needs one
	method   string
	path     string

	downstream downstream
	spent      atomic.Bool // the connection is of no use after this request
	hasBody    bool

	mu       sync.Mutex
	ticket   ticket
	holds    holding
	untimed  bool // the timer comes too late: the answer is going out, or the request is over
	draining bool // long-lived requests are no longer welcome

	next, prev *request // in the generation's list; guarded by its mutex
}

// String names the request, for whoever prints its context.
func (q *request) String() string { return "watt: " + q.what() }

// describe notes what r asks for.
func (q *request) describe(r *http.Request) {
	q.trace, q.method, q.path, q.hasBody = traceOf(r.Header), r.Method, r.URL.Path, r.Body != http.NoBody
}

// Value returns the request for its key, and otherwise what its context holds.
func (q *request) Value(key any) any {
	if key == (requestKey{}) {
		return q
	}
	return q.requestContext.Value(key)
}

// requestKey is the context key of the *request being served.
type requestKey struct{}

func requestOf(ctx context.Context) *request {
	q, _ := ctx.Value(requestKey{}).(*request)
	return q
}

// Caller returns the name of the app that made the request which ctx belongs to, or "" if it came from strangers, from main
// or from a test. Of a client that a Listen trusts for its certificate, see [App.TLS], it is the first DNS name of that. It
// is read from the connection, never from a header.
func Caller(ctx context.Context) string {
	if q := requestOf(ctx); q != nil {
		return q.peer.caller
	}
	return ""
}

// Arrived returns when the request of ctx came to the app's door. From then until its handler was called, it has waited
// for a worker. Arrived reports false if ctx is of no request.
func Arrived(ctx context.Context) (time.Time, bool) {
	if q := requestOf(ctx); q != nil {
		return q.arrived, true
	}
	return time.Time{}, false
}

// callerOf returns the name of the app that serves the request of ctx, for errors of its calls.
func callerOf(ctx context.Context) string {
	if q := requestOf(ctx); q != nil {
		return q.app.name
	}
	return ""
}

// Serve has the handler serve the request, and gives back what it held, whatever the handler does.
func (q *request) Serve(r *http.Request) {
	q.gen.requests.add(q)
	defer q.leave()
	pprof.SetGoroutineLabels(q.gen.labels)
	defer q.count()
	defer func() { q.served(r, recover()) }()
	q.gen.handler.ServeHTTP(q.answer.writer(), r)
	q.conclude()
}

// leave takes the request off the list, last: who waits for the request to be over finds it counted. Until then it may be
// cut, however far its end has come.
func (q *request) leave() {
	q.gen.requests.remove(q)
	q.closeSpent()
}

// closeSpent has the connection closed if it is of no use any more.
func (q *request) closeSpent() {
	if q.spent.Load() && !q.answer.last { // since the status was said
		closeAfter(q.intake.writer)
	}
}

// served gives back what the request held, and answers for a handler that has panicked for that reason.
func (q *request) served(r *http.Request, reason any) {
	if reason != nil {
		q.intake.decline()
	}
	q.end()
	if r.MultipartForm != nil {
		_ = r.MultipartForm.RemoveAll() // the server does not see this copy of the request
	}
	if reason != nil {
		if q.answer.hijacked != nil {
			_ = q.answer.hijacked.Close() // the server no longer does
		}
		q.panicked(r, reason)
	}
}

// conclude is called when the handler has returned. It cuts off an answer that is not whole, and gives one if there is none.
func (q *request) conclude() {
	a := &q.answer
	q.stopTimer()                // whether the answer has come in time is decided now
	if a.missed() && !a.broken { // nobody has said so yet
		a.breaks(q.blame(http.StatusGatewayTimeout, q.explainTimeout(q.reason())))
	}
	if a.missed() || a.cut() || a.broken && a.stage < takenOver {
		panic(http.ErrAbortHandler)
	}
	if a.stage != unsaid {
		return
	}
	if err := q.reason(); err != nil { // and that is why there is no answer
		delete(a.Header(), "Content-Type") // or it might begin as an event stream
		a.begin(http.StatusServiceUnavailable)
		q.peer.sayLate(a.Header(), err)
		writeError(a, q.explainTimeout(err))
		return
	}
	a.WriteHeader(http.StatusOK)
}

var errPanicked = errors.New("watt: handler panicked")

// panicked answers for a handler that could not: with 500, or by cutting the connection if the
// answer has begun. The app goes on.
func (q *request) panicked(r *http.Request, reason any) {
	if reason == http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
		q.abort()
		return
	}
	q.gen.tally.Panics.Add(1)
	q.gen.env.Logger.Error("handler panicked",
		zap.String("method", r.Method), zap.String("path", r.URL.Path),
		zap.String("panic", fmt.Sprint(reason)), zap.ByteString("stack", debug.Stack())) // encoding reason might panic
	if q.answer.stage != unsaid {
		if !q.answer.replaced() {
			q.answer.status = http.StatusInternalServerError // as far as it goes
		}
		q.abort()
		return
	}
	WriteError(&q.answer.answer, errPanicked)
}

// abort cuts the connection, unless the handler gives up an answer that was refused. If the one to cut is a sibling's, that
// is told so, or has the half of the answer that there is: else it would take this instance for dead, and answer for it.
func (q *request) abort() {
	a := &q.answer
	switch {
	case a.replaced():
		return
	case !q.peer.handed || a.stage == takenOver:
	case a.stage == unsaid:
		clear(a.Header())
		a.Header().Set(headerRefused, refusedAborted)
		a.ResponseWriter.WriteHeader(http.StatusBadGateway)
		return
	default:
		q.intake.settle() // else the server reads the body first, for as long as that takes
		_ = http.NewResponseController(a.ResponseWriter).Flush()
	}
	panic(http.ErrAbortHandler)
}

// count counts the request, which is over.
func (q *request) count() {
	q.gen.tally.Answered(q.method, q.answer.status)
	q.gen.tally.Bytes.Add(q.answer.sent)
}

// abandon lets a caller go whose handler does not return.
func (q *request) abandon() {
	if q.exchange != nil {
		q.exchange.Cut()
	}
}

// what describes the request to whoever has to find out why it does not end.
func (q *request) what() string {
	if q.peer.caller == "" {
		return q.method + " " + q.path
	}
	return q.method + " " + q.path + " from " + q.peer.caller
}

// PeerClosed ends the context of a request whose call is over.
func (q *request) PeerClosed() { q.cancelAs(q.call.endAtCallee()) }

// cut ends the context, and wakes a handler that waits for the other side: reading at once, writing after
// a moment in which it may still answer.
func (q *request) cut() {
	q.interrupt(errCut)
	_ = http.NewResponseController(q.answer.ResponseWriter).SetWriteDeadline(time.Now().Add(graceAfterCut / 2))
}

// interrupt ends the context, and the reading of the body. HTTP/2 gives up a stream then, and HTTP/1 the connection: the
// server takes its client for gone, and would that of the next request too. That is noted before the context ends, so that
// an answer that is given because of it says Connection: close.
func (q *request) interrupt(cause error) {
	if !q.hasBody {
		q.cancel(cause)
		return
	}
	if q.intake != nil {
		q.spent.Store(true)
	}
	q.cancel(cause)
	_ = http.NewResponseController(q.answer.ResponseWriter).SetReadDeadline(time.Now())
}

// end ends the request's context, and gives back what the request holds.
func (q *request) end() {
	q.stopTimer()
	q.closeSpent()
	q.finish()
	q.mu.Lock()
	held := q.holds
	q.holds = nothing
	q.mu.Unlock()
	if held.worker() {
		now := time.Now()
		q.app.waits.over.Add(int64(q.downstream.stop(now)))
		q.gen.tally.Duration.Add(now.Sub(q.arrived)) // of what has outlived its worker that would say nothing
		q.ticket.Release()
	}
	if held.seat() {
		q.app.conns.leave()
	}
	if held == aSeat {
		q.app.streams.Add(-1)
	}
}
