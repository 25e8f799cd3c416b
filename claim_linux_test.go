package watt //nolint:testpackage // what the kernel does with listeners does not show from outside

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

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
				p, err := openPort(t.Context(), address, n, nil)
				if err == nil {
					p.close()
					t.Fatal("a taken address was shared")
				}
				if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "address "+address+" is in use, by another program or another listener of this one") {
					t.Errorf("got error %v, want one that names the address and says that it is taken", err)
				}
				if got := spread(t, address, 50); got[99] != 50 {
					t.Errorf("got connections %v, want all for who was there first", got)
				}
				if err := end(); err != nil {
					t.Error(err)
				}
				p, err = openPort(t.Context(), address, n, nil)
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
			p, err := openPort(t.Context(), address, 3, nil)
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
	p, err := openPort(t.Context(), earlier.address, 2, nil)
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
	p, err := openPort(ctx, earlier.address, 1, nil)
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
	turn(p, 2)
	reached(t, p, 2)
}

func TestNobodyCanJoinAListenerThatNeverHadCompany(t *testing.T) {
	p := openTestPort(t, 1)
	p.weigh(0, true)
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
		address string
		hosts   []string // by which it is reached
	}{
		{"[::1]:0", []string{"::1"}},
		{":0", []string{"127.0.0.1", "::1"}},
		{"localhost:0", []string{"localhost"}},
		{"0.0.0.0:0", []string{"127.0.0.1"}},
		{"127.0.0.2:0", []string{"127.0.0.2"}},
		{"[::]:0", []string{"::1"}},
	}
	for _, test := range tests {
		t.Run(test.address, func(t *testing.T) {
			p, err := openPort(t.Context(), test.address, 3, nil)
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
			turn(p, 0, 2)
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
