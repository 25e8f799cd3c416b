package watt

import (
	"context"
	"errors"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"
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
	inner    *http.Server  // of the mesh
	public   *publicServer // nil if the app does not listen
}

// peer is what the door knows of the other side of a connection.
type peer struct {
	caller  string
	pipe    *doorConn     // nil on the public side
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
			p := &peer{pipe: conn.(*doorConn)}
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

// doorListener accepts the door's connections.
type doorListener struct{ *pipe.Listener }

// Accept returns a *doorConn.
func (l doorListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &doorConn{Conn: conn.(*pipe.Conn)}, nil
}

// doorConn saves net/http's server the reading ahead. While a handler runs, the server reads one byte in
// a goroutine of its own, only to learn whether the client goes away. Of a call's caller the door is told
// anyway, so the first such Read returns at once, with nothing; the server does not ask again.
type doorConn struct {
	*pipe.Conn
	told atomic.Bool
}

func (c *doorConn) Read(p []byte) (int, error) {
	if len(p) == 1 && c.told.CompareAndSwap(true, false) {
		return 0, nil
	}
	return c.Conn.Read(p)
}

// Watch is the pipe's. Nil ends the watch.
func (c *doorConn) Watch(w pipe.Watcher) bool {
	c.told.Store(w != nil)
	return c.Conn.Watch(w)
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
	if err := d.admit(r, p, q); err != nil {
		d.refuse(w, p, err)
		return
	}
	d.run(r.WithContext(q), q)
}

// admit gets the request a worker: the one that its caller left on the pipe, or a new one.
func (d *door) admit(r *http.Request, p *peer, q *request) error {
	if r.Header["Upgrade"] != nil {
		if err := d.app.conns.check(); err != nil {
			return err
		}
	}
	remaining, _ := strconv.ParseInt(first(r.Header, headerTimeout), 10, 64)
	delete(r.Header, headerTimeout)
	if p.pipe != nil && r.ProtoMajor == 1 {
		if c, ok := p.pipe.Attached().(*call); ok {
			q.serve(c, p.pipe)
			return nil
		}
	}
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
