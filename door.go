package watt

import (
	"context"
	"errors"
	"net"
	"net/http"
	"runtime/debug"
	"runtime/pprof"
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
	inner    *http.Server    // of the mesh, for what needs a connection
	base     context.Context //nolint:containedctx // what the server's contexts hold, for requests without a connection
	public   *publicServer   // nil if the app does not listen
}

// peer is what the door knows of the other side of a connection.
type peer struct {
	caller  string
	probe   *generation   // a readiness check of this generation, outside admission
	public  *publicServer // nil on the mesh
	trusted bool          // a client whose certificate was verified
}

// stranger reports whether nothing is known of the other side.
func (p *peer) stranger() bool { return p.public != nil && !p.trusted }

// allowStall gives the other side time to take what is written next. HTTP/2 has a limit of its own, and
// within this process a caller that does not read holds nobody's worker but those it was given.
func (p *peer) allowStall(w http.ResponseWriter) {
	if p.public == nil {
		return
	}
	if _, http1 := w.(http.Hijacker); http1 {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(stallTime))
	}
}

// lameDuck reports whether to tell the other side to go away.
func (p *peer) lameDuck() bool { return p.public != nil && p.public.lame.Load() }

// peerKey is the context key of a connection's *peer.
type peerKey struct{}

func newDoor(a *app, buffers *pipe.Buffers) *door {
	d := &door{app: a, listener: pipe.Listen(buffers, address(a.name))}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	d.inner = &http.Server{
		Handler:   d,
		Protocols: &protocols,
		ErrorLog:  zap.NewStdLog(a.log),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			p := new(peer)
			switch from := conn.(*pipe.Conn).Caller().(type) {
			case string:
				p.caller = from
			case *generation:
				p.probe = from
			}
			return context.WithValue(ctx, peerKey{}, p)
		},
	}
	d.base = context.WithValue(context.Background(), http.ServerContextKey, d.inner)
	d.base = context.WithValue(d.base, http.LocalAddrContextKey, d.listener.Addr())
	return d
}

// call serves a call of this process, without a wire, with the worker that it has taken.
func (d *door) call(c *call, req *http.Request, handed trace) (*http.Response, error) {
	q := &request{app: d.app, caller: c.mesh.caller, call: c, by: c.by, ticket: c.ticket, holds: true, gen: c.ticket.Value()}
	q.base = d.base
	q.deadline, _ = c.ctx.Deadline()
	q.exchange.RemoteAddr, q.exchange.Buffers, q.exchange.ErrorLog = c.mesh.address, &d.app.rt.buffers, d.inner.ErrorLog
	r := q.exchange.Request(q, req)
	handed.set(r.Header)
	delete(r.Header, headerTimeout)
	q.trace, q.method, q.path, q.hasBody = traceOf(r.Header), r.Method, r.URL.Path, r.Body != http.NoBody
	q.answer.answer = answer{ResponseWriter: &q.exchange, request: q, peer: &c.mesh.peer}
	return q.exchange.RoundTrip(r, c.by, q)
}

// maxRemaining is the longest time, in milliseconds, that a caller elsewhere can have left: a day.
const maxRemaining = 24 * 60 * 60 * 1000

// ServeHTTP admits one request and lets an instance serve it.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, _ := r.Context().Value(peerKey{}).(*peer)
	if p.probe != nil {
		p.probe.handler.ServeHTTP(w, r)
		return
	}
	if p.public != nil {
		p.allowStall(w)
		if p = p.public.clean(w, r, p); p == nil {
			return
		}
	}
	q := &request{app: d.app, caller: p.caller, trace: traceOf(r.Header), method: r.Method, path: r.URL.Path}
	q.base, q.hasBody = r.Context(), r.Body != http.NoBody
	q.answer.answer = answer{ResponseWriter: w, request: q, peer: p}
	if err := d.admit(r, q); err != nil {
		d.refuse(w, p, err)
		return
	}
	d.run(r.WithContext(q), q)
}

// admit gets the request a worker.
func (d *door) admit(r *http.Request, q *request) error {
	if r.Header["Upgrade"] != nil {
		if err := d.app.conns.check(); err != nil {
			return err
		}
	}
	remaining, _ := strconv.ParseInt(first(r.Header, headerTimeout), 10, 64)
	delete(r.Header, headerTimeout)
	if remaining > 0 {
		q.deadline = time.Now().Add(time.Duration(min(remaining, maxRemaining)) * time.Millisecond)
	}
	if d := d.app.conf().Timeout; d > 0 {
		q.by, q.timer = time.Now().Add(d), time.AfterFunc(d, q.expire)
	}
	t, err := d.app.admit(q)
	if err != nil {
		q.end()
		return err
	}
	q.ticket, q.holds, q.gen = t, true, t.Value()
	return nil
}

// run serves an admitted request and gives back what it held, whatever the handler does.
func (d *door) run(r *http.Request, q *request) {
	q.gen.requests.add(q)
	pprof.SetGoroutineLabels(q.gen.labels)
	a := &q.answer
	defer func() {
		reason := recover()
		q.gen.requests.remove(q)
		q.end()
		if reason != nil {
			if a.hijacked != nil {
				_ = a.hijacked.Close() // the server no longer does
			}
			d.panicked(&a.answer, r, reason)
		}
	}()
	q.gen.handler.ServeHTTP(a.writer(), r)
	if a.begun {
		return
	}
	if err := q.reason(); err != nil { // and that is why there is no answer
		a.begin(http.StatusServiceUnavailable)
		if errors.Is(err, context.DeadlineExceeded) && !a.peer.stranger() {
			a.Header().Set(headerRefused, "late") // the caller's own clock may not have struck yet
		}
		WriteError(a, err)
		return
	}
	a.WriteHeader(http.StatusOK)
}

var errPanicked = errors.New("watt: handler panicked")

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
	WriteError(a, errPanicked)
}

// refuse answers a request that got no worker.
func (d *door) refuse(w http.ResponseWriter, p *peer, err error) {
	if !p.stranger() {
		switch {
		case errors.Is(err, ErrUnavailable):
			w.Header().Set(headerRefused, "unavailable")
		case errors.Is(err, context.DeadlineExceeded):
			w.Header().Set(headerRefused, "timeout")
		default:
			w.Header().Set(headerRefused, "overloaded")
		}
	}
	if p.lameDuck() {
		w.Header().Set("Connection", "close")
	}
	WriteError(w, err)
}

// close ends the door once nothing is in progress behind it; what still is when ctx ends is cut.
func (d *door) close(ctx context.Context) {
	_ = d.listener.Close()
	if d.inner.Shutdown(ctx) != nil {
		_ = d.inner.Close()
	}
	if d.public != nil {
		d.public.close(ctx)
	}
}
