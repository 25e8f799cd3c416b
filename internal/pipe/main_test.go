package pipe_test

import (
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"

	"github.com/org/watt/internal/pipe"
)

// TestMain fails the package if a test leaves a goroutine behind. The fuzzer does, for its workers.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	fuzzing := flag.Lookup("test.fuzz").Value.String() != ""
	deadline := time.Now().Add(5 * time.Second)
	for ; code == 0 && !fuzzing && runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, "goroutines left behind:")
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			code = 1
		}
	}
	os.Exit(code)
}

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
