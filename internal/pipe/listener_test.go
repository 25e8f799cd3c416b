package pipe_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/pipe"
)

const backlog = 128

func newListener(tb testing.TB) *pipe.Listener {
	tb.Helper()
	l := pipe.Listen(new(pipe.Buffers), "callee:80")
	tb.Cleanup(func() { l.Close() })
	return l
}

func dial(tb testing.TB, l *pipe.Listener) *pipe.Conn {
	tb.Helper()
	c, err := l.Dial(tb.Context(), "caller:1", nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

func accept(tb testing.TB, l *pipe.Listener) net.Conn {
	tb.Helper()
	c, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

func TestDialDoesNotWaitForAccept(t *testing.T) {
	l := newListener(t)
	first, second := dial(t, l), dial(t, l)
	first.Write([]byte("1"))
	second.Write([]byte("2"))
	for _, want := range []string{"1", "2"} {
		p := make([]byte, 1)
		if _, err := accept(t, l).Read(p); err != nil || string(p) != want {
			t.Errorf("got %q, %v, want %q", p, err, want)
		}
	}
	if got := first.RemoteAddr(); got != l.Addr() {
		t.Errorf("got remote address %v, want %v", got, l.Addr())
	}
}

func TestOnlyTheCalleeCanReadTheCaller(t *testing.T) {
	l := newListener(t)
	c, err := l.Dial(t.Context(), "caller:1", "me")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.Caller(); got != nil {
		t.Errorf("the caller got %v, want nil", got)
	}
	if got := accept(t, l).(*pipe.Conn).Caller(); got != "me" {
		t.Errorf("the callee got %v, want me", got)
	}
}

func TestDialWaitsInAFullBacklogUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t)
		for range backlog {
			dial(t, l)
		}
		cause := errors.New("the caller lost interest")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, cause)
		defer cancel()
		start := time.Now()
		_, err := l.Dial(ctx, "caller:1", nil)
		opError(t, err, "dial")
		if got := time.Since(start); !errors.Is(err, cause) || got != 5*time.Second {
			t.Errorf("got %v after %v, want the cause after 5s", err, got)
		}
	})
}

func TestDialFailsIfItsContextHasEnded(t *testing.T) {
	l := newListener(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // not only when the select happens to pick it
		if _, err := l.Dial(ctx, "caller:1", nil); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
	}
}

func TestAcceptMakesRoomInAFullBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t)
		for range backlog {
			dial(t, l)
		}
		var wg sync.WaitGroup
		wg.Go(func() { dial(t, l) })
		synctest.Wait()
		accept(t, l)
		wg.Wait()
	})
}

// closing is a connection that closes a listener as soon as that asks for it.
type closing struct {
	net.Conn
	l *pipe.Listener
}

func (c *closing) Gone() bool {
	c.l.Close()
	return false
}

func TestNobodyIsForgottenInAListenerThatIsClosedWhileItLooksForRoom(t *testing.T) {
	for range 10 { // who comes then finds room, or hears that it is closed: it may be either
		l := newListener(t)
		here, there := net.Pipe()
		for i := range backlog {
			if i == 0 {
				l.Deliver(t.Context(), &closing{there, l})
				continue
			}
			dial(t, l)
		}
		l.Dial(t.Context(), "caller:1", nil)
		here.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := here.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("got %v from a connection that nobody has accepted, want EOF", err)
		}
	}
}

func TestAClosedListenerRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t)
		for range backlog {
			dial(t, l)
		}
		refused := func() {
			_, err := l.Dial(t.Context(), "caller:1", nil)
			opError(t, err, "dial")
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("got %v, want ECONNREFUSED", err)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			// The backlog that Close empties may still take it: then it has a closed connection.
			if c, err := l.Dial(t.Context(), "caller:1", nil); err == nil {
				c.Read(make([]byte, 1))
			} else if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("got %v from a Dial that waited, want ECONNREFUSED", err)
			}
		})
		synctest.Wait()
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Errorf("got %v, want nil, the second time too", err)
		}
		wg.Wait()
		refused()
		a, _ := newPipe(t)
		if err := l.Deliver(t.Context(), a); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Deliver: got %v, want ECONNREFUSED", err)
		}
	})
}

func TestAcceptEndsWhenTheListenerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t)
		var wg sync.WaitGroup
		closed := func() {
			_, err := l.Accept()
			opError(t, err, "accept")
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v, want net.ErrClosed", err)
			}
		}
		wg.Go(closed)
		synctest.Wait()
		l.Close()
		wg.Wait()
		closed()
	})
}

func TestCloseHangsUpOnThoseWhoWereNotAccepted(t *testing.T) {
	l := newListener(t)
	c := dial(t, l)
	l.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("Read: got %v, want EOF", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write: got %v, want EPIPE", err)
	}
}

// closingContext closes the listener when Dial is past its checks and about to queue the connection.
type closingContext struct {
	context.Context

	l *pipe.Listener
}

func (c closingContext) Done() <-chan struct{} {
	c.l.Close()
	return c.Context.Done()
}

func TestADialOvertakenByCloseIsRefusedOrHungUpOn(t *testing.T) {
	refused, hungUp := 0, 0
	for refused == 0 || hungUp == 0 { // the select picks one
		l := newListener(t)
		c, err := l.Dial(closingContext{t.Context(), l}, "caller:1", nil)
		if err != nil {
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatalf("got %v, want ECONNREFUSED", err)
			}
			refused++
			continue
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("got %v, want EOF", err)
		}
		hungUp++
	}
}

// A connection that is lost leaves its Read blocked for good, which the bubble reports.
func TestADialThatRacesCloseIsNeverLost(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			l := pipe.Listen(new(pipe.Buffers), "callee:80")
			for range 2 {
				go func() {
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						c.Close()
					}
				}()
			}
			for range 8 {
				go func() {
					for {
						c, err := l.Dial(t.Context(), "caller:1", nil)
						if err != nil {
							return
						}
						c.Read(make([]byte, 1))
						c.Close()
					}
				}()
			}
			go l.Close()
		})
	}
}

func TestAcceptingTellsThatSomebodyServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t)
		dial(t, l)
		select {
		case <-l.Accepting():
			t.Error("nobody has called Accept")
		default:
		}
		accept(t, l)
		accepted := make(chan struct{})
		go func() { defer close(accepted); l.Accept() }()
		<-l.Accepting()
		l.Close()
		<-accepted
	})
}

func TestADeliveredConnectionIsAccepted(t *testing.T) {
	l := newListener(t)
	a, b := net.Pipe()
	defer a.Close()
	if err := l.Deliver(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := accept(t, l); got != b {
		t.Errorf("got %v, want the connection delivered", got)
	}
}

func TestWhatNobodyWaitsForTakesNoPlaceInTheBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t)
		said, open := dial(t, l), dial(t, l)
		said.Write([]byte("read me"))
		said.Close()
		for range backlog - 2 {
			dial(t, l).Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		late, err := l.Dial(ctx, "caller:late", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer late.Close()
		if got, err := io.ReadAll(accept(t, l)); string(got) != "read me" || err != nil {
			t.Errorf("got %q, %v from the first, which has closed", got, err)
		}
		for _, want := range []*pipe.Conn{open, late} {
			if got := accept(t, l).RemoteAddr(); got != want.LocalAddr() {
				t.Errorf("accepted the connection of %v, want that of %v", got, want.LocalAddr())
			}
		}
	})
}
