package wire_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/watt/internal/leaktest"
	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/wire"
)

// TestMain fails the package if a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // where net/http complains, by way of the log package
	os.Exit(leaktest.Run(m))
}

// lean makes an http.RoundTripper of a pool.
type lean struct{ *wire.Pool }

func (l lean) RoundTrip(req *http.Request) (*http.Response, error) {
	return l.Pool.RoundTrip(req, time.Time{}, nil)
}
func (l lean) CloseIdleConnections() { l.CloseIdle() }

// counted is a connection that counts in open until it is closed. It has what wire asks of connections
// beyond net.Conn.
type counted struct {
	*pipe.Conn
	open  *atomic.Int32
	once  sync.Once
	ended atomic.Bool // set by tests: the other side has ended it
	wrote atomic.Int64
	most  atomic.Int64 // the longest Write
}

func (c *counted) Ended() bool { return c.ended.Load() }

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.wrote.Add(int64(n))
	c.most.Store(max(c.most.Load(), int64(n)))
	return n, err
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// network is a listener and all the connections that were dialled to it.
type network struct {
	*pipe.Listener
	open atomic.Int32

	mu    sync.Mutex
	conns []*counted
}

func newNetwork(tb testing.TB) *network {
	tb.Helper()
	n := &network{Listener: pipe.Listen(new(pipe.Buffers), "callee:80")}
	tb.Cleanup(func() { n.Close() })
	return n
}

func (n *network) dial(ctx context.Context) (net.Conn, error) {
	conn, err := n.Dial(ctx, "caller:1", nil)
	if err != nil {
		return nil, err
	}
	c := &counted{Conn: conn, open: &n.open}
	n.open.Add(1)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, c)
	return c, nil
}

func (n *network) dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

func (n *network) conn(i int) *counted {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conns[i]
}

// serve runs a net/http server with handler until the test ends, and returns a pool for it.
func serve(tb testing.TB, handler http.Handler) (*wire.Pool, *network) {
	tb.Helper()
	n := newNetwork(tb)
	pool := &wire.Pool{Dial: n.dial}
	stop := run(n, handler)
	tb.Cleanup(func() { pool.CloseIdle(); stop() })
	return pool, n
}

// run serves l with handler, and returns what ends that and waits for all handlers.
func run(l net.Listener, handler http.Handler) (stop func()) {
	var (
		handlers, server sync.WaitGroup
		mu               sync.Mutex
		closed           bool
	)
	enter := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if !closed {
			handlers.Add(1)
		}
		return !closed
	}
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !enter() {
				return
			}
			defer handlers.Done()
			handler.ServeHTTP(w, r)
		}),
	}
	server.Go(func() { s.Serve(l) })
	return func() {
		s.Close()
		server.Wait()
		mu.Lock()
		closed = true
		mu.Unlock()
		handlers.Wait()
	}
}

// script runs a server that gives each connection, in the order they come, to the next of scripts, and
// closes those that come after.
func script(tb testing.TB, scripts ...func(net.Conn)) (*wire.Pool, *network) {
	tb.Helper()
	n := newNetwork(tb)
	pool := &wire.Pool{Dial: n.dial}
	var servers sync.WaitGroup
	servers.Go(func() {
		for i := 0; ; i++ {
			conn, err := n.Accept()
			if err != nil {
				return
			}
			if i >= len(scripts) {
				conn.Close()
				continue
			}
			servers.Go(func() { scripts[i](conn) })
		}
	})
	tb.Cleanup(func() {
		pool.CloseIdle()
		n.Close()
		servers.Wait()
	})
	return pool, n
}

func request(tb testing.TB, ctx context.Context, method string, body io.Reader) *http.Request { //nolint:revive // tb first
	tb.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://callee/", body)
	if err != nil {
		tb.Fatal(err)
	}
	return req
}

// trackedBody is a request body that nobody knows to be in memory. It counts how often it is closed.
type trackedBody struct {
	io.Reader
	closed atomic.Int32
	done   chan struct{} // closed by the first Close
}

func track(r io.Reader) *trackedBody { return &trackedBody{Reader: r, done: make(chan struct{})} }

func (b *trackedBody) Close() error {
	if b.closed.Add(1) == 1 {
		close(b.done)
		if c, ok := b.Reader.(io.Closer); ok {
			return c.Close()
		}
	}
	return nil
}

// readAll reads and closes the answer's body.
func readAll(tb testing.TB, resp *http.Response, err error) string {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Errorf("got error %v after %q", err, b)
	}
	return string(b)
}

var errBody = errors.New("the body cannot be read")

func text(size int) string { return strings.Repeat("0123456789abcdef", size/16) }

// memory gives the request a body as http.NewRequest makes it.
func memory(content string) func(*http.Request) {
	return func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(content)), int64(len(content))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }
	}
}

func stream(content string, length int64) func(*http.Request) {
	return func(r *http.Request) { r.Body, r.ContentLength = track(strings.NewReader(content)), length }
}
