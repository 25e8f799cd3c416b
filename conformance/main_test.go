package conformance_test

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/org/watt/internal/leaktest"
)

// TestMain fails the package if a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // where net/http complains, by way of the log package
	os.Exit(leaktest.Run(m))
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

// ok is a plain answer.
const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
