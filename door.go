package watt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/direct"
	"github.com/org/watt/internal/pipe"
)

// door is where the requests of an app with a handler come in: from the mesh, and from the public
// side if the app listens. Connections belong to the door, requests to instances: replacing an
// instance is not noticed by any connection.
type door struct {
	inside
	listener *pipe.Listener
	inner    *http.Server    // of the mesh, for what needs a connection
	base     context.Context //nolint:containedctx // what the server's contexts hold, for requests without a connection
	public   *publicServer   // nil if the app does not listen
	callers  foreigners      // connections from other processes
}

// peer is what the door knows of the other side of a connection.
type peer struct {
	caller  string
	handed  bool          // it is a sibling, which hands a request over: the request's headers name the caller
	waited  time.Duration // how long that has waited at the sibling
	asks    int           // the status by which the sibling is told that it is admitted; 0 if it need not be
	public  *publicServer // nil on the mesh
	trusted bool          // a client whose certificate was verified
}

// stranger reports whether nothing is known of the other side.
func (p *peer) stranger() bool { return p.public != nil && !p.trusted }

// lameDuck reports whether to tell the other side to go away.
func (p *peer) lameDuck() bool { return p.public != nil && p.public.lame.Load() }

// peerKey is the context key of a connection's *peer.
type peerKey struct{}

func newDoor(a *app) *door {
	d := &door{inside: inside{a}, listener: pipe.Listen(&a.rt.buffers, address(a.name))}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	d.inner = &http.Server{
		Handler:   d,
		Protocols: &protocols,
		ErrorLog:  zap.NewStdLog(a.log),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			p := new(peer)
			switch conn := conn.(type) {
			case *pipe.Conn:
				p.caller, _ = conn.Caller().(string)
			case *foreign:
				p.caller, p.handed = conn.what.Caller, conn.what.Handed
			}
			return context.WithValue(ctx, peerKey{}, p)
		},
	}
	d.base = context.WithValue(context.Background(), http.ServerContextKey, d.inner)
	d.base = context.WithValue(d.base, http.LocalAddrContextKey, d.listener.Addr())
	return d
}

// open implements place.
func (d *door) open() {
	d.app.rt.owned.Go(func() { d.app.doorEnded(d.inner.Serve(d.listener)) })
}

func (d *door) begin(index int) life { return newGeneration(d.app, index) }

func (d *door) listen(ln net.Listener) {
	d.public = newPublicServer(d.app, d.app.conf(), d, ln, &d.app.tallies.instance(d.app.first).Accepted)
}

func (d *door) publish() {
	if d.public != nil {
		d.app.rt.owned.Go(func() { d.app.doorEnded(d.public.serve()) })
	}
}

func (d *door) count(s *Status) {
	d.inside.count(s)
	if d.public != nil {
		s.PublicConns, _, _ = d.public.count()
	}
}

func (d *door) addr() string {
	if d.public == nil {
		return ""
	}
	return d.public.listener.Addr().String()
}

func (d *door) listeners() []ListenerStatus {
	if d.public == nil {
		return nil
	}
	return d.only(d.public.listener)
}

// send hands the request to the handler. Where there must be a connection, the door itself admits what comes
// over it.
func (d *door) send(c *call, req *http.Request) (*http.Response, error) {
	if direct.Takes(req) {
		if err := c.admit(req); err != nil {
			return nil, err
		}
		return d.serveCall(c, req)
	}
	return c.withTimer(req, c.mesh.kept(d, d.connect).RoundTrip)
}

func (d *door) connect(ctx context.Context, caller string) (net.Conn, error) {
	conn, err := d.listener.Dial(ctx, address(caller), caller)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return conn, err
}

func (d *door) accept(ctx context.Context, f *os.File, what connection, _ int) error {
	conn, err := newForeign(f, what, d.app.name)
	if err != nil {
		return err
	}
	if what.Trunk {
		d.serveTrunk(conn)
		return nil
	}
	d.callers.enter(conn)
	if err = d.listener.Deliver(ctx, conn); err != nil {
		_ = conn.Close()
	}
	return err
}

// ServeHTTP admits one request and lets an instance serve it.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, _ := r.Context().Value(peerKey{}).(*peer)
	in := receive(w, r)
	if in != nil {
		defer in.leave()
		r = &in.request
	}
	if p.public != nil {
		var t *timedWriter
		t, w = newTimedWriter(w)
		defer t.over()
		t.old = !r.ProtoAtLeast(1, 1)
		in.setClient(t)
		if p = p.public.clean(w, r, p); p == nil {
			return
		}
	}
	if p.handed {
		p = p.accepted(r)
	}
	q := &request{app: d.app, peer: p}
	q.base, q.deadline, q.arrived = r.Context(), takeRemaining(r.Header), time.Now().Add(-p.waited)
	q.describe(r)
	q.answer.answer = answer{ResponseWriter: w, request: q}
	q.intake = in
	in.serves(&q.requestContext)
	q.startTimer()
	d.dispatch(w, r.WithContext(q), q)
}

// dispatch gets the request a worker and serves it, or has a sibling serve it. The context of r is q.
func (d *door) dispatch(w http.ResponseWriter, r *http.Request, q *request) {
	p := q.peer
	to, err := d.admit(r, q, d.mover(r, p))
	for n := 1; to != nil; n++ {
		if d.pass(to, w, r, q) {
			return
		}
		var m *move
		if n < mostHandovers { // another may be idle
			m = d.mover(r, p)
		}
		to, err = d.admit(r, q, m)
	}
	if err != nil {
		q.end()
		d.refuse(w, p, err)
		return
	}
	if p.asks > 0 {
		w.WriteHeader(p.asks)
	}
	q.Serve(r)
}

// admit gets the request a worker, or names the sibling that is to serve it.
func (d *door) admit(r *http.Request, q *request, m *move) (*neighbour, error) {
	if r.Header["Upgrade"] != nil {
		if err := d.app.conns.check(); err != nil {
			d.app.shedConn(err)
			return nil, err
		}
	}
	if to := m.full(); to != nil {
		return to, nil
	}
	var t ticket
	var err error
	if q.peer.handed {
		t, err = d.app.admitNow(q.arrived)
	} else {
		t, err = d.app.admit(q, q.arrived, m)
	}
	if to := m.result(errors.Is(err, admission.ErrMoved)); to != nil {
		return to, nil
	}
	if err != nil {
		return nil, d.app.explain(err)
	}
	q.ticket, q.holds, q.gen = t, aWorker, t.Value()
	return nil, nil
}

func (d *door) lameDuck() {
	if d.public != nil {
		d.public.lame.Store(true)
	}
}

// chosenTime is how long a door in a process of its own serves on when it drains: others may have chosen it before.
const chosenTime = 25 * time.Millisecond

func (d *door) quiet(ctx context.Context) error {
	began := time.Now()
	if d.public != nil {
		d.public.quiet(ctx)
	}
	if d.app.rt.child != nil {
		wait(ctx, func() bool { return d.callers.count() == 0 || time.Since(began) >= chosenTime })
	}
	return nil
}

// awaitAnswers waits until those on trunks are out, for which their handlers do not wait.
func (d *door) awaitAnswers(ctx context.Context) error {
	left := 0
	wait(ctx, func() bool {
		_, left = d.callers.trunks()
		return left == 0
	})
	if left > 0 {
		return fmt.Errorf("watt: app %q: %s cut that nobody has read", d.app.name, were(left, "answer", "answers"))
	}
	return nil
}

// lingerTime is how long those have to go whose connections do not end by themselves.
const lingerTime = time.Second

// linger lets callers in other processes go. They are told that an instance drains, but perhaps while they send it a
// request: that is refused, and so sent elsewhere, as long as its connection is open.
func (d *door) linger(ctx context.Context) {
	defer d.callers.cutTrunks()
	d.callers.endRequests()
	began := time.Now()
	wait(ctx, func() bool {
		conns, _ := d.callers.trunks()
		if d.app.rt.child != nil {
			conns = d.callers.count()
		}
		return conns == 0 || time.Since(began) >= lingerTime
	})
}

// close ends the door once nothing is in progress behind it; what still is when ctx ends is cut.
func (d *door) close(ctx context.Context) {
	d.linger(ctx)
	_ = d.listener.Close()
	if d.inner.Shutdown(ctx) != nil {
		_ = d.inner.Close()
	}
	if d.public != nil {
		d.public.close(ctx)
	}
}
