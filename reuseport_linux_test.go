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
	"sync"
	"testing"
	"time"

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
	p, err := openPort(t.Context(), "127.0.0.1:0", n, nil)
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
func turn(p *port, on ...int) {
	for i := range p.sockets {
		p.weigh(i, slices.Contains(on, i))
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
	turn(p, 0, 1, 2, 3)
	if !p.steers() {
		t.Fatal("the kernel was not told whom to choose")
	}
	for i, n := range spread(t, p.address, 1000) {
		if n < 170 || n > 330 {
			t.Errorf("listener %d got %d of 1000 connections, want about 250", i, n)
		}
	}
	turn(p, 1, 3)
	got := spread(t, p.address, 400)
	if got[0]+got[2] > 0 || got[1] < 120 || got[3] < 120 {
		t.Errorf("got connections %v by listener, want about 200 each for 1 and 3 only", got)
	}
}

func TestEveryChoiceOfListenersIsHonoured(t *testing.T) {
	p := openTestPort(t, 3)
	for _, on := range [][]int{{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}, {0, 1, 2}} {
		turn(p, on...)
		reached(t, p, on...)
	}
}

func TestWhileNoListenerIsOnAllGetConnections(t *testing.T) {
	p := openTestPort(t, 3)
	reached(t, p, 0, 1, 2)
	turn(p, 2)
	reached(t, p, 2)
	turn(p)
	reached(t, p, 0, 1, 2)
}

func TestAConnectionThatWaitsIsCounted(t *testing.T) {
	p := openQuietPort(t, 3)
	turn(p, 1)
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

func TestWhereTheKernelRefusesAllListenersGetConnections(t *testing.T) {
	p := openTestPort(t, 3)
	turn(p, 1)
	reached(t, p, 1)
	// A program for so many listeners is longer than the kernel takes.
	many := &port{address: p.address, sockets: p.sockets, group: slices.Repeat(p.group, 3000)}
	many.weigh(0, true)
	if many.steers() {
		t.Error("the port is said to be steered, want that it is not")
	}
	reached(t, p, 0, 1, 2)
	turn(p, 2)
	if !p.steers() {
		t.Error("the port is said not to be steered, want that it is again")
	}
	reached(t, p, 2)
}

func TestAListenerOfTheUsersIsEverybodys(t *testing.T) {
	calls := 0
	p, err := openPort(t.Context(), "127.0.0.1:0", 2, func(_ context.Context, network, address string) (net.Listener, error) {
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
	p.weigh(1, true)
	if err := p.remove(t.Context(), 0); err != nil {
		t.Error(err)
	}
	p.weigh(1, false)
	if p.listener(0) != nil || p.listener(1) == nil || p.listener(1) != p.listener(2) || calls != 1 {
		t.Errorf("got listeners %v, %v, %v of %d calls, want none and twice the same of one",
			p.listener(0), p.listener(1), p.listener(2), calls)
	}
	acceptFrom(t, p, 1)
	reached(t, p, 1)
}

func TestAListenerThatIsNoTCPIsRefused(t *testing.T) {
	ln := pipe.Listen(new(pipe.Buffers), "a:1")
	p, err := openPort(t.Context(), "a:1", 2, func(context.Context, string, string) (net.Listener, error) { return ln, nil })
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
		if p, err := openPort(t.Context(), address, 2, nil); err == nil {
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
	p.weigh(0, true)
	_, growth := p.grow(t.Context())
	_, queue := p.queued(0)
	_, accept := ln.Accept()
	for what, err := range map[string]error{
		"grow": growth, "queued": queue, "remove": p.remove(t.Context(), 0), "Accept": accept,
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

func TestAPortWhoseListenerSomebodyHasClosedDoesNotGrow(t *testing.T) {
	p := openTestPort(t, 1)
	p.listener(0).Close()
	if i, err := p.grow(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got number %d and error %v, want %v", i, err, net.ErrClosed)
	}
}

func TestNoDescriptorIsLeftOfAPort(t *testing.T) {
	// Other tests' descriptors come and go, so only sockets at these ports count.
	var inodes []string
	for range 20 {
		p, err := openPort(t.Context(), "127.0.0.1:0", 3, nil)
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

func TestHandshakesOfWhichNothingIsKnownAreNotOver(t *testing.T) {
	if (&handshakes{unknown: true}).over() {
		t.Error("handshakes of which nothing is known are said to be over")
	}
	if !(&handshakes{begun: make(map[string]bool)}).over() {
		t.Error("no handshakes are said to be in progress")
	}
}

// steers reports whether weigh has an effect: there were ever two listeners, and the kernel lets itself
// be told.
func (p *port) steers() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.steered
}

func TestThePortIsNotOpenedForAnInstanceThatHasEnded(t *testing.T) {
	p := openTestPort(t, 2)
	turn(p, 1)
	a := &app{rt: new(Runtime), change: make(chan struct{})}
	a.config.Store(&App{Name: "a"})
	f := &frontage{place: &processes{sums: sums{app: a}}, port: p, vacant: new(vacancy), standIns: make(map[*net.TCPListener]*standIn)}
	f.place.public, f.vacant.place = f, f.place
	f.ctx, f.cancel = context.WithCancel(t.Context())
	t.Cleanup(func() {
		f.cancel()
		p.close()
		f.accepting.Wait()
	})
	o := &own{place: f.place, process: started(t), gone: make(chan struct{}), begunBy: a.terms()}
	o.process.Kill(nil)
	o.awaitEnd()
	o.open(nil) // its supervisor has only just heard that it was ready
	if p.chosen(0) {
		t.Error("connections get to one that has ended")
	}
}
