package watt

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/count"
	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/roundtrip"
)

// meshIdleTimeout is how long a connection of the mesh is kept for the next call.
const meshIdleTimeout = 90 * time.Second

type ticket = admission.Ticket[*generation]

// call is one request on its way through the mesh, and then the body of its answer.
type call struct {
	mesh   *mesh
	app    *app
	ctx    context.Context //nolint:containedctx // it crosses from the caller's goroutine to the door's
	served *request        // during which the call is made, or nil
	began  time.Time
	edge   *edge
	length *length    // of answers such as this one, until it is noted whether this is long; nil if that does not matter
	by     time.Time  // when the first byte of the answer must be there; zero if ctx sees to that
	conn   *pipe.Conn // that a request to a Serve app has last taken
	sent   uint64     // how many bytes the app had read from it before that

	ticket ticket
	holds  bool // the ticket; behind a door, the request has it

	answered atomic.Bool // the head of the answer has come, in time
	reading  sync.Mutex  // held by Read: a connection may be another call's once one reader has come to the end
	got      int64       // bytes of the body that were read
	body     io.ReadCloser
	sized    bool // the body's length is known
	read     bool // the body was read to its end
	once     sync.Once
	cancel   context.CancelCauseFunc // ends a ctx of the call's own; nil if it is the caller's
	unheed   context.CancelFunc      // ends the watch over the request's Cancel; nil if there is none
}

// call sends req to the app behind e, through its admission, and counts it.
func (m *mesh) call(e *edge, req *http.Request) (*http.Response, error) {
	now := time.Now()
	m.fair.yield(now)
	a := e.app
	c := &call{mesh: m, app: a, ctx: req.Context(), began: now, edge: e}
	if c.served = requestOf(c.ctx); c.served != nil {
		c.served.downstream.begin(now)
	}
	if d := a.conf().Timeout; d > 0 {
		c.by = now.Add(d)
		if deadline, ok := c.ctx.Deadline(); ok && deadline.Before(c.by) {
			c.by = time.Time{}
		}
	}
	sent := req
	//lint:ignore SA1019 see heed
	if req.Cancel != nil && c.ctx.Done() == nil { //nolint:staticcheck // callers may still use it
		sent = c.heed(req)
	}
	returned := false
	defer func() {
		if !returned { // the caller's trace, or its body, has panicked
			c.finish(count.Other)
		}
	}()
	resp, err := a.place.send(c, c.counted(sent))
	returned = true
	if err == nil {
		err = c.accept(resp)
	}
	if err != nil {
		err = c.failure(err)
		c.finish(kindOf(err))
		return nil, err
	}
	resp.Request = req
	return resp, nil
}

// heed returns req with a context that ends when its Cancel is closed. Where a context can end by itself, net/http leaves
// open whether Cancel counts; an [http.Client] with a Timeout sets both.
func (c *call) heed(req *http.Request) *http.Request {
	ctx, cancel := context.WithCancel(c.ctx)
	c.ctx, c.unheed = ctx, cancel
	//lint:ignore SA1019 it is deprecated, and still promised
	closed := req.Cancel //nolint:staticcheck // likewise
	go func() {
		defer cancel()
		select {
		case <-closed:
		case <-ctx.Done():
		}
	}()
	return req.WithContext(ctx)
}

// admit takes a worker for req, or gives it up.
func (c *call) admit(req *http.Request) error {
	var err error
	if c.ticket, err = c.app.admit(c.ctx, c.began, nil); err == nil {
		c.holds = true
		return nil
	}
	roundtrip.CloseBody(req)
	if shedError(err) == nil && c.ctx.Err() != nil { // why it has ended says nothing about the callee
		return &CallError{App: c.app.name, Err: c.endError()}
	}
	return c.app.explain(err)
}

// withTimer sends req over a connection that carries nothing but the request: the trace and what is left of the deadline go
// into headers, and a timer ends the wait for the answer. What answers must be a door, or trusted as one is: it may say
// that the request was refused.
func (c *call) withTimer(req *http.Request, roundTrip func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	out, stop := c.timed(req)
	defer stop()
	out.Header = maps.Clone(req.Header)
	c.trace().set(out.Header)
	out.Header.Del(headerTimeout)
	deadline, _ := c.ctx.Deadline()
	setRemaining(out.Header, deadline)
	return orRefusal(roundTrip(out))
}

// timed returns req with a context of the call's own, which ends when the first byte of the answer must be there, unless
// stop is called before.
func (c *call) timed(req *http.Request) (out *http.Request, stop func()) {
	if c.cancel != nil { // an earlier attempt's
		c.cancel(context.Canceled)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	c.ctx, c.cancel, stop = ctx, cancel, func() {}
	if !c.by.IsZero() {
		timer := time.AfterFunc(time.Until(c.by), func() { cancel(context.DeadlineExceeded) })
		stop = func() { timer.Stop() }
	}
	return req.WithContext(ctx), stop
}

// accept makes the answer the caller's, unless it comes too late or is none of the app's.
func (c *call) accept(resp *http.Response) error {
	if err := c.endCause(); err != nil { // which may be why the callee has answered so
		_ = resp.Body.Close()
		return err
	}
	c.answered.Store(true)
	c.body, c.sized = resp.Body, resp.ContentLength >= 0
	if n := resp.ContentLength; n > 0 && c.body != http.NoBody || n == 0 && resp.StatusCode != http.StatusNotModified {
		c.noteLength(n > longAnswer)
	}
	if c.body == http.NoBody {
		c.finish(count.None) // and the connection is another call's
		return nil
	}
	switch w := resp.Body.(type) {
	case io.Writer: // of 101 Switching Protocols
		c.ctx = context.WithoutCancel(c.ctx) // the connection outlives it
		resp.Body = &upgradedBody{call: c, w: w}
	default:
		resp.Body = c
	}
	if c.conn != nil && !c.by.IsZero() {
		_ = c.conn.SetDeadline(time.Time{})
	}
	return nil
}

// finish ends the call on the caller's side, and counts it as failed if it has.
func (c *call) finish(failed count.Kind) {
	c.once.Do(func() {
		if c.holds {
			c.ticket.Release()
		}
		now := time.Now()
		if c.served != nil {
			c.served.waited(now)
		}
		c.edge.calls.Ended(now.Sub(c.began), failed)
		if c.cancel != nil {
			c.cancel(net.ErrClosed) // for whoever reads on
		}
		if c.unheed != nil {
			c.unheed()
		}
	})
}

// Read reads the body of the answer. Its end ends the call.
func (c *call) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	n, err := c.body.Read(p)
	c.edge.calls.Received.Add(int64(n))
	c.got += int64(n)
	if c.got > longAnswer || err == io.EOF { //nolint:errorlint // Read returns it bare
		c.noteLength(c.got > longAnswer)
	}
	if err == io.EOF && c.whole() { //nolint:errorlint // likewise
		c.read = true
		c.finish(count.None)
	} else if err != nil {
		err = c.failure(err)
		c.finish(kindOf(err))
	}
	return n, err
}

// whole reports whether what ends here is all of the answer. If its length is not known and the time
// is up, it may as well be what a callee that was told to stop has left.
func (c *call) whole() bool {
	return c.read || c.sized || c.endCause() == nil
}

// Close gives up what was not read of the answer.
func (c *call) Close() error {
	err := c.body.Close()
	c.finish(count.None)
	return err
}

// upgradedBody is the connection that [http.Client] returns as the body of a 101 answer.
type upgradedBody struct {
	*call
	w io.Writer
}

// Read reads what the other side says. When that has said all, this one may go on: only Close ends the call.
func (b *upgradedBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if err == nil || err == io.EOF && b.whole() { //nolint:errorlint // Read returns it bare
		return n, err
	}
	err = b.failure(err)
	b.finish(count.None)
	return n, err
}

func (b *upgradedBody) Write(p []byte) (int, error) { return b.w.Write(p) }

// CloseWrite ends this direction alone, as the connection underneath can.
func (b *upgradedBody) CloseWrite() error { return closeWrite(b.w) }
