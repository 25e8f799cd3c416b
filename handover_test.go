//go:build linux

package watt_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// dialPair dials until the connection is one of that instance of a pair.
func dialPair(t *testing.T, top *watttest.Topology, instance string) net.Conn {
	t.Helper()
	for {
		conn := dialTCP(t, strings.TrimPrefix(top.URL("pair"), "http://"))
		if words(t, conn, "/who")[1] == instance {
			return conn
		}
	}
}

// reading makes an instance read a request whose body does not end until the connection is sent a byte.
func reading(t *testing.T, conn net.Conn) {
	t.Helper()
	fmt.Fprint(conn, "POST /read HTTP/1.1\r\nHost: pair\r\nContent-Length: 1\r\n\r\n")
}

// answered returns the words of the answer on conn.
func answered(t *testing.T, conn net.Conn) []string {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	return append(strings.Fields(read(t, resp, err)), "", "")
}

// busyPair returns a pair of which both read a body, on the first two connections, and another connection to the first.
// until waits for so many to work and to wait in it.
func busyPair(t *testing.T) (rt *watt.Runtime, until func(busy, queued int), first, second, third net.Conn) {
	t.Helper()
	rt = pair()
	top := watttest.Start(t, rt)
	until = func(busy, queued int) {
		t.Helper()
		soon(t, fmt.Sprintf("%d to be busy, and %d to wait", busy, queued), func() bool {
			s := statusOf(t, rt, "pair")
			return s.Busy == busy && s.Queued == queued
		})
	}
	first, second, third = dialPair(t, top, "0"), dialPair(t, top, "1"), dialPair(t, top, "0")
	reading(t, first)
	until(1, 0)
	reading(t, second)
	until(2, 0)
	return rt, until, first, second, third
}

func TestARequestThatWaitsMovesToTheFirstSiblingThatIsIdle(t *testing.T) {
	rt, until, first, second, waiting := busyPair(t)
	fmt.Fprint(waiting, "GET /who HTTP/1.1\r\nHost: pair\r\n\r\n")
	until(2, 1)
	fmt.Fprint(second, "x")
	if got := answered(t, second); got[1] != "1" {
		t.Errorf("got %q, want instance 1", got)
	}
	if got := answered(t, waiting); got[1] != "1" {
		t.Errorf("got %q, want the instance that has become idle", got)
	}
	fmt.Fprint(first, "x")
	if got := answered(t, first); got[1] != "0" {
		t.Errorf("got %q, want instance 0", got)
	}
	soon(t, "the counts", func() bool { s := statusOf(t, rt, "pair"); return s.Gone == 0 && s.QueueFull == 0 && s.Busy == 0 })
}

// crowd keeps asking the first instance of a pair, with more than it can do at a time and bodies of that size, until
// stop is closed. It returns how many were answered, and the statuses of the others.
func crowd(t *testing.T, top *watttest.Topology, size int, stop <-chan struct{}) func() (answered int, failed []int) {
	t.Helper()
	var (
		clients sync.WaitGroup
		mu      sync.Mutex
		good    int
		bad     []int
	)
	conns := make([]net.Conn, 4)
	for i := range conns { // before there is work, since who is asked may not be who answers then
		conns[i] = dialPair(t, top, "0")
	}
	for _, conn := range conns {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				status := readBody(conn, size)
				mu.Lock()
				if status == http.StatusOK {
					good++
				} else {
					bad = append(bad, status)
				}
				mu.Unlock()
				if status == 0 { // the connection has ended
					return
				}
			}
		})
	}
	return func() (int, []int) {
		clients.Wait()
		return good, bad
	}
}

// readBody has an instance read a body and returns the status, 0 if there is none.
func readBody(conn net.Conn, size int) int {
	fmt.Fprintf(conn, "POST /read HTTP/1.1\r\nHost: pair\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0
	}
	return resp.StatusCode
}

func TestASiblingThatDiesFailsOnlyWhatItHasBegun(t *testing.T) {
	rt := pair()
	top := watttest.Start(t, rt)
	stop := make(chan struct{})
	end := crowd(t, top, 1, stop)
	const kills = 5
	for range kills {
		var victim watt.InstanceStatus
		soon(t, "the sibling", func() bool {
			victim = statusOf(t, rt, "pair").PerInstance[1]
			return victim.State == "ready" && time.Since(victim.Since) > 50*time.Millisecond
		})
		syscall.Kill(victim.PID, syscall.SIGKILL)
		soon(t, "its end", func() bool { return statusOf(t, rt, "pair").PerInstance[1].PID != victim.PID })
	}
	close(stop)
	answered, failed := end()
	if answered < 100 || len(failed) > kills { // one worker each
		t.Errorf("got %d answers and failures %v", answered, failed)
	}
}

func TestASiblingThatDiesBeforeItHasBegunLosesNothing(t *testing.T) {
	for name, rest := range map[string]string{
		"none": "", "a body": "Content-Length: 1\r\n\r\nx", "a long one": "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000),
		"one that its client keeps until it is asked": "Expect: 100-continue\r\nContent-Length: 1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			rt := pair()
			top := watttest.Start(t, rt)
			busy, two := dialPair(t, top, "0"), []net.Conn{dialPair(t, top, "0"), dialPair(t, top, "0")}
			sibling := statusOf(t, rt, "pair").PerInstance[1].PID
			soon(t, "both to be idle", func() bool { return statusOf(t, rt, "pair").Busy == 0 })
			stop(t, sibling)
			reading(t, busy)
			soon(t, "the first to be busy", func() bool { return statusOf(t, rt, "pair").Busy == 1 })
			for _, conn := range two {
				fmt.Fprintf(conn, "POST /who HTTP/1.1\r\nHost: pair\r\n%s", cmp.Or(rest, "\r\n"))
			}
			soon(t, "one to wait, and the other to be handed over", func() bool { return statusOf(t, rt, "pair").Queued == 1 })
			syscall.Kill(sibling, syscall.SIGKILL)
			soon(t, "its end", func() bool { return statusOf(t, rt, "pair").PerInstance[1].PID != sibling })
			fmt.Fprint(busy, "x")
			answered(t, busy)
			for _, conn := range two {
				if got := answered(t, conn); got[1] != "0" && got[1] != "1" {
					t.Errorf("got %q, want the answer of an instance", got)
				}
			}
		})
	}
}

func TestWhatASiblingHasBegunWhenItDiesIsNotServedAgain(t *testing.T) {
	for name, header := range map[string]string{
		"it says when it begins": "", "its handler would ask for the body": "Expect: 100-continue\r\nContent-Length: 1\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			rt := pair()
			_, busy, conns := busyFirst(t, rt, 2)
			sibling := statusOf(t, rt, "pair").PerInstance[1].PID
			fmt.Fprintf(conns[0], "POST /hold HTTP/1.1\r\nHost: pair\r\n%s\r\n", header)
			soon(t, "the sibling's handler to be called", func() bool { return statusOf(t, rt, "gate").Busy == 1 })
			syscall.Kill(sibling, syscall.SIGKILL)
			resp, err := http.ReadResponse(bufio.NewReader(conns[0]), nil)
			if err != nil {
				t.Fatal(err)
			}
			if body := read(t, resp, nil); resp.StatusCode != http.StatusBadGateway {
				t.Errorf("got %s, %s", resp.Status, body)
			}
			soon(t, "the next", func() bool {
				second := statusOf(t, rt, "pair").PerInstance[1]
				return second.PID != sibling && second.State == "ready"
			})
			if got := words(t, conns[1], "/who"); got[1] != "1" {
				t.Errorf("got %q, want that the next has it", got)
			}
			fmt.Fprint(busy, "x")
			answered(t, busy)
		})
	}
}

func TestACallThatASiblingHasBegunWhenItDiesFailsAsOneThatItWasSent(t *testing.T) {
	for name, body := range map[string]io.Reader{"carried": http.NoBody, "over a connection": io.LimitReader(strings.NewReader("word"), 4)} {
		t.Run(name, func(t *testing.T) {
			rt := pair()
			top := watttest.Start(t, rt)
			first, second, last := dialPair(t, top, "0"), dialPair(t, top, "1"), dialPair(t, top, "1")
			sibling := statusOf(t, rt, "pair").PerInstance[1].PID
			reading(t, first)
			soon(t, "the first to be busy", busyAndQueued(t, rt, 1, 0))
			reading(t, second)
			soon(t, "both to be busy", busyAndQueued(t, rt, 2, 0))
			fmt.Fprint(last, "GET /who HTTP/1.1\r\nHost: pair\r\n\r\n")
			soon(t, "the second to have more to do", busyAndQueued(t, rt, 2, 1))
			failed := make(chan error, 1)
			go func() {
				resp, err := rt.Env().Client.Do(request(t.Context(), http.MethodPost, "http://pair.watt.local/hold", body))
				if err == nil {
					resp.Body.Close()
					err = errors.New(resp.Status)
				}
				failed <- err
			}()
			soon(t, "the call to wait at the first", busyAndQueued(t, rt, 2, 2))
			fmt.Fprint(second, "x")
			soon(t, "the sibling's handler to be called", func() bool { return statusOf(t, rt, "gate").Busy == 1 })
			syscall.Kill(sibling, syscall.SIGKILL)
			err := within(t, failed, "the call's end")
			if call, is := errors.AsType[*watt.CallError](err); !is || !call.Started || !errors.Is(err, watt.ErrInstanceDied) {
				t.Errorf("got %v, want %v", err, watt.ErrInstanceDied)
			}
			soon(t, "its end to be known", func() bool { return statusOf(t, rt, "pair").PerInstance[1].PID != sibling })
			fmt.Fprint(first, "x")
			answered(t, first)
		})
	}
}

func TestASiblingThatDoesNotRunIsHandedNoMoreThanItHasWorkers(t *testing.T) {
	rt := holders(func(a *watt.App) { a.QueueTimeout = 300 * time.Millisecond })
	top := watttest.Start(t, rt)
	busy, two := dialPair(t, top, "0"), []net.Conn{dialPair(t, top, "0"), dialPair(t, top, "0")}
	sibling := statusOf(t, rt, "pair").PerInstance[1].PID
	soon(t, "both to be idle", func() bool { return statusOf(t, rt, "pair").Busy == 0 })
	stop(t, sibling)
	t.Cleanup(func() { syscall.Kill(sibling, syscall.SIGCONT) })
	reading(t, busy)
	soon(t, "the first to be busy", func() bool { return statusOf(t, rt, "pair").Busy == 1 })
	answers := make(chan []string)
	for _, conn := range two {
		go func() { answers <- words(t, conn, "/who") }()
	}
	if got := within(t, answers, "the answer to what has waited"); got[1] == "1" {
		t.Errorf("got %q of the instance that does not run, want that the wait is over", got)
	}
	syscall.Kill(sibling, syscall.SIGCONT)
	if got := within(t, answers, "the answer to what was handed over"); got[1] != "1" {
		t.Errorf("got %q, want instance 1", got)
	}
	fmt.Fprint(busy, "x")
	answered(t, busy)
}

func TestAsManyRequestsAsWorkersAllHaveOne(t *testing.T) {
	rt := holders(func(a *watt.App) { a.Instances, a.QueueTimeout, a.Timeout = 8, 2*patience, 2*patience })
	watttest.Start(t, rt)
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		for range 8 {
			going(ctx, rt, "pair.watt.local/hold")
		}
		soon(t, "all to be in progress", func() bool { return statusOf(t, rt, "pair").Busy == 8 })
		cancel()
		soon(t, "all to be over", func() bool { return statusOf(t, rt, "pair").Busy == 0 })
	}
}

func TestASiblingThatIsRestartedFailsNothing(t *testing.T) {
	for _, size := range []int{1, 64 << 10} { // also when too much was read to be read again
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			rt := pair()
			top := watttest.Start(t, rt)
			stop := make(chan struct{})
			end := crowd(t, top, size, stop)
			for range 5 {
				if err := rt.Restart("pair", 1); err != nil {
					t.Error(err)
				}
			}
			close(stop)
			if answered, failed := end(); answered < 100 || len(failed) > 0 {
				t.Errorf("got %d answers and failures %v", answered, failed)
			}
		})
	}
}

func TestASilentBodyThatWasHandedOverHoldsNobody(t *testing.T) {
	_, until, first, second, silent := busyPair(t)
	fmt.Fprint(silent, "POST /who HTTP/1.1\r\nHost: pair\r\nContent-Length: 1000\r\n\r\n")
	until(2, 1)
	fmt.Fprint(second, "x")
	answered(t, second)
	if got := answered(t, silent); got[1] != "1" {
		t.Errorf("got %q, want the instance that has become idle", got)
	}
	until(1, 0)
	fmt.Fprint(first, "x")
	answered(t, first)
}
