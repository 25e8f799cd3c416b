package watt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
)

// one is the limits of a single worker.
func one(queue int, timeout time.Duration) func(*watt.App) {
	return func(a *watt.App) { a.Workers, a.Queue, a.QueueTimeout = 1, queue, timeout }
}

func TestTheQueueIsBoundedByLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", one(2, time.Second)))
		running := going(t.Context(), rt, "a.watt.local/50ms")
		synctest.Wait()
		var waiting []<-chan result
		for range 2 {
			waiting = append(waiting, going(t.Context(), rt, "a.watt.local/"))
		}
		synctest.Wait()
		surplus := get(t.Context(), rt, "a.watt.local/")
		wantErr(t, surplus.err, watt.ErrOverloaded)
		wantTook(t, surplus.took, 0)
		var call *watt.CallError
		if !errors.As(surplus.err, &call) || call.Started || call.RetryAfter <= 0 || call.App != "a" {
			t.Errorf("got %#v, want a call that was not started, with RetryAfter", call)
		}
		for _, c := range append(waiting, running) {
			if r := <-c; r.status != http.StatusOK || r.took != 50*time.Millisecond {
				t.Errorf("got %+v, want 200 after 50 ms", r)
			}
		}
		if s := statusOf(t, rt, "a"); s.QueueFull != 1 || s.Admitted != 3 || s.QueueWait != 100*time.Millisecond {
			t.Errorf("got QueueFull %d, Admitted %d, QueueWait %v", s.QueueFull, s.Admitted, s.QueueWait)
		}
	})
}

func TestThoseWhoAreShedAreToldDifferentTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", one(-1, time.Second)))
		running := going(t.Context(), rt, "a.watt.local/1s")
		synctest.Wait()
		told := make(map[time.Duration]bool)
		for range 3 {
			if call, ok := errors.AsType[*watt.CallError](get(t.Context(), rt, "a.watt.local/").err); ok {
				told[call.RetryAfter] = true
			}
		}
		if len(told) != 3 {
			t.Errorf("got %v, want three times: or all would come back together", told)
		}
		<-running
	})
}

func TestTheQueueIsBoundedByWaitingTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", one(8, 300*time.Millisecond)))
		running := going(t.Context(), rt, "a.watt.local/1s")
		synctest.Wait()
		first := going(t.Context(), rt, "a.watt.local/")
		time.Sleep(50 * time.Millisecond)
		second := going(t.Context(), rt, "a.watt.local/")
		for _, c := range []<-chan result{first, second} {
			r := <-c
			wantErr(t, r.err, watt.ErrOverloaded)
			wantTook(t, r.took, 300*time.Millisecond)
		}
		<-running
		if s := statusOf(t, rt, "a"); s.WaitTooLong != 2 {
			t.Errorf("got WaitTooLong %d, want 2", s.WaitTooLong)
		}
	})
}

func TestWithoutQueueNobodyWaits(t *testing.T) {
	for name, limit := range map[string]func(*watt.App){
		"Queue -1": one(-1, time.Second), "QueueTimeout -1": one(5, -1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := start(t, working("a", limit))
				running := going(t.Context(), rt, "a.watt.local/1s")
				synctest.Wait()
				wantErr(t, rt.Env().Check("a"), watt.ErrOverloaded)
				r := get(t.Context(), rt, "a.watt.local/")
				wantErr(t, r.err, watt.ErrOverloaded)
				wantTook(t, r.took, 0)
				<-running
				if s := statusOf(t, rt, "a"); s.QueueFull != 1 {
					t.Errorf("got QueueFull %d, want 1: Check counts nothing", s.QueueFull)
				}
			})
		})
	}
}

// ordered is an app with one worker that takes each for every request and remembers their order.
func ordered(name string, each time.Duration, order *[]string) watt.App {
	return watt.App{Name: name, Workers: 1, QueueTimeout: time.Minute, Handler: http.HandlerFunc(
		func(_ http.ResponseWriter, r *http.Request) {
			*order = append(*order, r.URL.Path[1:])
			time.Sleep(each)
		})}
}

func TestWhoWaitsIsServedInOrderUntilOneWaitsInVain(t *testing.T) {
	for name, c := range map[string]struct {
		inVain bool
		want   []string
	}{
		"all have time": {false, []string{"0", "1", "2", "3", "4"}},
		// who cannot wait for 100 ms: then it is the newest's turn for half of that
		"one has not": {true, []string{"0", "1", "4", "2", "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var order []string
				rt := start(t, ordered("a", 60*time.Millisecond, &order))
				var calls []<-chan result
				for i := range 5 {
					calls = append(calls, going(t.Context(), rt, fmt.Sprint("a.watt.local/", i)))
					synctest.Wait()
				}
				time.Sleep(110 * time.Millisecond) // 0 and 1 began at once and after 60 ms
				if !statusOf(t, rt, "a").Overloaded {
					t.Error("not overloaded after 110 ms with a queue")
				}
				if c.inVain {
					ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
					defer cancel()
					wantErr(t, get(ctx, rt, "a.watt.local/late").err, watt.ErrOverloaded)
				}
				for _, c := range calls {
					if r := <-c; r.err != nil {
						t.Error(r.err)
					}
				}
				if !slices.Equal(order, c.want) {
					t.Errorf("got %v, want %v", order, c.want)
				}
				if statusOf(t, rt, "a").Overloaded {
					t.Error("overloaded with an empty queue")
				}
			})
		})
	}
}

func TestInOverloadANewcomerToAFullQueuePushesOutTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", one(2, 10*time.Second)))
		running := going(t.Context(), rt, "a.watt.local/200ms")
		synctest.Wait()
		oldest := going(t.Context(), rt, "a.watt.local/")
		synctest.Wait()
		older := going(t.Context(), rt, "a.watt.local/")
		time.Sleep(100 * time.Millisecond)
		newest := going(t.Context(), rt, "a.watt.local/")
		out := <-oldest
		wantErr(t, out.err, watt.ErrOverloaded)
		wantTook(t, out.took, 100*time.Millisecond)
		for _, c := range []<-chan result{running, older, newest} {
			if r := <-c; r.err != nil {
				t.Error(r.err)
			}
		}
		if s := statusOf(t, rt, "a"); s.PushedOut != 1 || s.QueueFull != 0 {
			t.Errorf("got PushedOut %d, QueueFull %d, want 1 and 0", s.PushedOut, s.QueueFull)
		}
	})
}

func TestWhatWouldWaitBeyondItsDeadlineIsOverloadedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", one(8, 10*time.Second)))
		get(t.Context(), rt, "a.watt.local/1s") // so that the time of a request is known
		running := going(t.Context(), rt, "a.watt.local/1s")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		r := get(ctx, rt, "a.watt.local/")
		wantErr(t, r.err, watt.ErrOverloaded)
		wantTook(t, r.took, 0)
		<-running
		if s := statusOf(t, rt, "a"); s.Deadline != 1 || s.Admitted != 2 {
			t.Errorf("got Deadline %d, Admitted %d, want 1 and 2", s.Deadline, s.Admitted)
		}
	})
}

func TestCheckKnowsWhatWouldNotBeServedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", one(8, 5*time.Second)))
		check := func(within time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			return rt.Env().CheckContext(ctx, "a")
		}
		get(t.Context(), rt, "a.watt.local/2s") // so that the time of a request is known
		wantErr(t, check(time.Second), nil)     // it need not wait
		for range 3 {
			going(t.Context(), rt, "a.watt.local/2s")
			synctest.Wait()
		}
		wantErr(t, rt.Env().Check("a"), watt.ErrOverloaded) // 2 wait, and the third would for 6 s
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantErr(t, rt.Env().Check("a"), nil)
		wantErr(t, check(6*time.Second), nil) // 4 s of waiting, 2 s of work
		wantErr(t, check(6*time.Second-1), watt.ErrOverloaded)
		if s := statusOf(t, rt, "a"); s.Deadline != 0 || s.Admitted != 3 {
			t.Errorf("got Deadline %d, Admitted %d: Check counts nothing", s.Deadline, s.Admitted)
		}
		time.Sleep(time.Minute)
	})
}

func TestARequestWhoseDeadlinePassesInTheQueueIsDroppedNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		rt := start(t, ordered("a", time.Second, &order))
		running := going(t.Context(), rt, "a.watt.local/first")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		r := get(ctx, rt, "a.watt.local/late") // no request has ended yet: nothing is known to expect
		wantErr(t, r.err, context.DeadlineExceeded)
		wantTook(t, r.took, 500*time.Millisecond)
		var call *watt.CallError
		if !errors.As(r.err, &call) || call.Started || !call.Timeout() {
			t.Errorf("got %#v, want a call that timed out and was not started", call)
		}
		<-running
		synctest.Wait()
		if s := statusOf(t, rt, "a"); !slices.Equal(order, []string{"first"}) || s.Gone != 1 || s.Queued != 0 {
			t.Errorf("got %v, Gone %d, Queued %d", order, s.Gone, s.Queued)
		}
	})
}

func TestRequestsWaitForInstancesIdleFirstEachWithItsWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := watt.App{Name: "a", Instances: 3, Workers: 2, Queue: 1, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(time.Second)
				fmt.Fprint(w, env.Instance)
			}), nil
		}}
		rt := start(t, app)
		var calls []<-chan result
		for i := range 7 {
			calls = append(calls, going(t.Context(), rt, "a.watt.local/"))
			synctest.Wait()
			if i == 2 { // three requests, three instances
				for _, in := range statusOf(t, rt, "a").PerInstance {
					if in.Busy != 1 {
						t.Errorf("instance %d has %d busy, want 1", in.Instance, in.Busy)
					}
				}
			}
		}
		if s := statusOf(t, rt, "a"); s.Busy != 6 || s.Queued != 1 {
			t.Errorf("got Busy %d, Queued %d, want 6 and 1", s.Busy, s.Queued)
		}
		per := make(map[string]int)
		for _, c := range calls[:6] {
			per[(<-c).body]++
		}
		if per["0"] != 2 || per["1"] != 2 || per["2"] != 2 {
			t.Errorf("got %v requests per instance, want 2 each", per)
		}
		<-calls[6]
	})
}

func TestExactlyOneSideGivesATicketBackWheneverTheCallerGoes(t *testing.T) {
	rt := start(t, watt.App{
		Name: "a", Workers: 4, Queue: 16, QueueTimeout: 20 * time.Millisecond,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch rand.N(6) {
			case 0:
				panic(http.ErrAbortHandler)
			case 1:
				watt.LongLived(r.Context())
			case 2:
				io.WriteString(w, "some")
				http.NewResponseController(w).Flush()
			case 3:
				if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
					conn.Close()
				}
				return
			}
			if rand.N(4) == 0 {
				<-time.After(rand.N(300 * time.Microsecond))
			}
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, "done")
		}),
	})
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for range 150 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(400*time.Microsecond))
				req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://a.watt.local/", strings.NewReader("body"))
				if resp, err := rt.Env().Client.Do(req); err == nil {
					if rand.N(2) == 0 {
						io.Copy(io.Discard, resp.Body)
					}
					resp.Body.Close()
				}
				cancel()
			}
		})
	}
	callers.Wait()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); <-time.After(time.Millisecond) {
		if s := statusOf(t, rt, "a"); s.Busy == 0 && s.Queued == 0 && s.Conns == 0 {
			break
		}
	}
	if s := statusOf(t, rt, "a"); s.Busy != 0 || s.Queued != 0 || s.Conns != 0 || s.PerInstance[0].Busy != 0 {
		t.Fatalf("got Busy %d, Queued %d, Conns %d, want none", s.Busy, s.Queued, s.Conns)
	}
}

func TestOverARawConnectionTheDoorAsksPerRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", one(-1, time.Second)))
		conn, err := rt.Env().Dial(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		answers := bufio.NewReader(conn)
		ask := func() int {
			io.WriteString(conn, "GET /0s HTTP/1.1\r\nHost: a\r\n\r\n")
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			return resp.StatusCode
		}
		before := ask()
		running := going(t.Context(), rt, "a.watt.local/1s")
		synctest.Wait()
		if during := ask(); before != http.StatusOK || during != http.StatusServiceUnavailable {
			t.Errorf("got %d and %d, want 200 and, with the worker busy, 503", before, during)
		}
		<-running
		synctest.Wait()
		if after := ask(); after != http.StatusOK {
			t.Errorf("got %d", after)
		}
	})
}

func TestAnAppElsewhereHasItsAdmissionHere(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "elsewhere") }))
	defer elsewhere.Close()
	rt := start(t, watt.App{Name: "a", URL: elsewhere.URL, Workers: 1, Queue: 1, QueueTimeout: 10 * time.Second, MaxConns: 1})
	resp, err := rt.Env().Get(t.Context(), "http://a.watt.local/")
	if err != nil {
		t.Fatal(err)
	}
	if s := statusOf(t, rt, "a"); s.Busy != 1 || s.State != "ready" || s.Isolation != watt.Remote || s.PerInstance != nil {
		t.Errorf("got Busy %d, %s, %v, %+v", s.Busy, s.State, s.Isolation, s.PerInstance)
	}
	waiting := going(t.Context(), rt, "a.watt.local/")
	for statusOf(t, rt, "a").Queued == 0 {
		runtime.Gosched()
	}
	wantErr(t, get(t.Context(), rt, "a.watt.local/").err, watt.ErrOverloaded)
	resp.Body.Close()
	if r := <-waiting; r.body != "elsewhere" {
		t.Errorf("got %+v", r)
	}
	conn, err := rt.Env().Dial(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	_, err = rt.Env().Dial(t.Context(), "a")
	wantErr(t, err, watt.ErrOverloaded)
	conn.Close()
	if s := statusOf(t, rt, "a"); s.Busy != 0 || s.Conns != 0 {
		t.Errorf("got Busy %d, Conns %d", s.Busy, s.Conns)
	}
	if err := rt.Update("a", func(a *watt.App) { a.Workers = 3 }); err != nil {
		t.Error(err)
	}
	if err := rt.Restart("a", 0); err == nil {
		t.Error("what runs elsewhere was restarted")
	}
}
