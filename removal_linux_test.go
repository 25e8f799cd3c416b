package watt //nolint:testpackage // what the kernel does with listeners does not show from outside

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"
)

func TestNoneOf200QueuedConnectionsIsLostWhenTheirListenerIsRemoved(t *testing.T) {
	p := openQuietPort(t, 4)
	turn(p, 1)
	var waiting []net.Conn
	for range 200 {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		waiting = append(waiting, conn)
	}
	eventually(t, "200 connections in the queue", func() bool { n, _ := p.queued(1); return n == 200 })
	turn(p, 0, 1, 2, 3)
	removed := make(chan error, 1)
	go func() { removed <- p.remove(t.Context(), 1) }()
	eventually(t, "the removal to begin", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.sockets[1].leaving
	})
	p.weigh(1, true) // which has no effect any more
	for i := range 4 {
		acceptFrom(t, p, i)
	}
	for k, conn := range waiting {
		if i, err := hear(conn); err != nil || i != 1 {
			t.Fatalf("connection %d got an answer from %d and error %v, want one from 1", k, i, err)
		}
	}
	if err := <-removed; err != nil {
		t.Error(err)
	}
	reached(t, p, 0, 2, 3)
}

func TestAConnectionWhoseHandshakeHadBegunSurvivesTheRemoval(t *testing.T) {
	p := openTestPort(t, 2)
	turn(p, 1)
	// The kernel now ends a handshake only when data has come.
	if err := p.sockets[1].control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30)
	}); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if h := (&handshakes{asking: new(asking), port: p.sockets[1].number(), since: time.Now()}); h.over() || len(h.begun) != 1 {
		t.Fatalf("got %d handshakes in progress, want 1", len(h.begun))
	}
	removed := make(chan error, 1)
	go func() { removed <- p.remove(t.Context(), 1) }()
	select {
	case err := <-removed:
		t.Fatalf("the listener was removed in the middle of a handshake, with error %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	conn.Write([]byte("hello"))
	if i, err := hear(conn); err != nil || i != 1 {
		t.Errorf("got an answer from %d and error %v, want one from 1", i, err)
	}
	if err := <-removed; err != nil {
		t.Error(err)
	}
}

func TestWaitingForAHandshakeTakesLittleOfAProcessorHoweverManyAreRemoved(t *testing.T) {
	const n = 16
	p := openTestPort(t, n+1)
	turn(p, n)
	deferred := func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30) }
	if err := p.sockets[n].control(deferred); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	turn(p, 0)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	before := processTime(t)
	var removals sync.WaitGroup
	for i := range n {
		removals.Go(func() {
			if err := p.remove(ctx, i+1); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want that the handshake goes on", err)
			}
		})
	}
	removals.Wait()
	if took := processTime(t) - before; took > 500*time.Millisecond {
		t.Errorf("it took %v of a second", took)
	}
}

// processTime returns how long this process has had processors.
func processTime(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func TestAfterEachRemovalTheRightListenersAreChosen(t *testing.T) {
	for first := range 4 {
		for second := range 4 {
			if first == second {
				continue
			}
			t.Run(fmt.Sprintf("%d then %d", first, second), func(t *testing.T) {
				p := openTestPort(t, 4)
				for _, i := range []int{first, second} {
					if err := p.remove(t.Context(), i); err != nil {
						t.Fatal(err)
					}
				}
				var left []int
				for i := range 4 {
					if i != first && i != second {
						left = append(left, i)
					}
				}
				turn(p, left[0])
				reached(t, p, left[0])
				turn(p, left[1])
				reached(t, p, left[1])
				i, err := p.grow(t.Context())
				if err != nil || i != min(first, second) {
					t.Fatalf("got new listener %d and error %v, want the lowest free number %d", i, err, min(first, second))
				}
				acceptFrom(t, p, i)
				reached(t, p, left[1]) // the new one is off
				turn(p, i, left[0])
				reached(t, p, i, left[0])
			})
		}
	}
}

func TestNothingIsLostWhileListenersComeAndGo(t *testing.T) {
	p := openTestPort(t, 4)
	turn(p, 0, 1, 2, 3)
	var asked atomic.Int64
	var clients sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if _, err := ask(p.address); err != nil {
					t.Errorf("after %d connections: %v", asked.Load(), err)
					return
				}
				asked.Add(1)
			}
		})
	}
	for round := range 15 {
		var removals sync.WaitGroup
		for k := range 3 { // all but one at once
			removals.Go(func() {
				if err := p.remove(t.Context(), (round+k)%4); err != nil {
					t.Error(err)
				}
			})
		}
		removals.Wait()
		for range 3 {
			i, err := p.grow(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			acceptFrom(t, p, i)
			p.weigh(i, true)
		}
	}
	stop()
	clients.Wait()
	if asked.Load() < 100 {
		t.Errorf("only %d connections were made meanwhile", asked.Load())
	}
}

func TestTheLastListenerCannotBeRemoved(t *testing.T) {
	p := openTestPort(t, 2)
	if err := p.remove(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := p.remove(t.Context(), 1); err == nil {
		t.Error("the last listener was removed")
	}
	reached(t, p, 1)
	if err := p.remove(t.Context(), 0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got error %v from the second removal, want %v", err, net.ErrClosed)
	}
}

func TestAListenerThatMayHaveGotAStrayIsDrainedOnceMore(t *testing.T) {
	p := openTestPort(t, 3)
	turn(p, 2)
	first, err := p.leave(0)
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.leave(1)
	if err != nil {
		t.Fatal(err)
	}
	before := p.strayed()
	if dropped, err := p.drop(0, first, before, nil); !dropped || err != nil { // the only one that is on takes its place
		t.Fatalf("got %t, %v, want that it is closed", dropped, err)
	}
	if dropped, err := p.drop(1, second, before, nil); dropped || err != nil {
		t.Errorf("got %t, %v, want that it is drained once more", dropped, err)
	}
	if dropped, err := p.drop(1, second, p.strayed(), nil); !dropped || err != nil {
		t.Errorf("got %t, %v, want that it is closed", dropped, err)
	}
	reached(t, p, 2)
}

func TestARemovalThatTakesTooLongIsCutShort(t *testing.T) {
	p := openQuietPort(t, 2)
	turn(p, 1)
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "a connection in the queue", func() bool { n, _ := p.queued(1); return n == 1 })
	impatient := errors.New("impatient")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, impatient)
	defer cancel()
	if err := p.remove(ctx, 1); !errors.Is(err, impatient) {
		t.Errorf("got error %v, want %v", err, impatient)
	}
	if _, err := hear(conn); err == nil {
		t.Error("a connection of a listener that is gone was answered")
	}
	acceptFrom(t, p, 0)
	reached(t, p, 0)
}

// TestAListenerIsDeafBeforeItIsClosed: for some tens of nanoseconds the kernel can still give it a connection, which would be
// reset: one in some 100,000 removals under full load, too few to wait for.
func TestAListenerIsDeafBeforeItIsClosed(t *testing.T) {
	p := openTestPort(t, 2)
	kept, err := p.listener(1).File()
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	hasFilter := func() bool {
		n, err := unix.GetsockoptInt(int(kept.Fd()), unix.SOL_SOCKET, unix.SO_GET_FILTER)
		return n > 0 || errors.Is(err, unix.EINVAL) // it is longer than an int
	}
	if hasFilter() {
		t.Error("it hears nobody although it is open")
	}
	if err := p.remove(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if !hasFilter() {
		t.Error("it was closed while it could still be given connections")
	}
}

func TestAListenerThatAnotherProcessHasTooIsRemovedForBoth(t *testing.T) {
	p := openTestPort(t, 3)
	theirs, err := p.listener(0).File() // a child would have one
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	copied, err := net.FileListener(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	ended := make(chan error, 1)
	go func() {
		for {
			conn, err := copied.Accept()
			if err != nil {
				ended <- err
				return
			}
			conn.Close()
		}
	}()
	if err := p.remove(t.Context(), 0); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(portPatience):
		t.Error("Accept goes on in another process, want an error")
	}
	turn(p, 1)
	reached(t, p, 1)
	turn(p, 2)
	reached(t, p, 2)
}

func TestAcceptingEndsWithoutAWordWhenTheListenerIsRemoved(t *testing.T) {
	p := openQuietPort(t, 1)
	core, logs := observer.New(zapcore.WarnLevel)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		acceptAll(p.listener(0), t.Context().Done(), zap.New(core), func(net.Conn) {})
	}()
	shut := func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RD) } // comes a moment before it is closed
	if err := p.sockets[0].control(shut); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return closed(ended) })
	if logs.Len() > 0 {
		t.Errorf("got %v", logs.All())
	}
}
