package watt //nolint:testpackage // what the kernel does with listeners does not show from outside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/watt/internal/pipe"
)

const portPatience = 10 * time.Second

// openTestPort opens a port that is closed when the test ends, with acceptors that tell clients which
// listener they got to.
func openTestPort(t *testing.T, n int) *port {
	t.Helper()
	p := openQuietPort(t, n)
	for i := range n {
		acceptFrom(t, p, i)
	}
	return p
}

// openQuietPort opens a port from which nobody accepts.
func openQuietPort(t *testing.T, n int) *port {
	t.Helper()
	p, err := openPort(t.Context(), "tcp", "127.0.0.1:0", n, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.close() })
	return p
}

// acceptFrom accepts connections to listener i until that is closed, and tells each i.
func acceptFrom(t *testing.T, p *port, i int) {
	t.Helper()
	tell(t, p.listener(i), i)
}

func tell(t *testing.T, ln net.Listener, i int) {
	t.Helper()
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte{byte(i)})
			conn.Close()
		}
	})
	t.Cleanup(func() {
		ln.Close()
		done.Wait()
	})
}

// ask makes a connection and returns which listener it got to.
func ask(address string) (int, error) {
	conn, err := net.DialTimeout("tcp", address, portPatience)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return hear(conn)
}

func hear(conn net.Conn) (int, error) {
	conn.SetDeadline(time.Now().Add(portPatience))
	told := make([]byte, 1)
	_, err := io.ReadFull(conn, told)
	return int(told[0]), err
}

// spread makes connections and returns how many each listener got.
func spread(t *testing.T, address string, n int) map[int]int {
	t.Helper()
	got := make(map[int]int)
	for range n {
		i, err := ask(address)
		if err != nil {
			t.Fatal(err)
		}
		got[i]++
	}
	return got
}

// turn weighs listeners so that only these are on.
func turn(t *testing.T, p *port, on ...int) {
	t.Helper()
	for i := range p.sockets {
		if p.sockets[i] == nil {
			continue
		}
		if err := p.weigh(i, slices.Contains(on, i)); err != nil {
			t.Fatal(err)
		}
	}
}

// reached fails the test unless connections get to these listeners and to no others.
func reached(t *testing.T, p *port, want ...int) {
	t.Helper()
	got := spread(t, p.address, 40*len(want))
	for _, i := range want {
		if got[i] == 0 {
			t.Errorf("got connections %v by listener, want some for each of %v", got, want)
		}
		delete(got, i)
	}
	if len(got) > 0 {
		t.Errorf("got connections %v for others than %v", got, want)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !ok(); <-tick.C {
		if time.Since(began) > portPatience {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestConnectionsAreSpreadEvenlyOverListenersThatAreOn(t *testing.T) {
	p := openTestPort(t, 4)
	turn(t, p, 0, 1, 2, 3)
	if !p.steers() {
		t.Fatal("the kernel was not told whom to choose")
	}
	for i, n := range spread(t, p.address, 1000) {
		if n < 170 || n > 330 {
			t.Errorf("listener %d got %d of 1000 connections, want about 250", i, n)
		}
	}
	turn(t, p, 1, 3)
	got := spread(t, p.address, 400)
	if got[0]+got[2] > 0 || got[1] < 120 || got[3] < 120 {
		t.Errorf("got connections %v by listener, want about 200 each for 1 and 3 only", got)
	}
}

func TestEveryChoiceOfListenersIsHonoured(t *testing.T) {
	p := openTestPort(t, 3)
	for _, on := range [][]int{{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}, {0, 1, 2}} {
		turn(t, p, on...)
		reached(t, p, on...)
	}
}

func TestWhileNoListenerIsOnAllGetConnections(t *testing.T) {
	p := openTestPort(t, 3)
	reached(t, p, 0, 1, 2)
	turn(t, p, 2)
	reached(t, p, 2)
	turn(t, p)
	reached(t, p, 0, 1, 2)
}

func TestAConnectionThatWaitsIsCounted(t *testing.T) {
	p := openQuietPort(t, 3)
	turn(t, p, 1)
	for range 7 {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for i, want := range []int{0, 7, 0} {
		eventually(t, "the last handshake", func() bool { n, _ := p.queued(i); return n >= want })
		if got, err := p.queued(i); got != want || err != nil {
			t.Errorf("got %d connections in the queue of listener %d and error %v, want %d", got, i, err, want)
		}
	}
}

func TestNoneOf200QueuedConnectionsIsLostWhenTheirListenerIsRemoved(t *testing.T) {
	p := openQuietPort(t, 4)
	turn(t, p, 1)
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
	turn(t, p, 0, 1, 2, 3)
	removed := make(chan error, 1)
	go func() { removed <- p.remove(t.Context(), 1) }()
	eventually(t, "the removal to begin", func() bool { return p.weigh(1, true) != nil })
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
	turn(t, p, 1)
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
	if h := beginning(p.sockets[1].number()); len(h.begun) != 1 || h.over() {
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
				turn(t, p, left[0])
				reached(t, p, left[0])
				turn(t, p, left[1])
				reached(t, p, left[1])
				i, err := p.grow(t.Context())
				if err != nil || i != min(first, second) {
					t.Fatalf("got new listener %d and error %v, want the lowest free number %d", i, err, min(first, second))
				}
				acceptFrom(t, p, i)
				reached(t, p, left[1]) // the new one is off
				turn(t, p, i, left[0])
				reached(t, p, i, left[0])
			})
		}
	}
}

func TestNothingIsLostWhileListenersComeAndGo(t *testing.T) {
	p := openTestPort(t, 4)
	turn(t, p, 0, 1, 2, 3)
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
			if err := p.weigh(i, true); err != nil {
				t.Error(err)
			}
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

func TestARemovalThatTakesTooLongIsCutShort(t *testing.T) {
	p := openQuietPort(t, 2)
	turn(t, p, 1)
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
	turn(t, p, 1)
	reached(t, p, 1)
	turn(t, p, 2)
	reached(t, p, 2)
}

func TestATakenAddressIsAClearError(t *testing.T) { //nolint:tparallel // beside each other, but not beside other tests
	reusing := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return withFD(c, shareAddress) }}
	tests := []struct {
		name string
		take func(t *testing.T) (address string, end func() error)
	}{
		{"by a plain listener", func(t *testing.T) (string, func() error) {
			t.Helper()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			tell(t, ln, 99)
			return ln.Addr().String(), ln.Close
		}},
		{"by one that shares with its own kind", func(t *testing.T) (string, func() error) {
			t.Helper()
			ln, err := reusing.Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			tell(t, ln, 99)
			return ln.Addr().String(), ln.Close
		}},
		{"by one at all addresses", func(t *testing.T) (string, func() error) {
			t.Helper()
			ln, err := reusing.Listen(t.Context(), "tcp", ":0")
			if err != nil {
				t.Fatal(err)
			}
			tell(t, ln, 99)
			return fmt.Sprintf("127.0.0.1:%d", ln.Addr().(*net.TCPAddr).Port), ln.Close
		}},
		{"by another copy with one listener", func(t *testing.T) (string, func() error) {
			t.Helper()
			p := openQuietPort(t, 1)
			tell(t, p.listener(0), 99)
			return p.address, p.close
		}},
		{"by another copy with three listeners", func(t *testing.T) (string, func() error) {
			t.Helper()
			p := openQuietPort(t, 3)
			for i := range 3 {
				tell(t, p.listener(i), 99)
			}
			return p.address, p.close
		}},
	}
	for _, test := range tests {
		for _, n := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, wanted for %d", test.name, n), func(t *testing.T) {
				t.Parallel() // each waits for a second
				address, end := test.take(t)
				p, err := openPort(t.Context(), "tcp", address, n, nil)
				if err == nil {
					p.close()
					t.Fatal("a taken address was shared")
				}
				if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "address "+address+" is in use by another program") {
					t.Errorf("got error %v, want one that names the address and says that it is taken", err)
				}
				if got := spread(t, address, 50); got[99] != 50 {
					t.Errorf("got connections %v, want all for who was there first", got)
				}
				if err := end(); err != nil {
					t.Error(err)
				}
				p, err = openPort(t.Context(), "tcp", address, n, nil)
				if err != nil {
					t.Fatalf("the address is free again: %v", err)
				}
				p.close()
			})
		}
	}
}

func TestOfManyThatWantAnAddressAtOnceOneGetsIt(t *testing.T) {
	earlier := openQuietPort(t, 1)
	address := earlier.address
	earlier.close()
	winners := make(chan *port, 8)
	var all sync.WaitGroup
	for range cap(winners) {
		all.Go(func() {
			p, err := openPort(t.Context(), "tcp", address, 3, nil)
			if err == nil {
				winners <- p
			} else if !errors.Is(err, syscall.EADDRINUSE) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(winners)
	if len(winners) != 1 {
		t.Errorf("%d got the address, want 1", len(winners))
	}
	for p := range winners {
		if len(p.group) != 3 {
			t.Errorf("got %d listeners, want 3", len(p.group))
		}
		p.close()
	}
}

func TestAnAddressThatBecomesFreeInTimeIsTaken(t *testing.T) {
	earlier := openQuietPort(t, 3)
	freed := time.AfterFunc(200*time.Millisecond, func() { earlier.close() })
	defer freed.Stop()
	p, err := openPort(t.Context(), "tcp", earlier.address, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.close()
}

func TestWaitingForAnAddressEndsWithTheContext(t *testing.T) {
	earlier := openQuietPort(t, 1)
	impatient := errors.New("impatient")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Millisecond, impatient)
	defer cancel()
	began := time.Now()
	p, err := openPort(ctx, "tcp", earlier.address, 1, nil)
	if err == nil {
		p.close()
	}
	if !errors.Is(err, impatient) || time.Since(began) > claimTime {
		t.Errorf("got error %v after %v, want %v soon", err, time.Since(began), impatient)
	}
}

func TestWhoJoinsLaterGetsNothingAndIsNoticed(t *testing.T) {
	p := openTestPort(t, 2)
	reusing := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return withFD(c, shareAddress) }}
	reusing.SetMultipathTCP(false)
	stranger, err := reusing.Listen(t.Context(), "tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	tell(t, stranger, 99)
	reached(t, p, 0, 1)
	if _, err := p.grow(t.Context()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "shared by another program") {
		t.Errorf("got error %v, want that the address is shared by another program", err)
	}
	reached(t, p, 0, 1)
	stranger.Close()
	eventually(t, "room for one more", func() bool { _, err := p.grow(t.Context()); return err == nil })
	acceptFrom(t, p, 2)
	turn(t, p, 2)
	reached(t, p, 2)
}

func TestNobodyCanJoinAListenerThatNeverHadCompany(t *testing.T) {
	p := openTestPort(t, 1)
	if err := p.weigh(0, true); err != nil {
		t.Error(err)
	}
	reusing := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return withFD(c, shareAddress) }}
	if stranger, err := reusing.Listen(t.Context(), "tcp", p.address); err == nil {
		stranger.Close()
		t.Error("a stranger joined")
	}
	reached(t, p, 0)
}

func TestWhoJoinsTheLastListenerGetsNothing(t *testing.T) {
	p := openTestPort(t, 2)
	if err := p.remove(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	reusing := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return withFD(c, shareAddress) }}
	if stranger, err := reusing.Listen(t.Context(), "tcp", p.address); err == nil {
		tell(t, stranger, 99)
	}
	reached(t, p, 1)
}

func TestAllKindsOfAddressesCanBeShared(t *testing.T) {
	tests := []struct {
		network, address string
		hosts            []string // by which it is reached
	}{
		{"tcp", "[::1]:0", []string{"::1"}},
		{"tcp", ":0", []string{"127.0.0.1", "::1"}},
		{"tcp", "localhost:0", []string{"localhost"}},
		{"tcp4", ":0", []string{"127.0.0.1"}},
		{"tcp4", "127.0.0.2:0", []string{"127.0.0.2"}},
		{"tcp6", ":0", []string{"::1"}},
	}
	for _, test := range tests {
		t.Run(test.network+" "+test.address, func(t *testing.T) {
			p, err := openPort(t.Context(), test.network, test.address, 3, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer p.close()
			_, number, _ := net.SplitHostPort(p.address)
			for i := range 3 {
				acceptFrom(t, p, i)
				if got := p.listener(i).Addr().String(); got != p.address {
					t.Errorf("listener %d is at %s, want %s", i, got, p.address)
				}
			}
			turn(t, p, 0, 2)
			for _, host := range test.hosts {
				got := spread(t, net.JoinHostPort(host, number), 60)
				if got[0] == 0 || got[1] != 0 || got[2] == 0 {
					t.Errorf("got connections %v to %s, want some for 0 and 2 and none for 1", got, host)
				}
			}
			if err := p.remove(t.Context(), 0); err != nil {
				t.Error(err)
			}
			for _, host := range test.hosts {
				if got := spread(t, net.JoinHostPort(host, number), 20); got[2] != 20 {
					t.Errorf("got connections %v to %s, want all for 2", got, host)
				}
			}
		})
	}
}

func TestWhereTheKernelRefusesAllListenersGetConnections(t *testing.T) {
	p := openTestPort(t, 3)
	turn(t, p, 1)
	reached(t, p, 1)
	// A program for so many listeners is longer than the kernel takes.
	many := &port{address: p.address, sockets: p.sockets, group: slices.Repeat(p.group, 3000)}
	if err := many.weigh(0, true); err != nil {
		t.Errorf("got error %v, want none", err)
	}
	if many.steers() {
		t.Error("the port is said to be steered, want that it is not")
	}
	reached(t, p, 0, 1, 2)
	turn(t, p, 2)
	if !p.steers() {
		t.Error("the port is said not to be steered, want that it is again")
	}
	reached(t, p, 2)
}

func TestAListenerOfTheUsersIsEverybodys(t *testing.T) {
	calls := 0
	p, err := openPort(t.Context(), "tcp", "127.0.0.1:0", 2, func(_ context.Context, network, address string) (net.Listener, error) {
		calls++
		return net.Listen(network, address)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if i, err := p.grow(t.Context()); i != 2 || err != nil {
		t.Errorf("got number %d and error %v, want 2", i, err)
	}
	if err := errors.Join(p.weigh(1, true), p.remove(t.Context(), 0), p.weigh(1, false)); err != nil {
		t.Error(err)
	}
	if p.listener(0) != nil || p.listener(1) == nil || p.listener(1) != p.listener(2) || calls != 1 {
		t.Errorf("got listeners %v, %v, %v of %d calls, want none and twice the same of one",
			p.listener(0), p.listener(1), p.listener(2), calls)
	}
	acceptFrom(t, p, 1)
	reached(t, p, 1)
}

func TestAListenerThatIsNoTCPIsRefused(t *testing.T) {
	ln := pipe.Listen(new(pipe.Buffers), "a:1")
	p, err := openPort(t.Context(), "tcp", "a:1", 2, func(context.Context, string, string) (net.Listener, error) { return ln, nil })
	if err == nil {
		p.close()
		t.Fatal("a listener in memory was taken")
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got error %v from the refused listener, want that it was closed", err)
	}
}

func TestAWrongAddressIsAnErrorAtOnce(t *testing.T) {
	for _, address := range []string{"nonsense", "127.0.0.1:http-or-so", "192.0.2.1:0"} {
		began := time.Now()
		if p, err := openPort(t.Context(), "tcp", address, 2, nil); err == nil {
			p.close()
			t.Errorf("%s was opened", address)
		}
		if took := time.Since(began); took > claimTime {
			t.Errorf("it took %v to refuse %s", took, address)
		}
	}
}

func TestAClosedPortRefusesEverything(t *testing.T) {
	p := openTestPort(t, 2)
	ln := p.listener(1)
	for range 2 {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}
	_, growth := p.grow(t.Context())
	_, queue := p.queued(0)
	_, accept := ln.Accept()
	for what, err := range map[string]error{
		"grow": growth, "queued": queue, "weigh": p.weigh(0, true), "remove": p.remove(t.Context(), 0), "Accept": accept,
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("got error %v from %s, want %v", err, what, net.ErrClosed)
		}
	}
	if got := p.listener(0); got != nil {
		t.Errorf("got listener %v, want none", got)
	}
	if i, err := ask(p.address); err == nil {
		t.Errorf("listener %d still answers", i)
	}
}

func TestNoDescriptorIsLeftOfAPort(t *testing.T) {
	// Other tests' descriptors come and go, so only sockets at these ports count.
	var inodes []string
	for range 20 {
		p, err := openPort(t.Context(), "tcp", "127.0.0.1:0", 3, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.grow(t.Context()); err != nil {
			t.Error(err)
		}
		for _, s := range p.group {
			inode, err := s.inode()
			if err != nil {
				t.Error(err)
			}
			inodes = append(inodes, fmt.Sprintf("socket:[%d]", inode))
		}
		if err := p.remove(t.Context(), 1); err != nil {
			t.Error(err)
		}
		p.close()
	}
	for fd := range 4096 {
		if name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil && slices.Contains(inodes, name) {
			t.Errorf("descriptor %d of %s is left", fd, name)
		}
	}
	if len(inodes) != 80 {
		t.Errorf("got %d listeners, want 80", len(inodes))
	}
}

func TestWhatTheKernelRefusesToTellIsUnknown(t *testing.T) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const noFamily = 200
	if err := unix.Sendto(fd, askForSockets(noFamily, 1, listening), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	if found, err := receiveSockets(fd); err == nil {
		t.Errorf("got sockets %v of a family that does not exist, want an error", found)
	}
	if got := parseSocket(make([]byte, 10)); got != nil {
		t.Errorf("got sockets %v from half a message, want none", got)
	}
	if (&handshakes{unknown: true}).over() {
		t.Error("handshakes of which nothing is known are said to be over")
	}
	if !(&handshakes{}).over() {
		t.Error("no handshakes are said to be in progress")
	}
}
