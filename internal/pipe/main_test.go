package pipe_test

import (
	"net"
	"os"
	"testing"

	"github.com/org/watt/internal/leaktest"
	"github.com/org/watt/internal/pipe"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// newPipe returns the ends of a pipe that is closed when the test ends.
func newPipe(tb testing.TB) (a, b *pipe.Conn) {
	tb.Helper()
	a, b = pipe.New(new(pipe.Buffers), "a:1", "b:2")
	tb.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// opError fails the test unless err is a *net.OpError for op, as TCP's are.
func opError(tb testing.TB, err error, op string) {
	tb.Helper()
	opErr, ok := err.(*net.OpError) //nolint:errorlint // TCP does not wrap it, and some callers do not unwrap
	if !ok || opErr.Op != op || opErr.Net != "pipe" {
		tb.Errorf("got error %#v, want a *net.OpError of %q", err, op)
	}
}
