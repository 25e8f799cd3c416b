// Package conformance holds the ways in which a request gets to a handler against each other.
package conformance_test

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/internal/control"
	"github.com/org/watt/internal/direct"
	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/timers"
	"github.com/org/watt/internal/trunk"
	"github.com/org/watt/internal/wire"
)

// world is a way to get from a request to a handler.
type world struct {
	name string
	// open has h serve, and returns the way to it and what ends that.
	open     func(tb testing.TB, h http.Handler) (rt http.RoundTripper, end func())
	wireless bool // without a connection, where that is possible
	loses    bool // sometimes an answer that comes before all of the request is sent: http.Transport's way, and TCP's
	blind    bool // without a httptrace, so that watt's sides take their shortest ways
}

func worlds() []world {
	return []world{
		{name: "wire over pipe", open: over(pipes, short)},
		{name: "wire over pipe, untraced", open: over(pipes, short), blind: true},
		{name: "wire over TCP", open: over(loopback, short), loses: true},
		{name: "direct", open: unwired, wireless: true},
		{name: "direct, untraced", open: unwired, wireless: true, blind: true},
		{name: "trunk", open: shared, wireless: true},
		{name: "trunk, untraced", open: shared, wireless: true, blind: true},
		{name: "mesh", open: meshed(func(h http.Handler) watt.App { return watt.App{Handler: h} }), wireless: true},
		{name: "mesh, Serve", open: meshed(func(h http.Handler) watt.App { return watt.App{Serve: serving(h)} })},
		{name: "Transport over pipe", open: over(pipes, ordinary), loses: true},
		{name: "Transport over TCP", open: over(loopback, ordinary), loses: true},
	}
}

// TestEverythingIsAsWithAnOrdinaryTransport runs one corpus of exchanges through all ways that a call can take in
// watt, and through http.Transport over a pipe and over loopback TCP. Nobody must be able to tell which it was.
func TestEverythingIsAsWithAnOrdinaryTransport(t *testing.T) {
	t.Parallel()
	for _, s := range corpus() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			var first *observation
			for i, w := range worlds() {
				if w.wireless && s.hijacks && direct.Takes(s.request()) {
					continue // there is no connection to hijack
				}
				seen := w.observe(t, s)
				for try := 0; s.retry && w.loses && seen.Error != first.Error && try < 50; try++ {
					seen = w.observe(t, s)
				}
				if i == 0 {
					first = seen
				} else if d := first.in(w).differences(seen.in(w)); d != "" {
					t.Errorf("%s and %s:%s", worlds()[0].name, w.name, d)
				}
			}
		})
	}
}

// observe runs s in w.
func (w world) observe(tb testing.TB, s scenario) *observation {
	tb.Helper()
	seen := new(observation)
	var mu sync.Mutex // until the handler is done, it shares seen.Handler
	rt, end := w.open(tb, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		in := &seen.Handler
		in.Called++
		in.Method, in.URI, in.Host, in.Close = r.Method, r.RequestURI, r.Host, r.Close
		in.Header, in.ContentLength, in.TransferEncoding = r.Header.Clone(), r.ContentLength, r.TransferEncoding
		s.handler(rw, r.WithContext(context.WithValue(r.Context(), sightKey{}, in)))
	}))
	s.exchange(tb, rt, seen, w.blind)
	end()
	if s.soften != nil {
		s.soften(w.name, seen)
	}
	return seen
}

type sightKey struct{}

// in returns what counts in w.
func (o *observation) in(w world) *observation {
	seen := *o
	if w.blind {
		seen.Traced = nil
	}
	if w.wireless { // where there is no connection, nobody hears that it is closed
		seen.Header = seen.Header.Clone()
		seen.Header.Del("Connection")
		seen.Close = false
	}
	return &seen
}

type dial func(context.Context) (net.Conn, error)

// over serves with net/http's server.
func over(network func(testing.TB) (net.Listener, dial), client func(dial) http.RoundTripper) func(testing.TB, http.Handler) (http.RoundTripper, func()) {
	return func(tb testing.TB, h http.Handler) (http.RoundTripper, func()) {
		tb.Helper()
		l, dial := network(tb)
		stop := run(l, h)
		rt := client(dial)
		return rt, func() { rt.(interface{ CloseIdleConnections() }).CloseIdleConnections(); stop() }
	}
}

func pipes(testing.TB) (net.Listener, dial) {
	l := pipe.Listen(new(pipe.Buffers), "callee:80")
	return l, func(ctx context.Context) (net.Conn, error) { return l.Dial(ctx, "caller:1", nil) }
}

func loopback(tb testing.TB) (net.Listener, dial) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return l, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
}

// ordinary is what would be used without watt.
func ordinary(dial dial) http.RoundTripper {
	return &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression:     true,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 1 << 20, // wire's limit; its own is 10 MiB
	}
}

func short(dial dial) http.RoundTripper { return lean{&wire.Pool{Dial: dial}} }

// lean makes an http.RoundTripper of a pool.
type lean struct{ *wire.Pool }

func (l lean) RoundTrip(req *http.Request) (*http.Response, error) {
	return l.Pool.RoundTrip(req, time.Time{}, nil)
}
func (l lean) CloseIdleConnections() { l.CloseIdle() }

// unwired takes the ways of the mesh, without the mesh: without a wire, or with one where there must be.
func unwired(tb testing.TB, h http.Handler) (http.RoundTripper, func()) {
	tb.Helper()
	wired, end := over(pipes, short)(tb, h)
	p := newPlain(wired, h)
	return p, func() { p.serving.Wait(); end() }
}

type plain struct {
	fallback http.RoundTripper
	handler  http.Handler
	common   direct.Common // of all exchanges, as in an app
	serving  sync.WaitGroup
}

func newPlain(fallback http.RoundTripper, h http.Handler) *plain {
	return &plain{fallback: fallback, handler: h, common: direct.Common{Buffers: new(pipe.Buffers), Timers: new(timers.Pool), ErrorLog: mute{}}}
}

func (p *plain) RoundTrip(req *http.Request) (*http.Response, error) {
	if !direct.Takes(req) {
		return p.fallback.RoundTrip(req)
	}
	x := &direct.Exchange{Common: &p.common}
	ctx, cancel := context.WithCancel(context.Background())
	p.serving.Add(1)
	r := x.Request(ctx, req)
	r.RemoteAddr = "caller:1"
	return x.RoundTrip(r, time.Time{}, &callee{p, x, cancel})
}

// shared takes the ways between processes: by a trunk, or with a connection where there must be.
func shared(tb testing.TB, h http.Handler) (http.RoundTripper, func()) {
	tb.Helper()
	wired, end := over(pipes, short)(tb, h)
	p := newPlain(wired, h)
	var server *trunk.Server
	var serving sync.WaitGroup
	client := &trunk.Client{Buffers: new(pipe.Buffers), Timers: new(timers.Pool), Dial: func(context.Context) (net.Conn, error) {
		near, far := sockets(tb)
		server = trunk.NewServer(far, new(pipe.Buffers), p.carried)
		serving.Go(func() { _ = server.Serve() })
		return near, nil
	}}
	return &trunked{client, p}, func() {
		client.Close()
		serving.Wait()
		p.serving.Wait()
		end()
	}
}

// sockets returns both ends of what the mesh puts between processes.
func sockets(tb testing.TB) (near, far net.Conn) {
	tb.Helper()
	a, b, err := control.Files()
	if err != nil {
		tb.Fatal(err)
	}
	if near, err = control.ConnOf(a); err != nil {
		tb.Fatal(err)
	}
	if far, err = control.ConnOf(b); err != nil {
		tb.Fatal(err)
	}
	return near, far
}

type trunked struct {
	client *trunk.Client
	plain  *plain
}

func (t *trunked) RoundTrip(req *http.Request) (*http.Response, error) {
	if direct.Takes(req) && trunk.Takes(req) {
		return t.client.RoundTrip(req, time.Time{})
	}
	return t.plain.fallback.RoundTrip(req)
}

func (p *plain) carried(c *trunk.Incoming) {
	x := &direct.Exchange{Common: &p.common}
	ctx, cancel := context.WithCancel(context.Background())
	p.serving.Add(1)
	r := c.Request(ctx)
	x.Given(r)
	r.RemoteAddr = "caller:1"
	inform := c.Inform
	if !c.Informs {
		inform = nil
	}
	x.Serve(r, &carried{callee{p, x, cancel}, c}, func(resp *http.Response, err error) {
		var body []byte
		whole := false
		if err == nil {
			body, whole = x.Held()
		}
		c.Answer(resp, body, whole, err)
	}, inform)
}

type carried struct {
	callee
	call *trunk.Incoming
}

func (c *carried) Serve(r *http.Request) {
	c.call.OnGone(c.x.Abandon)
	c.callee.Serve(r)
}

// mute is a log that nobody reads.
type mute struct{}

func (mute) Printf(string, ...any) {}

// callee is a handler that is called without a wire.
type callee struct {
	*plain
	x      *direct.Exchange
	cancel context.CancelFunc
}

func (c *callee) Serve(r *http.Request) {
	defer c.serving.Done()
	defer c.cancel()
	c.handler.ServeHTTP(c.x, r)
}

func (c *callee) PeerClosed() { c.cancel() }

// meshed is a runtime with everything on. Its client is main's.
func meshed(appOf func(http.Handler) watt.App) func(testing.TB, http.Handler) (http.RoundTripper, func()) {
	return func(tb testing.TB, h http.Handler) (http.RoundTripper, func()) {
		tb.Helper()
		a := appOf(h)
		a.Name = "callee"
		rt := watt.New(a)
		if err := rt.Start(tb.Context()); err != nil {
			tb.Fatal(err)
		}
		return byName{rt.Env().Client.Transport}, func() {
			if err := rt.Shutdown(context.Background()); err != nil {
				tb.Error(err)
			}
		}
	}
}

func serving(h http.Handler) func(context.Context, *watt.Env, net.Listener) error {
	return func(ctx context.Context, _ *watt.Env, l net.Listener) error {
		stop := run(l, h)
		<-ctx.Done()
		stop()
		return nil
	}
}

// byName sends what goes to any host to the callee, which hears of the host all the same.
type byName struct{ http.RoundTripper }

func (b byName) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil || req.URL.Host == "" {
		return b.RoundTripper.RoundTrip(req)
	}
	out := req.WithContext(req.Context())
	address := *req.URL
	if out.Host == "" {
		out.Host = address.Host
	}
	address.Host = "callee.watt.local"
	out.URL = &address
	resp, err := b.RoundTripper.RoundTrip(out)
	if err == nil && resp.Request == out {
		resp.Request = req
	}
	return resp, err
}
