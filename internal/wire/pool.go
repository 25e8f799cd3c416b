// Package wire is the client's side of HTTP/1.1 on connections that are cheap to dial and quick to
// answer, such as pipes and socket pairs.
//
// Unlike [http.Transport] it has no goroutines of its own: the caller's goroutine writes the request
// and reads the answer. Only a body that might not be written at once is written beside the reading.
//
// It answers as http.Transport does, but does not know proxies, CONNECT, TLS or compression, takes
// answers with up to 1 MiB of headers, and says of [httptrace.ClientTrace] nothing about how it gets
// connections. An answer that has come is not lost because the connection took no more of the request.
// A kept connection on which anything has come unasked is not used again, where the system can tell.
package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/org/watt/internal/roundtrip"
)

// Pool keeps connections to one server, and sends requests on them. Its methods are safe for
// concurrent use.
type Pool struct {
	// Dial opens a connection. It must be set.
	Dial func(ctx context.Context) (net.Conn, error)
	// IdleTimeout is how long a connection is kept for the next request. If zero, it is kept until
	// CloseIdle.
	IdleTimeout time.Duration
	// ErrorLog is told when a body, or a trace, panics where that cannot reach the caller: it is the error of the
	// request then. If nil, nobody is told.
	ErrorLog roundtrip.Log

	buffers sync.Pool // of *[]byte: what long bodies are copied through

	mu      sync.Mutex
	idle    []*conn // the one used last at the end
	timer   *time.Timer
	closing bool // CloseIdle was called, and no request since
	closed  bool // Close was called
}

// RoundTrip sends req and returns the answer as soon as its headers have been read. As of an
// [http.RoundTripper], the answer's body must be closed, req's body is closed in every case, perhaps
// after RoundTrip has returned, and req is not changed. The end of req's context ends the reading of
// the body too, but not an upgraded connection; the error is then the context's cause, in [roundtrip.ErrNotSent] if there
// was no connection yet. Dialling ends at the time by, unless that is zero. got, if not nil, is told the
// connection before anything is sent on it, and returns false if the request must not be sent on it. A request
// that is sent again asks got again: of the first attempt the server reads no more than it has by then.
//
// A request is sent again, on another connection, only if the first was kept from an earlier request
// and ended before it gave a single byte of the answer, and the body can be read again. Without got,
// only if nothing of it was sent: unlike http.Transport, no method is taken to be harmless.
func (p *Pool) RoundTrip(req *http.Request, by time.Time, got func(net.Conn) bool) (*http.Response, error) {
	if err := check(req); err != nil {
		roundtrip.CloseBody(req)
		return nil, err
	}
	ctx, err := req.Context(), errDeclined
	for attempt := req; attempt != nil; attempt = roundtrip.Again(attempt) {
		c, dialErr := p.get(ctx, by)
		if dialErr != nil {
			roundtrip.CloseBody(attempt)
			return nil, dialErr
		}
		if got != nil && !got(c.nc) {
			c.close()
			roundtrip.CloseBody(attempt)
			return nil, err
		}
		x := &exchange{pool: p, c: c, req: attempt, trace: httptrace.ContextClientTrace(ctx)}
		var resp *http.Response
		if resp, err = x.roundTrip(ctx); err == nil {
			resp.Request = req
			return resp, nil
		}
		if !x.lost {
			break
		}
		sent, _ := c.out.progress()
		if !sent {
			err = roundtrip.NotSent(err)
		}
		if !c.reused || sent && got == nil { // nobody can tell what the server has begun
			break
		}
	}
	return nil, err
}

var (
	// errStale means that a kept connection has ended without a byte of the answer.
	errStale = fmt.Errorf("the kept connection has ended: %w", io.ErrUnexpectedEOF)
	// errDeclined means that got has declined the first attempt.
	errDeclined = errors.New("the request must not be sent")
)

// check refuses what could not be sent as it is.
func check(req *http.Request) error {
	if req.URL == nil || req.Header == nil || req.URL.Host == "" {
		return errors.New("the request has no URL, host or header")
	}
	if req.Method == http.MethodConnect {
		return fmt.Errorf("CONNECT: %w", errors.ErrUnsupported)
	}
	if req.Method != "" && !httpguts.ValidHeaderFieldName(req.Method) {
		return fmt.Errorf("invalid method %q", req.Method)
	}
	for _, h := range []http.Header{req.Header, req.Trailer} {
		for name, values := range h {
			if !httpguts.ValidHeaderFieldName(name) {
				return fmt.Errorf("invalid header field name %q", name)
			}
			for _, v := range values {
				if !httpguts.ValidHeaderFieldValue(v) {
					return fmt.Errorf("invalid header field value for %q", name) // not v: it may be a secret
				}
			}
		}
	}
	return nil
}

// get returns the connection that was used last, or a new one if that can be dialled before by.
func (p *Pool) get(ctx context.Context, by time.Time) (*conn, error) {
	if ctx.Err() != nil {
		return nil, roundtrip.NotSent(context.Cause(ctx))
	}
	if c := p.kept(); c != nil {
		return c, nil
	}
	dialling := ctx
	if !by.IsZero() {
		var cancel context.CancelFunc
		dialling, cancel = context.WithDeadline(ctx, by)
		defer cancel()
	}
	nc, err := p.Dial(dialling)
	if err == nil {
		return newConn(nc, &p.buffers), nil
	}
	if ctx.Err() != nil {
		err = roundtrip.NotSent(context.Cause(ctx))
	}
	return nil, err
}

// kept takes the connection that was used last and is of use, or returns nil.
func (p *Pool) kept() *conn {
	for c := p.last(); c != nil; c = p.last() {
		if !c.ended() {
			c.reused = true
			return c
		}
		c.close()
	}
	return nil
}

// last takes the connection that was used last, or returns nil.
func (p *Pool) last() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = false
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	c := p.idle[last]
	p.idle = slices.Delete(p.idle, last, last+1)
	return c
}

// put keeps c for the next request.
func (p *Pool) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || p.closed {
		c.close()
		return
	}
	c.since = time.Now()
	p.idle = append(p.idle, c)
	if p.IdleTimeout <= 0 || len(p.idle) > 1 {
		return
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(p.IdleTimeout, p.expire)
	} else {
		p.timer.Reset(p.IdleTimeout)
	}
}

// expire closes the connections that nobody has used for IdleTimeout.
func (p *Pool) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].since) >= p.IdleTimeout {
		p.idle[n].close()
		n++
	}
	p.idle = slices.Delete(p.idle, 0, n)
	if len(p.idle) > 0 {
		p.timer.Reset(p.IdleTimeout - now.Sub(p.idle[0].since))
	}
}

// CloseIdle closes the connections that no request is using, and those that become free before the
// next request.
func (p *Pool) CloseIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		c.close()
	}
	p.idle, p.closing = nil, true
	if p.timer != nil {
		p.timer.Stop()
	}
}

// Close is CloseIdle for good: requests can still be sent, but no connection is kept.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.CloseIdle()
}
