// Package trunk carries many calls at a time over one connection between two processes.
//
// Where each call has a connection of its own, each request and each answer costs both processes a system call, or
// two, and a turn of the scheduler. Calls that share one are read and written many at a time. A callee hands a call's
// request on as it is, so that neither side has to take HTTP/1 apart.
//
// The protocol is that of HTTP/2 without what processes of one program have no need for. There are frames that name their
// call: one for a request, one or more for an answer. There is credit for the body of a long answer, so that one that nobody
// reads takes a bounded amount of memory, and does not hold up the others. And there is a frame by which a callee takes no
// more calls; what was sent to it by then is still answered.
package trunk

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/roundtrip"
	"github.com/org/watt/internal/timers"
)

// Client makes calls to one callee over a connection that it keeps. Its methods are safe for concurrent use.
type Client struct {
	// Dial opens a connection, on whose other side is a [Server]. It must be set, as Buffers and Timers must.
	Dial func(ctx context.Context) (net.Conn, error)
	// Buffers is where the memory of long answers comes from.
	Buffers *pipe.Buffers
	// Timers is where those of calls are kept for the next ones.
	Timers *timers.Pool
	// IdleTimeout is how long the connection is kept without a call. If zero, until CloseIdle.
	IdleTimeout time.Duration

	mu       sync.Mutex
	conn     *conn // that takes calls; nil if there is none
	dialling *dial // in progress; nil if there is none
	closed   bool  // Close was called
}

// dial is one attempt to connect, for which many may wait.
type dial struct {
	began time.Time
	over  chan struct{} // closed when it is
	err   error         // why it has failed; nil if only the call that dialled was given up
}

// RoundTrip sends req, of which Takes has approved, and returns as soon as there is the head of an answer, the context of req
// has ended (then its cause is the error) or the time by has come, unless that is zero ([context.DeadlineExceeded]). Errors
// of Dial are returned as they are. Others wrap [roundtrip.ErrNotSent] until there is a connection, and where that has ended
// before the request was written to it. The callee is told of a context that ends early, and of a body that is closed early.
//
// As of an [http.RoundTripper], the answer's body must be closed, req's body is closed in every case, and req is
// not changed.
func (c *Client) RoundTrip(req *http.Request, by time.Time) (*http.Response, error) {
	defer roundtrip.CloseBody(req)
	if ctx := req.Context(); ctx.Err() != nil {
		return nil, roundtrip.NotSent(context.Cause(ctx))
	}
	for {
		k, err := c.get(req.Context(), by)
		if err != nil {
			return nil, err
		}
		x := &call{conn: k, req: req, wake: make(chan struct{}, 1)}
		if !k.enter(x) {
			continue // with another connection
		}
		if c.over() {
			k.leave()
		}
		return x.roundTrip(req.Context(), by)
	}
}

// get returns the connection, and dials first if there is none.
func (c *Client) get(ctx context.Context, by time.Time) (*conn, error) {
	k, others := c.kept()
	if k != nil {
		return k, nil
	}
	came := time.Now()
	if !by.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, by)
		defer cancel()
	}
	for ; k == nil; k, others = c.kept() {
		if others == nil {
			return c.dial(ctx)
		}
		select {
		case <-others.over:
			if others.err != nil && came.Sub(others.began) < time.Since(others.began)/2 {
				return nil, others.err
			}
		case <-ctx.Done():
			return nil, roundtrip.NotSent(context.Cause(ctx))
		}
	}
	return k, nil
}

// kept returns the connection, or the dial of another call that is in progress. If there is neither, it returns nil, and the
// call is to dial.
func (c *Client) kept() (k *conn, others *dial) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.conn != nil:
		return c.conn, nil
	case c.dialling != nil:
		return nil, c.dialling
	}
	c.dialling = &dial{began: time.Now(), over: make(chan struct{})}
	return nil, nil
}

// dial makes a connection for all calls that wait for one. If it fails, so do those that have waited for more than half of it:
// to dial again for each would take as long each time. For those that came later one of them dials again, as it does when
// the one that dialled is given up.
func (c *Client) dial(ctx context.Context) (k *conn, err error) {
	var nc net.Conn
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if ctx.Err() == nil {
			c.dialling.err = err
		}
		close(c.dialling.over)
		if c.dialling = nil; nc != nil {
			k = newConn(c, nc)
			c.conn = k
		}
	}()
	if ctx.Err() == nil {
		nc, err = c.Dial(ctx)
	}
	if ctx.Err() != nil && nc == nil {
		err = roundtrip.NotSent(context.Cause(ctx))
	}
	return nil, err
}

// dropped is called for a connection that takes no more calls.
func (c *Client) dropped(k *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == k {
		c.conn = nil
	}
}

// CloseIdle closes the connection as soon as no call is using it; later calls have another.
func (c *Client) CloseIdle() {
	c.mu.Lock()
	k := c.conn
	c.mu.Unlock()
	if k != nil {
		k.leave()
	}
}

// Close is CloseIdle for good: calls can still be made, but no connection is kept.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.CloseIdle()
}

// over reports whether Close was called.
func (c *Client) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}
