package watt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/pipe"
)

// Headers that watt's own sides exchange where a call leaves the process. They never come in from,
// nor go out to, strangers.
const (
	headerTimeout = "X-Watt-Timeout" // what remains of the deadline, in milliseconds
	headerRefused = "X-Watt-Refused" // the door's reason for an answer that no handler gave
)

// meshIdleTimeout is how long a connection of the mesh is kept for the next call.
const meshIdleTimeout = 90 * time.Second

type ticket = admission.Ticket[*generation]

// call is one request on its way through the mesh. In process it travels beside the bytes, on the
// pipe's end: the door finds there the caller's context, and the worker that the caller has taken.
type call struct {
	mesh *mesh
	app  *app

	ctx    context.Context //nolint:containedctx // it crosses from the caller's goroutine to the door's
	cancel context.CancelCauseFunc
	timer  *time.Timer // ends the wait for the first byte of the answer

	ticket ticket
	worker atomic.Int32 // who gives the ticket back: one of the constants below
	// answered is set when the body was read to its end: what the handler still does then is no
	// longer the caller's to cancel.
	answered atomic.Bool
}

// The states of a call's worker.
const (
	workerNone     = iota // the door asks for itself, per request
	workerOffered         // taken by the caller, not yet claimed by the door
	workerClaimed         // the handler has begun; the door gives it back
	workerReturned        // the caller gave it back; the door must not begin
)

// call sends req to a, behind its admission.
func (m *mesh) call(a *app, req *http.Request) (*http.Response, error) {
	c := &call{mesh: m, app: a}
	c.ctx, c.cancel = context.WithCancelCause(req.Context())
	if d := a.limits().Timeout; d > 0 {
		c.timer = time.AfterFunc(d, func() { c.cancel(context.DeadlineExceeded) })
	}
	grpc := a.door != nil && strings.HasPrefix(req.Header.Get("Content-Type"), "application/grpc")
	if !grpc {
		t, err := a.admit(c.ctx)
		if err != nil {
			if req.Body != nil {
				_ = req.Body.Close()
			}
			c.finish()
			return nil, m.failed(a.name, err)
		}
		c.ticket = t
		c.worker.Store(workerOffered)
	}
	resp, err := c.send(req, grpc)
	if c.timer != nil {
		c.timer.Stop()
	}
	if err == nil {
		if err = c.ended(); err == nil {
			err = refusal(resp)
		} else { // too late: what the callee says now may be because of that
			_ = resp.Body.Close()
		}
	}
	if err != nil {
		err = c.failure(err)
		c.finish()
		return nil, err
	}
	resp.Request = req
	resp.Body = c.body(resp)
	return resp, nil
}

func (c *call) send(req *http.Request, grpc bool) (*http.Response, error) {
	switch out := c.outgoing(req); {
	case c.app.remote != nil:
		return c.app.remote.roundTrip(out)
	case grpc:
		setRemaining(out)
		return c.mesh.h2c.RoundTrip(out)
	case c.app.door == nil: // a Serve app: no door claims the worker, the body's end gives it back
		sent := false
		return c.mesh.pool(c.app).RoundTrip(out, func(net.Conn) bool { // never twice: it may have started
			first := !sent
			sent = true
			return first
		})
	default:
		return c.mesh.pool(c.app).RoundTrip(out, c.offer)
	}
}

// offer leaves the call beside the bytes that conn will carry. It reports whether the request may be
// sent: not if it was sent before and has been claimed.
func (c *call) offer(conn net.Conn) bool {
	if end, ok := conn.(*pipe.Conn); ok {
		end.Attach(c)
	}
	return c.worker.Load() == workerOffered
}

// outgoing returns req with the call's context and the headers that travel by themselves.
func (c *call) outgoing(req *http.Request) *http.Request {
	out := req.WithContext(c.ctx)
	if served := requestOf(req.Context()); served != nil {
		served.trace.addTo(out)
	}
	return out
}

// claim reports whether the door may begin: it may not if the caller has given up. From then on the
// door gives the worker back.
func (c *call) claim() bool { return c.worker.CompareAndSwap(workerOffered, workerClaimed) }

// started reports whether the callee may have begun to work. Behind a door of this process it is
// known; elsewhere a request that was sent may have been seen.
func (c *call) started() bool {
	return c.app.door == nil || c.worker.Load() == workerClaimed || c.worker.Load() == workerNone
}

// finish ends the call on the caller's side; the worker goes back unless the door has it.
func (c *call) finish() {
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.worker.CompareAndSwap(workerOffered, workerReturned) {
		c.ticket.Release()
	}
	c.cancel(context.Canceled)
}

// failure explains why the call, which was on its way, has failed with err.
func (c *call) failure(err error) error {
	if _, known := errors.AsType[*CallError](err); known {
		return c.mesh.failed(c.app.name, err)
	}
	e := &CallError{Caller: c.mesh.caller, App: c.app.name, Started: c.started(), Err: err}
	e.Started = e.Started && !undialled(err)
	cause := c.ended()
	switch {
	case cause != nil && (errors.Is(cause, context.DeadlineExceeded) || errors.Is(cause, context.Canceled)):
		e.Err = cause
	case cause != nil:
		e.Err = fmt.Errorf("%w: %w", c.ctx.Err(), cause)
	case undialled(err):
		e.Err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	case lost(err) && e.Started:
		e.Err = fmt.Errorf("%w: the connection was cut: %w", ErrInstanceDied, err)
	case lost(err):
		e.Err = fmt.Errorf("%w: the connection was cut: %w", ErrUnavailable, err)
	}
	return e
}

// ended returns why the call's context has ended, or nil. The callee's clock may strike first: it has
// the same deadline.
func (c *call) ended() error {
	if deadline, ok := c.ctx.Deadline(); ok && c.ctx.Err() == nil && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return context.Cause(c.ctx)
}

// undialled reports whether err means that there was no connection, so that nobody has seen the request.
func undialled(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// lost reports whether err means that the connection has ended under the call.
func lost(err error) bool {
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET},
		func(target error) bool { return errors.Is(err, target) })
}

// body hands the answer's body to the caller, and ends the call with it.
func (c *call) body(resp *http.Response) io.ReadCloser {
	rc := resp.Body
	b := &answerBody{call: c, rc: rc, sized: resp.ContentLength >= 0}
	if w, ok := rc.(io.Writer); ok { // after 101 Switching Protocols
		return &upgradedBody{answerBody: b, w: w}
	}
	if rc == http.NoBody {
		b.end(true)
	}
	return b
}

// answerBody is the body of an answer. Its end, its failure and its closing end the call.
type answerBody struct {
	call  *call
	rc    io.ReadCloser
	sized bool // its length is known
	once  sync.Once
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.rc.Read(p)
	if err == io.EOF && b.whole() { //nolint:errorlint // Read returns it bare
		b.end(true)
	} else if err != nil {
		err = b.call.failure(err)
		b.end(false)
	}
	return n, err
}

// whole reports whether what ends here is all of the answer. If its length is not known and the time
// is up, it may as well be what a callee that was told to stop has left.
func (b *answerBody) whole() bool {
	return b.sized || b.call.answered.Load() || b.call.ended() == nil
}

// Close gives the rest of the answer up.
func (b *answerBody) Close() error {
	err := b.rc.Close()
	b.end(false)
	return err
}

func (b *answerBody) end(whole bool) {
	b.once.Do(func() {
		if whole {
			b.call.answered.Store(true)
		}
		b.call.finish()
	})
}

// upgradedBody is the connection that [http.Client] returns as the body of a 101 answer.
type upgradedBody struct {
	*answerBody
	w io.Writer
}

func (b *upgradedBody) Write(p []byte) (int, error) { return b.w.Write(p) }

// CloseWrite ends this direction alone, as the connection underneath can.
func (b *upgradedBody) CloseWrite() error {
	if half, ok := b.rc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// refusal returns the error that a door behind an HTTP/2 connection or in another process put into
// its answer, or nil if a handler answered.
func refusal(resp *http.Response) error {
	var err error
	switch resp.Header.Get(headerRefused) {
	case "":
		return nil
	case "late": // a handler had it, and has not answered
		_ = resp.Body.Close()
		return &CallError{Started: true, Err: context.DeadlineExceeded}
	case "unavailable":
		err = ErrUnavailable
	case "timeout":
		err = context.DeadlineExceeded
	default:
		err = ErrOverloaded
	}
	_ = resp.Body.Close()
	return &CallError{RetryAfter: retryAfter(resp.Header), Err: fmt.Errorf("%w at its door", err)}
}

// trace is what a request hands on to the calls made while it is served.
type trace struct{ parent, state, baggage, requestID string }

func traceOf(h http.Header) trace {
	return trace{h.Get("Traceparent"), h.Get("Tracestate"), h.Get("Baggage"), h.Get("X-Request-Id")}
}

// addTo sets what the call does not set itself. req's headers are copied first: a RoundTripper may
// not change them.
func (t trace) addTo(req *http.Request) {
	cloned := false
	set := func(name, value string) {
		if value == "" || req.Header[name] != nil {
			return
		}
		if !cloned {
			if req.Header = req.Header.Clone(); req.Header == nil {
				req.Header = make(http.Header)
			}
			cloned = true
		}
		req.Header.Set(name, value)
	}
	if req.Header["Traceparent"] == nil { // the three belong together
		set("Traceparent", t.parent)
		set("Tracestate", t.state)
	}
	set("Baggage", t.baggage)
	set("X-Request-Id", t.requestID)
}

// setRemaining writes what is left of the deadline, for a door that it cannot reach beside the bytes.
func setRemaining(req *http.Request) {
	req.Header = req.Header.Clone()
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	req.Header.Del(headerTimeout)
	if deadline, ok := req.Context().Deadline(); ok {
		req.Header.Set(headerTimeout, strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	}
}
