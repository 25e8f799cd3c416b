package direct_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/direct"
	"github.com/org/watt/internal/leaktest"
	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/timers"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

var (
	errGivenUp = errors.New("the caller has given up")
	errBody    = errors.New("the body cannot be read")
)

// callee runs a handler with a context that ends when nobody waits for the answer any more.
type callee struct {
	handler  http.HandlerFunc
	exchange *direct.Exchange
	ctx      context.Context
	cancel   context.CancelFunc
	told     atomic.Int32  // how often PeerClosed was called
	returned chan struct{} // closed when the handler has
}

// sharing returns what exchanges with one app have in common.
func sharing() *direct.Common {
	return &direct.Common{Buffers: new(pipe.Buffers), Timers: new(timers.Pool), ErrorLog: zap.NewStdLog(zap.NewNop())}
}

func newCallee(handler http.HandlerFunc) *callee {
	c := &callee{handler: handler, returned: make(chan struct{})}
	c.exchange = &direct.Exchange{Common: sharing()}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Serve implements [direct.Callee].
func (c *callee) Serve(r *http.Request) {
	defer close(c.returned)
	defer c.cancel()
	c.handler(c.exchange, r)
}

// PeerClosed implements [direct.Callee].
func (c *callee) PeerClosed() {
	c.told.Add(1)
	c.cancel()
}

func (c *callee) roundTrip(req *http.Request, by time.Time) (*http.Response, error) {
	r := c.exchange.Request(c.ctx, req)
	r.RemoteAddr = "caller:1"
	return c.exchange.RoundTrip(r, by, c)
}

// ask sends req to handler. It waits for the handler when the test ends.
func ask(tb testing.TB, req *http.Request, handler http.HandlerFunc) (*http.Response, error) {
	tb.Helper()
	if !direct.Takes(req) {
		tb.Fatalf("%s with a body of %d bytes needs a wire", req.Method, req.ContentLength)
	}
	c := newCallee(handler)
	tb.Cleanup(func() { <-c.returned })
	return c.roundTrip(req, time.Time{})
}

// get asks handler for an answer, which must come.
func get(tb testing.TB, handler http.HandlerFunc) *http.Response {
	tb.Helper()
	return answer(tb, request(tb, tb.Context(), http.MethodGet, nil), handler)
}

// answer asks handler for an answer, which must come.
func answer(tb testing.TB, req *http.Request, handler http.HandlerFunc) *http.Response {
	tb.Helper()
	resp, err := ask(tb, req, handler)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { resp.Body.Close() })
	return resp
}

func request(tb testing.TB, ctx context.Context, method string, body io.Reader) *http.Request { //nolint:revive // tb first
	tb.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://callee.test/", body)
	if err != nil {
		tb.Fatal(err)
	}
	return req
}

// post makes a request with a body that is not known to be in memory; a length of -1 is not known either.
func post(tb testing.TB, body io.Reader, length int64) (*http.Request, *trackedBody) {
	tb.Helper()
	tracked := track(body)
	req := request(tb, tb.Context(), http.MethodPost, tracked)
	req.ContentLength = length
	return req, tracked
}

// trackedBody is a request's body that nobody knows to be in memory.
type trackedBody struct {
	io.Reader
	reads, closed atomic.Int32
	done          chan struct{} // closed by the first Close
}

func track(r io.Reader) *trackedBody { return &trackedBody{Reader: r, done: make(chan struct{})} }

func (b *trackedBody) Read(p []byte) (int, error) {
	b.reads.Add(1)
	return b.Reader.Read(p)
}

func (b *trackedBody) Close() error {
	if b.closed.Add(1) == 1 {
		close(b.done)
		if c, ok := b.Reader.(io.Closer); ok {
			return c.Close()
		}
	}
	return nil
}

// closedOnce waits until the body is closed.
func (b *trackedBody) closedOnce(tb testing.TB) {
	tb.Helper()
	<-b.done
	if got := b.closed.Load(); got != 1 {
		tb.Errorf("the request's body was closed %d times, want once", got)
	}
}

func text(size int) string { return strings.Repeat("0123456789abcdef", (size+15)/16)[:size] }

// flush sends what w holds back.
func flush(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() }

// wantBody reads body to its end.
func wantBody(tb testing.TB, body io.Reader, want string, wantErr error) {
	tb.Helper()
	got, err := io.ReadAll(body)
	if string(got) != want {
		tb.Errorf("got a body of %d bytes, %.100q, want %d, %.100q", len(got), got, len(want), want)
	}
	if !errors.Is(err, wantErr) {
		tb.Errorf("got error %v after the body, want %v", err, wantErr)
	}
}
