package pipe_test

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/org/watt/internal/pipe"
)

// readUntilTimeout returns how long a Read waited for its deadline.
func readUntilTimeout(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	n, err := c.Read(make([]byte, 1))
	var netErr net.Error
	if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &netErr) || !netErr.Timeout() {
		t.Errorf("got %d, %v, want a timeout", n, err)
	}
	opError(t, err, "read")
	return time.Since(start)
}

func TestABlockedReadReturnsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newPipe(t)
		a.SetReadDeadline(time.Now().Add(30 * time.Second))
		if got := readUntilTimeout(t, a); got != 30*time.Second {
			t.Errorf("got %v, want 30s", got)
		}
		if got := readUntilTimeout(t, a); got != 0 {
			t.Errorf("the next Read took %v, want 0s: the deadline stays", got)
		}
	})
}

func TestABlockedWriteReturnsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPipe(t)
		start := time.Now()
		a.SetWriteDeadline(start.Add(30 * time.Second))
		n, err := a.Write(make([]byte, capacity+1))
		if got := time.Since(start); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || got != 30*time.Second {
			t.Errorf("got %d, %v after %v", n, err, got)
		}
		a.SetWriteDeadline(time.Time{})
		a.Write([]byte("x"))
		a.Close()
		if got, _ := io.ReadAll(b); string(got) != "x" {
			t.Errorf("got %d bytes, want the one of the Write that succeeded", len(got))
		}
	})
}

func TestADeadlineCanBeMovedWhileAReadWaits(t *testing.T) {
	for name, test := range map[string]struct {
		to   []time.Duration // after 1 s each; 0 clears the deadline
		want time.Duration
	}{
		"later":             {[]time.Duration{60 * time.Second}, 61 * time.Second},
		"earlier":           {[]time.Duration{2 * time.Second}, 3 * time.Second},
		"cleared and back":  {[]time.Duration{0, 40 * time.Second}, 42 * time.Second},
		"into the past":     {[]time.Duration{-time.Hour}, time.Second},
		"later and earlier": {[]time.Duration{time.Hour, time.Minute, time.Second}, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := newPipe(t)
				a.SetDeadline(time.Now().Add(30 * time.Second))
				go func() {
					for _, d := range test.to {
						time.Sleep(time.Second)
						deadline := time.Now().Add(d)
						if d == 0 {
							deadline = time.Time{}
						}
						a.SetReadDeadline(deadline)
					}
				}()
				if got := readUntilTimeout(t, a); got != test.want {
					t.Errorf("got %v, want %v", got, test.want)
				}
			})
		})
	}
}

// The timer of the old deadline fires at the very moment the new one is set, before or after it.
func TestATimerNeverFiresForAnOlderDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newPipe(t)
		for range 1000 {
			a.SetReadDeadline(time.Now().Add(time.Second))
			time.Sleep(time.Second)
			a.SetReadDeadline(time.Now().Add(10 * time.Second))
			if got := readUntilTimeout(t, a); got != 10*time.Second {
				t.Fatalf("got %v, want 10s", got)
			}
		}
	})
}

func TestAPassedDeadlineHoldsBackWhatIsBufferedUntilItIsReset(t *testing.T) {
	a, b := newPipe(t)
	b.Write([]byte("x"))
	a.SetReadDeadline(time.Unix(1, 0))
	readUntilTimeout(t, a)
	a.SetReadDeadline(time.Time{})
	if n, err := a.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Errorf("got %d, %v, want 1, nil", n, err)
	}
}

// The runtime lets go of stopped timers in batches, once they are many: so this asks for most of the pipes.
func TestCloseStopsTheTimers(t *testing.T) {
	const pipes = 2000
	closed := make([]weak.Pointer[pipe.Conn], pipes)
	for i := range closed {
		a, b := pipe.New(new(pipe.Buffers), "a:1", "b:2")
		a.SetDeadline(time.Now().Add(time.Hour))
		b.SetDeadline(time.Now().Add(time.Hour))
		a.Close()
		b.Close()
		closed[i] = weak.Make(a)
	}
	alive := pipes
	for range 10 {
		runtime.GC()
		alive = 0
		for _, c := range closed {
			if c.Value() != nil {
				alive++
			}
		}
	}
	if alive > pipes/2 {
		t.Errorf("timers keep %d of %d closed pipes alive", alive, pipes)
	}
}
