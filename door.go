package watt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/pipe"
)

// door is where the requests of an app with a handler come in: from the mesh, and from the public
// side if the app listens. Connections belong to the door, requests to instances: replacing an
// instance is not noticed by any connection.
type door struct {
	app      *app
	listener *pipe.Listener
	mesh     *http.Server
	public   *publicServer // nil if the app does not listen
}

// peer is what the door knows of the other side of a connection.
type peer struct {
	caller  string
	pipe    *pipe.Conn  // nil on the public side
	probe   *generation // a readiness check of this generation, outside admission
	public  bool
	trusted bool // a client whose certificate was verified
}

// peerKey is the context key of a connection's *peer.
type peerKey struct{}

func newDoor(a *app, buffers *pipe.Buffers) *door {
	d := &door{app: a, listener: pipe.Listen(buffers, address(a.name))}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	d.mesh = &http.Server{
		Handler:   d,
		Protocols: &protocols,
		ErrorLog:  zap.NewStdLog(a.log),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			p := &peer{pipe: conn.(*pipe.Conn)}
			switch from := p.pipe.Caller().(type) {
			case string:
				p.caller = from
			case *generation:
				p.probe = from
			}
			return context.WithValue(ctx, peerKey{}, p)
		},
	}
	return d
}

// ServeHTTP admits one request and lets an instance serve it.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, _ := r.Context().Value(peerKey{}).(*peer)
	if p.probe != nil {
		p.probe.handler.ServeHTTP(w, r)
		return
	}
	if p.public {
		if p = d.public.clean(w, r, p); p == nil {
			return
		}
	}
	q := &request{app: d.app, caller: p.caller, trace: traceOf(r.Header)}
	r, err := d.admit(r, p, q)
	if err != nil {
		d.refuse(w, p, err)
		return
	}
	d.run(w, r, p, q)
}

// admit gets the request a worker and a context: those that its caller left on the pipe, or new ones.
func (d *door) admit(r *http.Request, p *peer, q *request) (*http.Request, error) {
	if r.Header.Get("Upgrade") != "" {
		if err := d.app.conns.check(); err != nil {
			return r, err
		}
	}
	var c *call
	if p.pipe != nil && r.ProtoMajor == 1 {
		c, _ = p.pipe.Attached().(*call)
	}
	if c != nil {
		if !c.claim() {
			panic(http.ErrAbortHandler) // its caller has gone
		}
		q.ticket, q.holds = c.ticket, true
		q.gen = c.ticket.Value()
		return q.bind(r, c), nil
	}
	limits := d.app.limits()
	r = q.bind(r, nil)
	if remaining, err := strconv.ParseInt(r.Header.Get(headerTimeout), 10, 64); err == nil && remaining > 0 {
		r = q.limit(r, time.Duration(remaining)*time.Millisecond)
		r.Header.Del(headerTimeout)
	}
	if limits.Timeout > 0 {
		q.timer = time.AfterFunc(limits.Timeout, func() { q.cancel(context.DeadlineExceeded) })
	}
	t, err := d.app.admit(r.Context())
	if err != nil {
		q.release()
		return r, err
	}
	q.ticket, q.holds, q.gen = t, true, t.Value()
	return r, nil
}

// run serves an admitted request and gives back what it held, whatever the handler does.
func (d *door) run(w http.ResponseWriter, r *http.Request, p *peer, q *request) {
	q.gen.requests.add(q)
	a := &answer{ResponseWriter: w, request: q, outside: p.public && !p.trusted, lameDuck: d.lameDuck(p)}
	defer func() {
		reason := recover()
		q.end()
		if reason != nil {
			if a.hijacked != nil {
				_ = a.hijacked.Close() // the server no longer does
			}
			d.panicked(a, r, reason)
		}
	}()
	q.gen.handler.ServeHTTP(a.wrap(), r)
	if a.begun {
		return
	}
	if err := context.Cause(r.Context()); err != nil { // and that is why there is no answer
		a.begin()
		if errors.Is(err, context.DeadlineExceeded) && !a.outside {
			a.Header().Set(headerRefused, "late") // the caller's own clock may not have struck yet
		}
		WriteError(a, err)
		return
	}
	a.WriteHeader(http.StatusOK)
}

func (d *door) lameDuck(p *peer) func() bool {
	if p.public {
		return d.public.lame.Load
	}
	return func() bool { return false }
}

// panicked answers for a handler that could not: with 500, or by cutting the connection if the
// answer has begun. The app goes on.
func (d *door) panicked(a *answer, r *http.Request, reason any) {
	if reason == http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
		panic(reason)
	}
	d.app.panics.Add(1)
	a.request.gen.env.Logger.Error("handler panicked",
		zap.String("method", r.Method), zap.String("path", r.URL.Path),
		zap.Any("panic", reason), zap.ByteString("stack", debug.Stack()))
	if a.begun {
		panic(http.ErrAbortHandler)
	}
	WriteError(a, fmt.Errorf("panic: %v", reason))
}

// refuse answers a request that got no worker.
func (d *door) refuse(w http.ResponseWriter, p *peer, err error) {
	if !p.public || p.trusted {
		switch {
		case errors.Is(err, ErrUnavailable):
			w.Header().Set(headerRefused, "unavailable")
		case errors.Is(err, context.DeadlineExceeded):
			w.Header().Set(headerRefused, "timeout")
		default:
			w.Header().Set(headerRefused, "overloaded")
		}
	}
	if d.lameDuck(p)() {
		w.Header().Set("Connection", "close")
	}
	WriteError(w, err)
}

// close ends the door once nothing is in progress behind it; what still is when ctx ends is cut.
func (d *door) close(ctx context.Context) {
	_ = d.listener.Close()
	if d.mesh.Shutdown(ctx) != nil {
		_ = d.mesh.Close()
	}
	if d.public != nil {
		d.public.close(ctx)
	}
}
