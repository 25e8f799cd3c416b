package pipe_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/org/watt/internal/pipe"
)

const capacity = 64 << 10 // of one direction

func TestAConnPassesTheTestsOfNettest(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := pipe.New(new(pipe.Buffers), "a:1", "b:2")
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

func TestADialledConnPassesTheTestsOfNettest(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		l := pipe.Listen(new(pipe.Buffers), "b:2")
		a, err := l.Dial(t.Context(), "a:1", nil)
		if err != nil {
			return nil, nil, nil, err
		}
		b, err := l.Accept()
		return a, b, func() { a.Close(); b.Close(); l.Close() }, err
	})
}

func TestTheAddressesOfTheEndsMirrorEachOther(t *testing.T) {
	a, b := newPipe(t)
	if a.LocalAddr() != b.RemoteAddr() || a.RemoteAddr() != b.LocalAddr() {
		t.Errorf("got %v→%v and %v→%v", a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
	}
	if got := a.LocalAddr().Network(); got != "pipe" {
		t.Errorf("got network %q, want pipe", got)
	}
	host, port, err := net.SplitHostPort(b.LocalAddr().String())
	if host != "b" || port != "2" || err != nil {
		t.Errorf("got %q, %q, %v, want b, 2, nil", host, port, err)
	}
}

func TestTheOtherEndReadsWhatIsBufferedAndThenEOF(t *testing.T) {
	for name, end := range map[string]func(*pipe.Conn) error{"Close": (*pipe.Conn).Close, "CloseWrite": (*pipe.Conn).CloseWrite} {
		t.Run(name, func(t *testing.T) {
			a, b := newPipe(t)
			a.Write([]byte("first "))
			a.Write([]byte("second"))
			if err := end(a); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(b); string(got) != "first second" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // io.Reader demands it bare
				t.Errorf("got %d, %v, want 0 and a bare io.EOF", n, err)
			}
		})
	}
}

func TestCloseWriteLeavesTheOtherDirectionOpen(t *testing.T) {
	a, b := newPipe(t)
	if err := errors.Join(a.CloseWrite(), a.CloseWrite()); err != nil {
		t.Errorf("got %v, want nil, the second time too", err)
	}
	_, err := a.Write([]byte("x"))
	opError(t, err, "write")
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write after CloseWrite: got %v, want EPIPE", err)
	}
	if err := a.SetDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Errorf("SetDeadline after CloseWrite: %v", err)
	}
	b.Write([]byte("still here"))
	b.Close()
	if got, err := io.ReadAll(a); string(got) != "still here" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAfterCloseEverythingSaysErrClosed(t *testing.T) {
	a, b := newPipe(t)
	b.Write([]byte("too late"))
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Errorf("got %v, want nil, the second time too", err)
	}
	for op, do := range map[string]func() error{
		"read":  func() error { _, err := a.Read(make([]byte, 1)); return err },
		"write": func() error { _, err := a.Write(make([]byte, 1)); return err },
		"close": a.CloseWrite,
		"set":   func() error { return a.SetDeadline(time.Time{}) },
	} {
		err := do()
		opError(t, err, op)
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: got %v, want net.ErrClosed", op, err)
		}
	}
	for _, set := range []func(time.Time) error{a.SetReadDeadline, a.SetWriteDeadline} {
		if err := set(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want net.ErrClosed", err)
		}
	}
}

func TestAWriteThatNobodyCanReadSaysBrokenPipe(t *testing.T) {
	a, b := newPipe(t)
	b.Close()
	n, err := a.Write([]byte("x"))
	opError(t, err, "write")
	var sysErr *os.SyscallError
	if n != 0 || !errors.Is(err, syscall.EPIPE) || !errors.As(err, &sysErr) {
		t.Errorf("got %d, %v, want 0 and EPIPE in an *os.SyscallError", n, err)
	}
}

func TestABlockedReadIsWoken(t *testing.T) {
	for name, test := range map[string]struct {
		wake func(reader, other *pipe.Conn)
		want error
	}{
		"by Close":                         {func(r, _ *pipe.Conn) { r.Close() }, net.ErrClosed},
		"by the other end's Close":         {func(_, o *pipe.Conn) { o.Close() }, io.EOF},
		"by the other end's CloseWrite":    {func(_, o *pipe.Conn) { o.CloseWrite() }, io.EOF},
		"by a deadline in the past":        {func(r, _ *pipe.Conn) { r.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		"by a byte, but not by CloseWrite": {func(r, o *pipe.Conn) { r.CloseWrite(); o.Write([]byte{0}) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newPipe(t)
				var wg sync.WaitGroup
				wg.Go(func() {
					if _, err := a.Read(make([]byte, 1)); !errors.Is(err, test.want) {
						t.Errorf("got %v, want %v", err, test.want)
					}
				})
				synctest.Wait()
				test.wake(a, b)
				wg.Wait()
			})
		})
	}
}

func TestABlockedWriteIsWokenAndSaysHowMuchWasTaken(t *testing.T) {
	for name, test := range map[string]struct {
		wake func(writer, other *pipe.Conn)
		want error
	}{
		"by Close":                  {func(w, _ *pipe.Conn) { w.Close() }, net.ErrClosed},
		"by CloseWrite":             {func(w, _ *pipe.Conn) { w.CloseWrite() }, syscall.EPIPE},
		"by the other end's Close":  {func(_, o *pipe.Conn) { o.Close() }, syscall.EPIPE},
		"by a deadline in the past": {func(w, _ *pipe.Conn) { w.SetWriteDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newPipe(t)
				var wg sync.WaitGroup
				wg.Go(func() {
					if n, err := a.Write(make([]byte, 3*capacity)); n != 1000 || !errors.Is(err, test.want) {
						t.Errorf("got %d, %v, want 1000, %v", n, err, test.want)
					}
				})
				io.ReadFull(b, make([]byte, 1000))
				synctest.Wait()
				test.wake(a, b)
				wg.Wait()
			})
		})
	}
}

// Read has all bytes before the Write that waits learns of it, and of the fault that comes right after.
func TestWhatWasReadCountsAsWrittenEvenIfAFaultFollows(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			a, b := newPipe(t)
			p := make([]byte, capacity+1)
			var wg sync.WaitGroup
			wg.Go(func() {
				if n, err := a.Write(p); n != len(p) || err != nil {
					t.Errorf("got %d, %v, want %d, nil", n, err, len(p))
				}
			})
			synctest.Wait()
			b.Read(make([]byte, len(p)))
			a.Close()
			wg.Wait()
		})
	}
}

func TestAWriteReturnsAsSoonAsItsRestFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPipe(t)
		a.Write(make([]byte, capacity)) // does not block: it fits
		done := make(chan struct{})
		go func() { defer close(done); a.Write(make([]byte, 100)) }()
		for _, test := range []struct {
			read int
			want bool
		}{{99, false}, {1, true}} {
			io.ReadFull(b, make([]byte, test.read))
			synctest.Wait()
			got := false
			select {
			case <-done:
				got = true
			default:
			}
			if got != test.want {
				t.Errorf("after a Read of %d bytes: returned = %v, want %v", test.read, got, test.want)
			}
		}
	})
}

func TestConcurrentWritesDoNotMix(t *testing.T) {
	a, b := newPipe(t)
	const writers, size = 8, capacity + 1000
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() { a.Write(bytes.Repeat([]byte{byte(i)}, size)) })
	}
	go func() { wg.Wait(); a.Close() }()
	message, n := make([]byte, size), 0
	for ; ; n++ {
		if _, err := io.ReadFull(b, message); err != nil {
			break
		}
		if got := bytes.Count(message, message[:1]); got != size {
			t.Fatalf("%d of %d bytes of a Write came in one piece", got, size)
		}
	}
	if n != writers {
		t.Errorf("got %d writes, want %d", n, writers)
	}
}

func TestConcurrentReadsGetEachByteOnce(t *testing.T) {
	a, b := newPipe(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var got [256]int
	for range 8 {
		wg.Go(func() {
			p := make([]byte, 100)
			for {
				n, err := b.Read(p)
				if err != nil {
					return
				}
				mu.Lock()
				for _, c := range p[:n] {
					got[c]++
				}
				mu.Unlock()
			}
		})
	}
	for range 1000 {
		for c := range 256 {
			a.Write([]byte{byte(c)})
		}
	}
	a.Close()
	wg.Wait()
	for c, n := range got {
		if n != 1000 {
			t.Fatalf("byte %d was read %d times, want 1000", c, n)
		}
	}
}

func TestAnEmptyReadOrWriteDoesNotWait(t *testing.T) {
	a, b := newPipe(t)
	for name, do := range map[string]func([]byte) (int, error){"Read": a.Read, "Write": a.Write} {
		if n, err := do(nil); n != 0 || err != nil {
			t.Errorf("%s: got %d, %v, want 0, nil", name, n, err)
		}
	}
	b.Close()
	if n, err := a.Read(nil); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("Read at the end: got %d, %v, want EOF", n, err)
	}
	if n, err := a.Write(nil); n != 0 || !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write to nobody: got %d, %v, want EPIPE", n, err)
	}
	a.Close()
	for name, do := range map[string]func([]byte) (int, error){"Read": a.Read, "Write": a.Write} {
		if n, err := do(nil); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Close: got %d, %v, want net.ErrClosed", name, n, err)
		}
	}
}

func TestUnreadBytesEndAKeptPipe(t *testing.T) {
	near, far := pipe.New(new(pipe.Buffers), "near:1", "far:1")
	if _, err := near.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if !far.Ended() {
		t.Error("a byte that nobody has read is no end")
	}
	if _, err := far.Read(make([]byte, 1)); err != nil || far.Ended() {
		t.Errorf("got %v, and ended %t after it was read", err, far.Ended())
	}
}

func TestAnEndKnowsWhetherTheOtherHasEnded(t *testing.T) {
	for name, end := range map[string]func(*pipe.Conn) error{"Close": (*pipe.Conn).Close, "CloseWrite": (*pipe.Conn).CloseWrite} {
		near, far := pipe.New(new(pipe.Buffers), "near:1", "far:1")
		if far.Ended() {
			t.Errorf("%s: ended before", name)
		}
		if err := end(near); err != nil {
			t.Fatal(err)
		}
		if !far.Ended() || near.Ended() {
			t.Errorf("%s: got %t at the other end and %t at this, want true and false", name, far.Ended(), near.Ended())
		}
	}
}

func TestAWriteThatWaitsEndsAKeptPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := newPipe(t)
		go near.Write(make([]byte, capacity+1)) // nothing of it is buffered
		synctest.Wait()
		if !far.Ended() || near.Ended() {
			t.Errorf("got %t at the other end and %t at this, want true and false", far.Ended(), near.Ended())
		}
	})
}

func TestWhatWasReadCountsAsDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPipe(t)
		p := make([]byte, 2*capacity)
		wantDelivered := func(want uint64) {
			t.Helper()
			if got := a.Delivered(); got != want {
				t.Errorf("%d bytes are delivered, want %d", got, want)
			}
		}
		a.Write(make([]byte, 10))
		wantDelivered(0)
		io.ReadFull(b, p[:4]) // what was buffered
		wantDelivered(4)
		io.ReadFull(b, p[:6])
		var wg sync.WaitGroup
		wg.Go(func() { io.ReadFull(b, p[:20]) }) // it waits for the Write
		synctest.Wait()
		a.Write(make([]byte, 20))
		wg.Wait()
		wantDelivered(30)
		wg.Go(func() { a.Write(p) }) // it waits for Reads
		synctest.Wait()
		wantDelivered(30)
		b.Read(p[:100])
		wantDelivered(130)
		b.Close()
		wg.Wait()
		wantDelivered(130)
	})
}

func TestWithdrawTakesBackWhatWasNotRead(t *testing.T) {
	for name, size := range map[string]int{"buffered": 10, "in a Write that waits": 2 * capacity} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newPipe(t)
				b.CloseWrite()
				var wg sync.WaitGroup
				wg.Go(func() { a.Write(make([]byte, size)) })
				synctest.Wait()
				io.ReadFull(b, make([]byte, 4))
				a.Withdraw()
				if got, err := io.ReadAll(b); len(got) > 0 || err != nil {
					t.Errorf("got %d bytes and %v, want nothing more", len(got), err)
				}
				wg.Wait()
				if got := a.Delivered(); got != 4 {
					t.Errorf("%d bytes are delivered, want 4", got)
				}
				if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
					t.Errorf("got %v, want net.ErrClosed", err)
				}
			})
		})
	}
}
