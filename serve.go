package watt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/roundtrip"
)

// relay is the way into a Serve app: it hands connections to the listener of one of its instances. Public ones
// it leaves to the system's queue while no instance is ready.
type relay struct {
	inside
	listener net.Listener // of the public side; nil if there is none
	tls      *tls.Config
	ctx      context.Context //nolint:containedctx // ends the handing over
	cancel   context.CancelFunc

	accepting sync.WaitGroup
}

func newRelay(a *app) *relay {
	s := &relay{inside: inside{a}, tls: a.conf().TLS}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// open implements place. The mesh comes in by way of the instances.
func (s *relay) open() {}

func (s *relay) listen(ln net.Listener) { s.listener = ln }

func (s *relay) publish() {
	if s.listener != nil {
		s.accepting.Go(func() { acceptAll(s.listener, s.ctx.Done(), s.app.log, s.hand) })
	}
}

// count implements place: what the public side accepts is all that is tracked.
func (s *relay) count(to *Status) {
	s.inside.count(to)
	to.PublicConns, to.Upgraded = to.Upgraded, 0
}

func (s *relay) addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

func (s *relay) listeners() []ListenerStatus {
	if s.listener == nil {
		return nil
	}
	return s.only(s.listener)
}

// send sends the request to the instance that the call was admitted to, on a connection that is kept for it, or to the
// next if that has just ended.
func (s *relay) send(c *call, req *http.Request) (*http.Response, error) {
	if err := c.admit(req); err != nil {
		return nil, err
	}
	g := c.ticket.Value()
	lines := c.mesh.kept(g, func(ctx context.Context, caller string) (net.Conn, error) {
		conn, err := g.connect(ctx, caller)
		if err != nil && ctx.Err() == nil {
			conn, err = s.connect(ctx, caller)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, roundtrip.ErrNotSent)
		}
		return conn, nil
	})
	req = c.trace().addTo(req)
	if isGRPC(req.Header) { // nobody can say which connection it takes
		out, stop := c.timed(req)
		defer stop()
		return lines.RoundTrip(out)
	}
	return c.insist(lines, req)
}

// insist sends req, and again while nobody has read any of it: the connection was not accepted, most likely.
func (c *call) insist(lines *lines, req *http.Request) (*http.Response, error) {
	by := c.waitsUntil()
	for n := 1; ; n++ {
		resp, err := lines.Pool.RoundTrip(req, c.by, c.offer)
		if err != nil && lost(err) && !unseen(err) && c.conn != nil && !c.begun() {
			err = roundtrip.NotSent(err) // it was taken back
		}
		if err == nil || !hungUp(err) || c.begun() || !c.more(n, nil, err, by) {
			return resp, err
		}
		if req = roundtrip.Again(req); req == nil {
			return nil, err
		}
	}
}

// offer notes the connection to a Serve app that the request is about to take. It reports whether it may: not if the app has
// read some of the request on an earlier one.
func (c *call) offer(conn net.Conn) bool {
	end, ok := conn.(*pipe.Conn)
	if !ok {
		return c.conn == nil
	}
	if c.begun() {
		return false
	}
	c.conn, c.sent = end, end.Delivered()
	_ = conn.SetDeadline(c.by) // also if it is zero: the last call may have left one
	return true
}

// begun reports whether a Serve app has read some of the request.
func (c *call) begun() bool { return c.conn != nil && c.conn.Delivered() != c.sent }

// hungUp reports whether err means that a connection has ended before anything that was sent on it was read, as those do
// that nobody has accepted when the listener is closed.
func hungUp(err error) bool { return unseen(err) && !errors.Is(err, ErrUnavailable) }

// connect opens a connection to an instance.
func (s *relay) connect(ctx context.Context, caller string) (conn net.Conn, err error) {
	err = s.reach(ctx, func(g *generation) error {
		conn, err = g.connect(ctx, caller)
		return err
	})
	return conn, err
}

// reach gives the instance with the fewest connections one more. If none takes it, it waits for the next, but not in a
// process of its own.
func (s *relay) reach(ctx context.Context, give func(*generation) error) error {
	by := s.app.waitsUntil()
	for {
		change := s.app.changing()
		err := errNotReady
		if g := s.emptiest(); g != nil {
			if err = give(g); err == nil {
				return nil
			}
			if g.listener.Closed() { // since then: another may be free
				continue
			}
		}
		if s.app.rt.child != nil { // where there will be no other
			return err
		}
		if down := s.app.await(ctx, by); down != nil {
			return down
		}
		select {
		case <-change:
		case <-time.After(time.Until(by)): // its supervisor has not noticed, or it does not accept and goes on
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

var errNotReady = fmt.Errorf("%w: no instance is ready", ErrUnavailable)

func (s *relay) accept(ctx context.Context, f *os.File, what connection, _ int) error {
	conn, err := newForeign(f, what, s.app.name)
	if err != nil {
		return err
	}
	return s.deliver(ctx, conn)
}

// deliver hands a connection to an instance, or closes it.
func (s *relay) deliver(ctx context.Context, conn net.Conn) error {
	err := s.reach(ctx, func(g *generation) error { return g.deliver(ctx, conn) })
	if err != nil {
		_ = conn.Close()
	}
	return err
}

func (s *relay) begin(index int) life { return newGeneration(s.app, index) }

func (s *relay) lameDuck() {}

// quiet takes no more public connections. Those that there are belong to the instances, which accept the last in emptyTime.
func (s *relay) quiet(ctx context.Context) error {
	if s.listener == nil {
		return nil
	}
	s.app.empty(ctx, s.listener)
	_ = s.listener.Close()
	ctx, cancel := context.WithTimeout(ctx, emptyTime)
	defer cancel()
	defer context.AfterFunc(ctx, s.cancel)()
	s.accepting.Wait()
	wait(ctx, func() bool { return s.waiting() == 0 })
	return nil
}

// waiting returns how many connections no instance has accepted yet.
func (s *relay) waiting() (n int) {
	for g := range s.generations {
		n += g.listener.Waiting()
	}
	return n
}

func (s *relay) close(context.Context) {
	s.cancel()
	if s.listener != nil {
		_ = s.listener.Close()
	}
	s.accepting.Wait()
}

func (s *relay) hand(conn net.Conn) {
	s.app.tallies.instance(s.app.first).Accepted.Add(1)
	tracked, err := s.app.conns.track(conn)
	if err != nil {
		s.app.shedConn(err)
		_ = conn.Close()
		return
	}
	if s.tls != nil {
		tracked = tls.Server(tracked, s.tls)
	}
	_ = s.deliver(s.ctx, tracked) // whoever is there sees it closed
}

// emptiest returns the generation with the fewest connections among those that take more, or nil if none does.
func (s *relay) emptiest() (best *generation) {
	for g := range s.generations {
		if best == nil || g.conns.count() < best.conns.count() {
			best = g
		}
	}
	return best
}

// generations calls yield for each that takes connections.
func (s *relay) generations(yield func(*generation) bool) {
	s.app.mu.Lock()
	instances := s.app.instances
	s.app.mu.Unlock()
	for _, in := range instances {
		if g, ok := in.current().(*generation); ok && !g.listener.Closed() && !yield(g) {
			return
		}
	}
}

// startServe starts Serve and waits until it accepts, if anybody can reach it.
func (g *generation) startServe(ctx context.Context, config *App) error {
	g.listener = pipe.Listen(&g.app.rt.buffers, address(g.app.name))
	running := g.env.run("Serve", func() error { return config.Serve(g.serving, g.env, g.listener) })
	go func() {
		g.err = <-running
		close(g.served)
	}()
	if len(g.app.callers) == 0 && config.Listen == "" { // nobody but main can connect
		return g.awaitReady(ctx, config.ReadyPath) // it runs; should it end, that is no error of the start
	}
	select {
	case <-g.listener.Accepting():
	case <-g.served:
		return g.whyEnded()
	case <-ctx.Done():
		return fmt.Errorf("its Serve did not call Accept in time, as it must where others may call it or it has a Listen: %w", context.Cause(ctx))
	}
	return g.awaitReady(ctx, config.ReadyPath)
}

// whyEnded returns why Serve has ended by itself.
func (g *generation) whyEnded() error {
	if g.err != nil {
		return g.err
	}
	return errors.New("its Serve has returned")
}

// connect opens a connection to a Serve app's listener.
func (g *generation) connect(ctx context.Context, caller string) (net.Conn, error) {
	near, far := pipe.New(&g.app.rt.buffers, address(caller), address(g.app.name))
	if err := g.deliver(ctx, far); err != nil {
		_, _ = near.Close(), far.Close()
		return nil, err
	}
	return near, nil
}

// deliver hands a connection to Serve, and remembers it until it is closed. If it cannot, the connection is the caller's.
func (g *generation) deliver(ctx context.Context, conn net.Conn) error {
	tracked, err := g.conns.track(conn)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err = g.listener.Deliver(ctx, tracked); err != nil {
		g.conns.forget(conn)
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}
