package pyramid_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

// counting is an app that takes 3 s for an answer, the number of the call.
func counting(calls *atomic.Int64) watt.App {
	return handling("a", func(w http.ResponseWriter, r *http.Request) {
		n := calls.Add(1)
		select {
		case <-time.After(3 * time.Second):
			fmt.Fprint(w, n)
		case <-r.Context().Done():
		}
	})
}

var coalesced = pyramid.Part{App: "a", Path: "/{id}?q={q}", Coalesce: true}

// asking asks in a goroutine of its own.
func (h *home) asking(ctx context.Context, path string, headers ...string) <-chan reply {
	c := make(chan reply, 1)
	go func() { c <- h.ask(ctx, http.MethodGet, path, headers...) }()
	return c
}

// traced is the Traceparent of a trace with that digit.
func traced(digit string) string {
	return "00-" + strings.Repeat(digit, 32) + "-" + strings.Repeat(digit, 16) + "-01"
}

func TestIdenticalCallsAreOneIfAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		part     pyramid.Part
		requests [2][]string // path, then headers
		calls    int64
	}{
		"not asked for":          {pyramid.Part{App: "a", Path: "/{id}"}, [2][]string{{"/home/7"}, {"/home/7"}}, 2},
		"the same":               {coalesced, [2][]string{{"/home/7?q=1&x=1"}, {"/home/7?x=2&q=1"}}, 1},
		"the same headers":       {coalesced, [2][]string{{"/home/7?q=1", "A", "1", "B", "2"}, {"/home/7?q=1", "B", "2", "A", "1"}}, 1},
		"headers not passed on":  {coalesced, [2][]string{{"/home/7?q=1", "If-None-Match", "1"}, {"/home/7?q=1", "Accept", "x"}}, 1},
		"another request id":     {coalesced, [2][]string{{"/home/7?q=1", "X-Request-Id", "1"}, {"/home/7?q=1", "X-Request-Id", "2"}}, 1},
		"another trace":          {coalesced, [2][]string{{"/home/7?q=1", "Traceparent", traced("1"), "Tracestate", "a=1"}, {"/home/7?q=1", "Traceparent", traced("2"), "Tracestate", "a=2"}}, 1},
		"another path":           {coalesced, [2][]string{{"/home/7?q=1"}, {"/home/8?q=1"}}, 2},
		"another query":          {coalesced, [2][]string{{"/home/7?q=1"}, {"/home/7?q=2"}}, 2},
		"another Authorization":  {coalesced, [2][]string{{"/home/7?q=1", "Authorization", "Bearer 1"}, {"/home/7?q=1", "Authorization", "Bearer 2"}}, 2},
		"no Authorization":       {coalesced, [2][]string{{"/home/7?q=1", "Authorization", "Bearer 1"}, {"/home/7?q=1"}}, 2},
		"another Cookie":         {coalesced, [2][]string{{"/home/7?q=1", "Cookie", "a=1"}, {"/home/7?q=1", "Cookie", "a=2"}}, 2},
		"another identity":       {coalesced, [2][]string{{"/home/7?q=1", "X-Watt-User", "1"}, {"/home/7?q=1", "X-Watt-User", "2"}}, 2},
		"another baggage":        {coalesced, [2][]string{{"/home/7?q=1", "Baggage", "t=1"}, {"/home/7?q=1", "Baggage", "t=2"}}, 2},
		"values cut differently": {coalesced, [2][]string{{"/home/7?q=1", "A", "1", "A", "2"}, {"/home/7?q=1", "A", "12"}}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				h := newHome(t, pyramid.Parts{"p": c.part}, counting(&calls))
				var replies []<-chan reply
				for _, request := range c.requests {
					replies = append(replies, h.asking(t.Context(), request[0], request[1:]...))
					time.Sleep(time.Second)
				}
				for _, r := range replies {
					if r := <-r; r.status != 200 || c.calls == 1 && r.body != `{"p":1}` {
						t.Errorf("got %d %s, error %v", r.status, r.body, r.err)
					}
				}
				if got := calls.Load(); got != c.calls {
					t.Errorf("got %d calls, want %d", got, c.calls)
				}
			})
		})
	}
}

func TestTheEndOfTheFirstDoesNotFailItsFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		h := newHome(t, pyramid.Parts{"p": coalesced}, counting(&calls))
		leader, leave := context.WithCancel(t.Context())
		first := h.asking(leader, "/home/7?q=1")
		synctest.Wait()
		second := h.asking(t.Context(), "/home/7?q=1")
		time.Sleep(time.Second)
		leave()
		if r := <-first; !errors.Is(r.err, context.Canceled) {
			t.Errorf("got error %v, want context.Canceled", r.err)
		}
		third := h.asking(t.Context(), "/home/7?q=1")
		wantAnswer(t, <-second, "", `{"p":1}`)
		wantAnswer(t, <-third, "", `{"p":1}`)
		if got := calls.Load(); got != 1 {
			t.Errorf("got %d calls, want 1", got)
		}
	})
}

// tardy is a transport whose calls return 5 s after they have failed.
type tardy struct{ http.RoundTripper }

func (t tardy) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		time.Sleep(5 * time.Second)
	}
	return resp, err
}

func TestACallThatNobodyWaitsForEndsAndIsNotJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		var calls atomic.Int64
		entry := homeApp(pyramid.Parts{"p": coalesced})
		entry.Calls = []string{"a"}
		rt := watt.New(entry, handling("a", func(w http.ResponseWriter, r *http.Request) {
			n := calls.Add(1)
			if n == 1 {
				<-r.Context().Done()
				ended <- r.Context().Err()
			}
			time.Sleep(7 * time.Second)
			fmt.Fprint(w, n)
		}))
		rt.Transport = func(caller string, next http.RoundTripper) http.RoundTripper {
			if caller == "" {
				return next
			}
			return tardy{next}
		}
		h := &home{rt: rt}
		h.Topology = watttest.Start(t, rt)
		both, leave := context.WithCancel(t.Context())
		first, second := h.asking(both, "/home/7?q=1"), h.asking(both, "/home/7?q=1")
		began := time.Now()
		time.Sleep(time.Second)
		leave()
		<-first
		<-second
		if err := <-ended; !errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
			t.Errorf("got error %v after %v, want context.Canceled at once", err, time.Since(began))
		}
		synctest.Wait()
		third := h.asking(t.Context(), "/home/7?q=1")
		time.Sleep(6 * time.Second) // the first call has returned
		fourth := h.asking(t.Context(), "/home/7?q=1")
		wantAnswer(t, <-third, "", `{"p":2}`)
		wantAnswer(t, <-fourth, "", `{"p":2}`)
	})
}

func TestTheEndOfAnInstanceWaitsForACallThatNobodyWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		part := coalesced
		part.Timeout, part.Optional = time.Second, true
		entry := homeApp(pyramid.Parts{"p": part})
		entry.Calls = []string{"a"}
		h := &home{rt: watt.New(entry, handling("a", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))}
		h.rt.Transport = func(_ string, next http.RoundTripper) http.RoundTripper { return tardy{next} }
		if err := h.rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantAnswer(t, h.ask(t.Context(), http.MethodGet, "/home/7?q=1"), "p;reason=timeout", `{}`)
		began := time.Now()
		if err := h.rt.Shutdown(t.Context()); err != nil || time.Since(began) != 5*time.Second {
			t.Errorf("got error %v after %v, want the end of the call", err, time.Since(began))
		}
	})
}

func TestEachWaitsForASharedCallAsLongAsItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		part := coalesced
		part.Timeout, part.Optional = 2*time.Second, true
		h := newHome(t, pyramid.Parts{"p": part}, counting(&calls))
		first := h.asking(t.Context(), "/home/7?q=1")
		time.Sleep(1500 * time.Millisecond)
		second := h.asking(t.Context(), "/home/7?q=1")
		wantAnswer(t, <-first, "p;reason=timeout", `{}`)
		wantAnswer(t, <-second, "", `{"p":1}`)
	})
}

func TestAFailureIsSharedToo(t *testing.T) {
	for name, f := range faults() {
		if f.part.Func != nil || f.part.Timeout > 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			h := f.start(t, func(p *pyramid.Part) { p.Coalesce, p.Optional = true, true })
			first, second := h.asking(t.Context(), "/home/7"), h.asking(t.Context(), "/home/7")
			wantAnswer(t, <-first, "bad;reason="+f.reason, `{"good":1}`)
			wantAnswer(t, <-second, "bad;reason="+f.reason, `{"good":1}`)
		})
	}
}

// A transport of the user's that panics must not end the process, shared or not.
func TestAPanicInTheTransportFailsThePart(t *testing.T) {
	for _, coalesce := range []bool{false, true} {
		entry := homeApp(pyramid.Parts{"p": {App: "a", Path: "/", Coalesce: coalesce, Optional: true}})
		entry.Calls = []string{"a"}
		rt := watt.New(entry, telling("a", "1"))
		rt.Transport = func(caller string, next http.RoundTripper) http.RoundTripper {
			if caller == "" {
				return next
			}
			return panicking{}
		}
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantAnswer(t, (&home{rt: rt}).get(t), "p;reason=panic", `{}`)
		if err := rt.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("odd") }

func TestSharedCallsSurviveClientsThatLeave(t *testing.T) {
	h := newHome(t, pyramid.Parts{"p": {App: "a", Path: "/", Coalesce: true}}, telling("a", "1"))
	const clients, each = 16, 50
	done := make(chan struct{}, clients)
	for i := range clients {
		go func() {
			defer func() { done <- struct{}{} }()
			for range each {
				ctx, cancel := context.WithCancel(t.Context())
				if i%4 == 0 { // some do not wait
					time.AfterFunc(20*time.Microsecond, cancel)
				}
				if r := h.ask(ctx, http.MethodGet, "/home/7"); r.err == nil && r.body != `{"p":1}` && ctx.Err() == nil {
					t.Errorf("got %d %s", r.status, r.body)
				}
				cancel()
			}
		}()
	}
	for range clients {
		<-done
	}
}

// leaving ends the goroutine of whoever calls the app a, as [testing.T.FailNow] does in a fake.
type leaving struct{ http.RoundTripper }

func (l leaving) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == "a.watt.local" {
		time.Sleep(time.Second)
		runtime.Goexit()
	}
	return l.RoundTripper.RoundTrip(r)
}

func TestACallThatEndsItsGoroutineFailsThePartCoalescedOrNot(t *testing.T) {
	for _, coalesce := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			entry := homeApp(pyramid.Parts{"p": {App: "a", Path: "/", Coalesce: coalesce, Optional: true}})
			entry.Calls = []string{"a"}
			h := &home{rt: watt.New(entry, telling("a", "1"))}
			h.rt.Transport = func(_ string, next http.RoundTripper) http.RoundTripper { return leaving{next} }
			h.Topology = watttest.Start(t, h.rt)
			for range 2 { // what has ended is not joined
				first, second := h.asking(t.Context(), "/home/7"), h.asking(t.Context(), "/home/7")
				wantAnswer(t, <-first, "p;reason=panic", `{}`)
				wantAnswer(t, <-second, "p;reason=panic", `{}`)
			}
		})
	}
}
