package trunk_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/roundtrip"
)

func TestAnIdleTimeOfAMomentHarmsNoCall(t *testing.T) {
	client, n := serve(t, pair, func(c *incoming) { whole(c, "answer") })
	client.IdleTimeout = time.Millisecond
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range 100 {
				if got := get(t, client); got != "answer" {
					t.Errorf("got %q", got)
				}
			}
		})
	}
	callers.Wait()
	n.serves.Wait()
}

func TestWithoutAnIdleTimeAConnectionIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, n := serve(t, pipes, func(c *incoming) { whole(c, "answer") })
		for range 3 {
			get(t, client)
			time.Sleep(1000 * time.Hour)
		}
		if n.dials() != 1 {
			t.Errorf("dialled %d times, want once", n.dials())
		}
	})
}

func TestCloseIdleLeavesCallsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, n := serve(t, pipes, func(c *incoming) {
			if c.Request.Method == http.MethodPost {
				time.Sleep(time.Minute)
			}
			whole(c, c.Request.Method)
		})
		client.CloseIdle() // there is none
		var caller sync.WaitGroup
		caller.Go(func() {
			resp, err := client.RoundTrip(request(t, t.Context(), http.MethodPost, ""), time.Time{})
			if got := readAll(t, resp, err); got != http.MethodPost {
				t.Errorf("got %q", got)
			}
		})
		synctest.Wait()
		client.CloseIdle()
		if get(t, client); n.dials() != 2 {
			t.Errorf("dialled %d times, want anew", n.dials())
		}
		if got := n.ended(); len(got) != 0 {
			t.Errorf("a connection has ended: %v", got)
		}
		caller.Wait()
		if synctest.Wait(); len(n.ended()) != 1 {
			t.Errorf("%d connections have ended, want the first", len(n.ended()))
		}
		client.CloseIdle()
		n.serves.Wait()
	})
}

func TestNothingIsKeptAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, n := serve(t, pipes, func(c *incoming) { whole(c, "answer") })
		get(t, client)
		for i := range 3 {
			client.Close()
			n.serves.Wait()
			if got := get(t, client); got != "answer" || n.dials() != i+2 {
				t.Errorf("got %q on connection %d", got, n.dials())
			}
		}
		n.serves.Wait()
	})
}

// TestCloseWhileOthersDial has nothing be kept that they have dialled.
func TestCloseWhileOthersDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, n := serve(t, pipes, func(c *incoming) { whole(c, "answer") })
		client.Dial = slow(client.Dial, time.Second)
		var callers sync.WaitGroup
		for range 5 {
			callers.Go(func() { get(t, client) })
		}
		synctest.Wait()
		client.Close()
		callers.Wait()
		n.serves.Wait()
	})
}

// slow returns a dial that takes its time, or until its context ends.
func slow(dial func(context.Context) (net.Conn, error), takes time.Duration) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		select {
		case <-time.After(takes):
			return dial(ctx)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func TestCallsShareOneDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, n := serve(t, pipes, func(c *incoming) { whole(c, "answer") })
		client.Dial = slow(client.Dial, time.Second)
		var callers sync.WaitGroup
		for range 10 {
			callers.Go(func() {
				if got := get(t, client); got != "answer" {
					t.Errorf("got %q", got)
				}
			})
		}
		callers.Wait()
		if n.dials() != 1 {
			t.Errorf("dialled %d times, want once", n.dials())
		}
	})
}

// TestADialConcernsWhoDials has some callers give up while one of them dials for all.
func TestADialConcernsWhoDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, n := serve(t, pipes, func(c *incoming) { whole(c, "answer") })
		const takes = 4 * time.Second
		client.Dial = slow(client.Dial, takes)
		start := time.Now()
		var callers sync.WaitGroup
		for _, after := range []time.Duration{2 * time.Second, time.Second, 0, 3 * time.Second, 0} {
			callers.Go(func() {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				by, want := time.Time{}, errOver
				if after == time.Second {
					by, want = start.Add(after), context.DeadlineExceeded
				} else if after > 0 {
					time.AfterFunc(after, func() { cancel(errOver) })
				}
				resp, err := client.RoundTrip(request(t, ctx, http.MethodGet, ""), by)
				if after == 0 {
					if got := readAll(t, resp, err); got != "answer" {
						t.Errorf("got %q", got)
					}
				} else if took := time.Since(start); !errors.Is(err, want) || !errors.Is(err, roundtrip.ErrNotSent) || took != after {
					t.Errorf("got error %v after %v, want %v after %v", err, took, want, after)
				}
			})
			synctest.Wait() // so that the first dials
		}
		callers.Wait()
		if took := time.Since(start); took < takes || took > 3*takes || n.dials() != 1 {
			t.Errorf("dialled %d connections in %v", n.dials(), took)
		}
	})
}

func TestADialThatFailsConcernsAllWhoWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, n := serve(t, pipes, func(c *incoming) { whole(c, "answer") })
		var tried int
		dial := client.Dial
		client.Dial = slow(func(ctx context.Context) (net.Conn, error) {
			if tried++; tried == 1 {
				return nil, errOver
			}
			return dial(ctx)
		}, time.Second)
		start := time.Now()
		var callers sync.WaitGroup
		for range 5 {
			callers.Go(func() {
				_, err := client.RoundTrip(request(t, t.Context(), http.MethodGet, ""), time.Time{})
				if took := time.Since(start); !errors.Is(err, errOver) || took != time.Second {
					t.Errorf("got error %v after %v", err, took)
				}
			})
		}
		callers.Wait()
		if got := get(t, client); got != "answer" || tried != 2 || n.dials() != 1 {
			t.Errorf("got %q, and %d of %d dials have failed", got, tried-n.dials(), tried)
		}
	})
}

func TestADialThatPanicsLetsOthersDial(t *testing.T) {
	client, _ := serve(t, pair, func(c *incoming) { whole(c, "answer") })
	dial := client.Dial
	client.Dial = func(context.Context) (net.Conn, error) { panic(errOver) }
	func() {
		defer func() {
			if got := recover(); got != errOver { //nolint:errorlint // the value
				t.Errorf("got panic %v", got)
			}
		}()
		get(t, client)
	}()
	client.Dial = dial
	if got := get(t, client); got != "answer" {
		t.Errorf("got %q", got)
	}
}

func TestAnIdleConnectionIsClosedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = time.Minute
		client, n := serve(t, pipes, func(c *incoming) {
			if c.Request.Method == http.MethodPost {
				time.Sleep(10 * idle)
			}
			whole(c, "answer")
		})
		client.IdleTimeout = idle
		for range 5 { // each but the first finds it idle for almost as long
			get(t, client)
			time.Sleep(idle - time.Second)
		}
		resp, err := client.RoundTrip(request(t, t.Context(), http.MethodPost, ""), time.Time{})
		if got := readAll(t, resp, err); got != "answer" || n.dials() != 1 {
			t.Errorf("got %q on connection %d", got, n.dials())
		}
		start := time.Now()
		n.serves.Wait()
		if took := time.Since(start); took < idle-time.Second || took > 2*idle {
			t.Errorf("it was closed after %v, want once and at most twice %v", took, idle)
		}
		if get(t, client); n.dials() != 2 {
			t.Errorf("dialled %d times, want anew", n.dials())
		}
	})
}

// TestWhoComesLateToADialThatFailsHasOneMore has one come at its end, who has not waited, and one soon after its beginning.
func TestWhoComesLateToADialThatFailsHasOneMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _ := serve(t, pipes, func(*incoming) {})
		dials := 0
		client.Dial = func(context.Context) (net.Conn, error) {
			dials++
			time.Sleep(time.Second)
			return nil, errOver
		}
		var callers sync.WaitGroup
		for comes, over := range map[time.Duration]time.Duration{0: time.Second, 100 * time.Millisecond: time.Second, 900 * time.Millisecond: 2 * time.Second} {
			callers.Go(func() {
				began := time.Now()
				time.Sleep(comes)
				_, err := client.RoundTrip(request(t, t.Context(), http.MethodGet, ""), time.Time{})
				if got := time.Since(began); !errors.Is(err, errOver) || got != over {
					t.Errorf("who came after %v has got %v after %v, want it after %v", comes, err, got, over)
				}
			})
		}
		callers.Wait()
		if dials != 2 {
			t.Errorf("dialled %d times, want twice", dials)
		}
	})
}
