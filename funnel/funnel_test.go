package funnel_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

func TestNewWiresTheTwoAndLeavesTheRestToTheProfiles(t *testing.T) {
	calls := make([]string, 1, 8)
	calls[0] = "mail"
	cpu, store := funnel.New(watt.App{Name: "resize", Calls: calls, Handler: http.NotFoundHandler()}, watt.App{Name: "store"})
	if want := []string{"mail", "store"}; !slices.Equal(cpu.Calls, want) || calls[:2][1] != "" {
		t.Errorf("got Calls %v, want %v, and %v unchanged", cpu.Calls, want, calls[:2])
	}
	if cpu.Profile != watt.CPUBound || store.Profile != watt.IOBound || cpu.Isolation != 0 || cpu.Workers != 0 || store.Workers != 0 || store.QueueTimeout != 5*time.Second {
		t.Errorf("got %+v and %+v", cpu, store)
	}
	cpu, store = funnel.New(watt.App{Name: "a", Calls: []string{"b"}, Profile: watt.Entrypoint}, watt.App{Name: "b", Profile: watt.CPUBound, QueueTimeout: -1})
	if !slices.Equal(cpu.Calls, []string{"b"}) || cpu.Profile != watt.Entrypoint || store.Profile != watt.CPUBound || store.QueueTimeout != -1 {
		t.Errorf("got %+v and %+v, want what they have kept", cpu, store)
	}
}

func TestMistakesAreLeftForTheRuntimeToReport(t *testing.T) {
	serve := func(context.Context, *watt.Env, net.Listener) error { return nil }
	for want, cpu := range map[string]watt.App{
		"none is set":           {Name: "a"},
		"more than one is set":  {Name: "a", Handler: http.NotFoundHandler(), Serve: serve},
		"more than one is set ": {Name: "a", Handler: http.NotFoundHandler(), New: returning(nil, nil)},
		"neither a handler":     {Name: "a", New: returning(nil, nil)},
		"on purpose":            {Name: "a", New: returning(nil, errors.New("on purpose"))},
	} {
		cpu.Isolation = watt.InProcess
		rt := watt.New(funnel.New(cpu, watt.App{Name: "b", Handler: http.NotFoundHandler()}))
		if err := rt.Start(t.Context()); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("got %v, want %q", err, want)
			rt.Shutdown(context.Background())
		}
	}
}

func returning(h http.Handler, err error) func(context.Context, *watt.Env) (http.Handler, error) {
	return func(context.Context, *watt.Env) (http.Handler, error) { return h, err }
}

func TestTheWrongWayRoundIsRefusedWithBothNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := watt.App{Name: "store", Handler: http.NotFoundHandler()}
		resize := watt.App{Name: "resize", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := env.Get(r.Context(), "http://store.watt.local/")
				if !errors.Is(err, watt.ErrNotAllowed) || !strings.Contains(err.Error(), `add "store" to Calls of app "resize"`) {
					t.Errorf("got %v", err)
				}
				watt.WriteError(w, err)
			}), nil
		}}
		top := watttest.Start(t, watt.New(funnel.New(store, resize)))
		if status, _ := top.Get("http://resize.watt.local/"); status != http.StatusForbidden {
			t.Errorf("got %d, want 403", status)
		}
	})
}

// job is a CPU-bound app that counts the jobs that it has begun, and passes them on.
func job(begun *atomic.Int64) watt.App {
	return watt.App{Name: "job", Workers: 8, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begun.Add(1)
			resp, err := env.Get(r.Context(), "http://store.watt.local/")
			if err != nil {
				watt.WriteError(w, err)
				return
			}
			resp.Body.Close()
		}), nil
	}}
}

// slow serves a request in d.
func slow(d time.Duration) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
	})
}

func TestWorkThatCouldNotBeStoredIsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		cpu, store := funnel.New(job(&begun), watt.App{Name: "store", Workers: 1, Queue: 4, QueueTimeout: time.Minute, Handler: slow(3 * time.Second)})
		rt := watt.New(pyramid.New(watt.App{Name: "gateway"}, cpu, store)...)
		top := watttest.Start(t, rt)
		if status, _ := top.Get("http://job.watt.local/"); status != http.StatusOK || begun.Load() != 1 {
			t.Fatalf("got %d and %d begun, want 200 and 1", status, begun.Load())
		}
		for range 5 {
			go top.Get("http://job.watt.local/")
		}
		synctest.Wait()
		resp, err := rt.Env().Get(t.Context(), "http://gateway.watt.local/job/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		after := resp.Header.Get("Retry-After")
		if resp.StatusCode != http.StatusServiceUnavailable || begun.Load() != 6 {
			t.Errorf("got %s with %d begun, want 503 and 6", resp.Status, begun.Load())
		}
		if d, err := time.ParseDuration(after + "s"); err != nil || d < 12*time.Second || d > 19*time.Second { // 4 wait for 3 s each, and half as much at random
			t.Errorf("got Retry-After %q, want what the store needs for those who wait", after)
		}
		time.Sleep(time.Second) // overloaded: whoever comes now would push out one whose work is done
		if status, _ := top.Get("http://job.watt.local/"); status != http.StatusServiceUnavailable || begun.Load() != 6 {
			t.Errorf("got %d with %d begun while the queue stays full, want 503 and 6", status, begun.Load())
		}
		time.Sleep(20 * time.Second)
		if status, _ := top.Get("http://job.watt.local/"); status != http.StatusOK {
			t.Errorf("got %d afterwards, want 200", status)
		}
	})
}

func TestWorkThatCouldNotBeStoredInTimeIsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		rt := watt.New(funnel.New(job(&begun), watt.App{Name: "store", Workers: 1, QueueTimeout: 10 * time.Second, Handler: slow(3 * time.Second)}))
		top := watttest.Start(t, rt)
		top.Get("http://job.watt.local/") // so that the time of a request is known
		for range 3 {
			go top.Get("http://job.watt.local/")
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second) // and it would take 12
		defer cancel()
		resp, err := rt.Env().Get(ctx, "http://job.watt.local/")
		if err != nil || resp.StatusCode != http.StatusServiceUnavailable || begun.Load() != 4 {
			t.Fatalf("got %v, %v with %d begun, want 503 and 4: it cannot be there by then", resp, err, begun.Load())
		}
		resp.Body.Close()
		go top.Get("http://job.watt.local/")
		synctest.Wait()
		if status, _ := top.Get("http://job.watt.local/"); status != http.StatusServiceUnavailable || begun.Load() != 5 {
			t.Errorf("got %d with %d begun, want 503 and 5: four cannot all be served within QueueTimeout", status, begun.Load())
		}
		time.Sleep(time.Minute)
	})
}

func TestAStoreThatTakesItsTimeWastesNoWork(t *testing.T) {
	began, kept := produce(t, 2, time.Second/2, 10*time.Second, http.StatusOK, watt.App{Name: "store", Workers: 1, Handler: slow(3 * time.Second)})
	if began == 0 || began != kept {
		t.Errorf("%d jobs were begun, and %d kept", began, kept)
	}
}

func TestALimitReachesTheInstancesBeforeTheWork(t *testing.T) {
	for name, limit := range map[string]*funnel.Limit{"of all": {Total: 200}, "of the instances' app": {PerCaller: 200}} {
		began, kept := produce(t, 2, time.Millisecond, 10*time.Second, http.StatusOK, watt.App{Name: "store", Handler: limit.Handler(slow(0))})
		if kept < 1600 || (began-kept)*20 > began {
			t.Errorf("%s: %d jobs were begun, and %d kept, want about 2000 to be kept, and 5 %% wasted at most", name, began, kept)
		}
	}
}

func TestWhatComesLaterDoesNotPushOutWhatIsComputed(t *testing.T) {
	for _, takes := range []time.Duration{time.Second / 2, 2 * time.Second} { // for which many wait
		began, kept := produce(t, 8, time.Second, 2*time.Minute, http.StatusOK, watt.App{Name: "store", Workers: 1, Handler: slow(takes)})
		if kept*20 < int64(2*time.Minute/takes)*19 || (began-kept)*20 > began {
			t.Errorf("%d jobs were begun, and %d kept, by a store that takes %v, want all, but for a few", began, kept, takes)
		}
	}
}

func TestACallThatHasWaitedInVainWaitsAgainIfItCanBeSentAgain(t *testing.T) {
	for what, test := range map[string]struct {
		sent          string
		stream        bool
		busy, timeout time.Duration
		want          int
		after         time.Duration
	}{
		"a result":                     {"tea", false, 7 * time.Second, 0, http.StatusOK, 7 * time.Second},
		"nothing":                      {"", false, 7 * time.Second, 0, http.StatusOK, 7 * time.Second},
		"a stream":                     {"tea", true, 7 * time.Second, 0, http.StatusServiceUnavailable, 2 * time.Second},
		"while there is time":          {"tea", false, time.Hour, 9 * time.Second, http.StatusGatewayTimeout, 9 * time.Second},
		"for a minute, if not limited": {"tea", false, time.Hour, -1, http.StatusServiceUnavailable, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			cpu := watt.App{Name: "job", Timeout: test.timeout, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					var body io.Reader = strings.NewReader(test.sent)
					if test.stream {
						body = io.MultiReader(body)
					}
					req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://store.watt.local/", body)
					if err != nil {
						t.Error(err)
						return
					}
					resp, err := env.Client.Do(req)
					if err != nil {
						watt.WriteError(w, err)
						return
					}
					defer resp.Body.Close()
					io.Copy(w, resp.Body)
				}), nil
			}}
			store := watt.App{Name: "store", Workers: 1, QueueTimeout: 2 * time.Second, Timeout: -1, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					slow(test.busy).ServeHTTP(w, r)
				}
				io.Copy(w, r.Body)
			})}
			rt := watt.New(funnel.New(cpu, store))
			top := watttest.Start(t, rt)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				if resp, err := rt.Env().Get(ctx, "http://store.watt.local/"); err == nil {
					resp.Body.Close()
				}
			}()
			synctest.Wait()
			began := time.Now()
			status, body := top.Get("http://job.watt.local/")
			if took := time.Since(began); status != test.want || took != test.after || status == http.StatusOK && body != test.sent {
				t.Errorf("%s: got %d %q after %v, want %d after %v", what, status, body, took, test.want, test.after)
			}
		})
	}
}

func TestWhatIsComputedWaitsForAStoreThatTakesLongToRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun, starts atomic.Int64
		rt := watt.New(funnel.New(job(&begun), watt.App{Name: "store", New: func(context.Context, *watt.Env) (http.Handler, error) {
			if starts.Add(1) > 1 {
				time.Sleep(3 * 5 * time.Second) // three times QueueTimeout
			}
			return slow(0), nil
		}}))
		top := watttest.Start(t, rt)
		go rt.Restart("store", 0)
		synctest.Wait()
		if status, _ := top.Get("http://job.watt.local/"); status != http.StatusOK || begun.Load() != 1 {
			t.Errorf("got %d and %d begun, want 200 and 1", status, begun.Load())
		}
	})
}

// produce has n instances do jobs that take a time, as long as it is told, and asks for more than they can do. It
// returns how many were begun, and of how many the store has answered so.
func produce(t *testing.T, n int, takes, lasts time.Duration, want int, store watt.App) (begun, kept int64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var begins, keeps atomic.Int64
		cpu := watt.App{Name: "job", Workers: 1, Instances: n, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				begins.Add(1)
				time.Sleep(takes)
				if status := pass(env, w, r); status == want {
					keeps.Add(1)
				}
			}), nil
		}}
		top := watttest.Start(t, watt.New(funnel.New(cpu, store)))
		end := time.Now().Add(lasts)
		var clients sync.WaitGroup
		for range 4 * n {
			clients.Go(func() {
				for time.Now().Before(end) {
					if status, _ := top.Get("http://job.watt.local/"); status != http.StatusOK {
						time.Sleep(max(50*time.Millisecond, takes/2))
					}
				}
			})
		}
		clients.Wait()
		begun, kept = begins.Load(), keeps.Load()
	})
	return begun, kept
}

// pass answers as the store does.
func pass(env *watt.Env, w http.ResponseWriter, r *http.Request) (status int) {
	resp, err := env.Get(r.Context(), "http://store.watt.local/")
	if err != nil {
		watt.WriteError(w, err)
		return 0
	}
	resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
	return resp.StatusCode
}

func TestAStoreThatSaysThatItsDatabaseIsAwayIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		var status atomic.Int64
		status.Store(http.StatusServiceUnavailable)
		cpu := watt.App{Name: "job", Workers: 2, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				begun.Add(1)
				pass(env, w, r)
			}), nil
		}}
		store := watt.App{Name: "store", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Second)
			w.Header().Set("Retry-After", "8")
			w.Header().Set("X-Watt-Limited", "store") // somebody whom the store asks has a Limit for that
			w.WriteHeader(int(status.Load()))
		})}
		rt := watt.New(funnel.New(cpu, store))
		top := watttest.Start(t, rt)
		ask := func(wantStatus int, wantBegun int64) time.Duration {
			t.Helper()
			resp, err := rt.Env().Get(t.Context(), "http://job.watt.local/")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != wantStatus || begun.Load() != wantBegun {
				t.Fatalf("got %d and %d begun, want %d and %d", resp.StatusCode, begun.Load(), wantStatus, wantBegun)
			}
			after, _ := time.ParseDuration(resp.Header.Get("Retry-After") + "s")
			return after
		}
		ask(http.StatusServiceUnavailable, 1)
		ask(http.StatusServiceUnavailable, 2)
		said := make(map[time.Duration]bool)
		for range 20 {
			said[ask(http.StatusServiceUnavailable, 2)] = true
		}
		if len(said) == 1 {
			t.Error("all who were refused would come back together")
		}
		for range 5 { // each second
			if after := ask(http.StatusServiceUnavailable, 2); after < 4*time.Second || after > 12*time.Second {
				t.Errorf("got Retry-After %v, want what the store has said", after)
			}
			time.Sleep(time.Second)
		}
		go top.Get("http://job.watt.local/") // one may find out
		synctest.Wait()
		ask(http.StatusServiceUnavailable, 3)
		time.Sleep(time.Second)
		ask(http.StatusServiceUnavailable, 3)
		status.Store(http.StatusOK)
		time.Sleep(5 * time.Second)
		ask(http.StatusOK, 4)
		ask(http.StatusOK, 5)
		status.Store(http.StatusTooManyRequests) // is about one client
		for range 5 {
			top.Get("http://job.watt.local/")
		}
		if begun.Load() != 10 {
			t.Errorf("got %d begun, want 10", begun.Load())
		}
	})
}

func TestOneRequestAtATimeFindsOutWhetherTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		cpu := watt.App{Name: "job", Workers: 64, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/nothing-to-keep" {
					return
				}
				begun.Add(1)
				pass(env, w, r)
			}), nil
		}}
		top := watttest.Start(t, watt.New(funnel.New(cpu, watt.App{Name: "store", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(4 * time.Second) // for a lock
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		})})))
		top.Get("http://job.watt.local/")
		top.Get("http://job.watt.local/")
		time.Sleep(time.Second)
		for range 40 { // while the first waits
			go top.Get("http://job.watt.local/")
			time.Sleep(100 * time.Millisecond)
		}
		if got := begun.Load(); got != 3 {
			t.Errorf("got %d begun, want 3: two that were refused, and one to find out", got)
		}
		time.Sleep(time.Second)
		if status, _ := top.Get("http://job.watt.local/nothing-to-keep"); status != http.StatusOK {
			t.Errorf("got %d, want one to find out", status)
		}
		if top.Get("http://job.watt.local/"); begun.Load() != 4 {
			t.Errorf("got %d begun, want 4: the one before has not found out", begun.Load())
		}
	})
}

func TestAStoreIsBelievedHoweverItsNameIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		cpu := watt.App{Name: "job", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				begun.Add(1)
				_, err := watt.JSON[any](env.Get(r.Context(), "http://STORE.watt.local.:80/"))
				watt.WriteError(w, err)
			}), nil
		}}
		top := watttest.Start(t, watt.New(funnel.New(cpu, watt.App{Name: "store", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "8")
			w.WriteHeader(http.StatusServiceUnavailable)
		})})))
		for range 5 {
			top.Get("http://job.watt.local/")
		}
		if got := begun.Load(); got != 2 {
			t.Errorf("got %d begun, want 2", got)
		}
	})
}

func TestWhatOtherAppsSayIsNotTheStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cpu := watt.App{Name: "job", Calls: []string{"mail"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return pyramid.Proxy(env, "mail"), nil
		}}
		cpu, store := funnel.New(cpu, watt.App{Name: "store", Handler: slow(0)})
		mail := watt.App{Name: "mail", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "8")
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, "mail is away")
		})}
		top := watttest.Start(t, watt.New(cpu, store, mail))
		for range 5 {
			if status, body := top.Get("http://job.watt.local/"); body != "mail is away" {
				t.Errorf("got %d %q, want what the other app says", status, body)
			}
		}
	})
}

func TestAStoreMaySayWhenToComeAgainInManyWays(t *testing.T) {
	for said, want := range map[string]time.Duration{ // 0: as if it had said nothing; it is the beginning of 2000
		"60": time.Minute, "Sat, 01 Jan 2000 00:01:00 GMT": time.Minute,
		"99999999": time.Hour, "99999999999999999999": time.Hour, "Fri, 01 Jan 9999 00:00:00 GMT": time.Hour,
		"": 0, "0": 0, "-60": 0, "-99999999999999999999": 0, "1.5": 0, "soon": 0, "Fri, 31 Dec 1999 23:59:00 GMT": 0,
	} {
		synctest.Test(t, func(t *testing.T) {
			var begun atomic.Int64
			rt := watt.New(funnel.New(job(&begun), watt.App{Name: "store", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", said)
				w.WriteHeader(http.StatusServiceUnavailable)
			})}))
			watttest.Start(t, rt)
			for i := range 5 {
				before := begun.Load()
				resp, err := rt.Env().Get(t.Context(), "http://job.watt.local/")
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				after, _ := time.ParseDuration(resp.Header.Get("Retry-After") + "s")
				switch refused := begun.Load() == before; {
				case refused != (want > 0 && i >= 2):
					t.Errorf("%q: number %d was refused: %v", said, i, refused)
				case refused && (after < want || after > want*3/2):
					t.Errorf("%q: got Retry-After %v, want %v, and up to half as much more", said, after, want)
				}
			}
		})
	}
}

func TestWhatAStoreRefusesAtItsDoorIsBelievedUnlessThereWasADeadline(t *testing.T) {
	for within, want := range map[time.Duration]int64{0: 2, time.Minute: 5} {
		synctest.Test(t, func(t *testing.T) {
			var begun atomic.Int64
			rt := watt.New(funnel.New(job(&begun), watt.App{Name: "store", Workers: 1, QueueTimeout: time.Second / 2, Handler: slow(20 * time.Second)}))
			top := watttest.Start(t, rt)
			go top.Get("http://store.watt.local/") // how long it takes is not known yet
			synctest.Wait()
			ctx := t.Context()
			if within > 0 {
				limited, cancel := context.WithTimeout(ctx, within)
				defer cancel()
				ctx = limited
			}
			for range 5 {
				resp, err := rt.Env().Get(ctx, "http://job.watt.local/")
				if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
					t.Fatalf("got %v, %v, want 503", resp, err)
				}
				resp.Body.Close()
			}
			if begun.Load() != want {
				t.Errorf("got %d begun within %v, want %d: they have waited for QueueTimeout", begun.Load(), within, want)
			}
			time.Sleep(time.Minute)
			if status, _ := top.Get("http://job.watt.local/"); status != http.StatusOK {
				t.Errorf("got %d afterwards, want 200", status)
			}
		})
	}
}

func TestWorkIsNotBegunWhileTheStoreCannotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		var broken atomic.Bool
		cpu, store := funnel.New(job(&begun), watt.App{Name: "store", MaxRestarts: -1, New: func(context.Context, *watt.Env) (http.Handler, error) {
			if broken.Load() {
				return nil, errors.New("the database is away")
			}
			return slow(0), nil
		}})
		rt := watt.New(cpu, store)
		top := watttest.Start(t, rt)
		broken.Store(true)
		if err := rt.Restart("store", 0); err == nil {
			t.Fatal("it has started")
		}
		synctest.Wait()
		for range 20 {
			if status, _ := top.Get("http://job.watt.local/"); status != http.StatusServiceUnavailable || begun.Load() != 0 {
				t.Fatalf("got %d with %d begun, want 503 and none", status, begun.Load())
			}
			time.Sleep(time.Second)
		}
		broken.Store(false)
		time.Sleep(time.Minute)
		if status, _ := top.Get("http://job.watt.local/"); status != http.StatusOK {
			t.Errorf("got %d afterwards, want 200", status)
		}
	})
}

func TestABusyStoreDoesNotKeepAnInstanceFromStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(funnel.New(
			watt.App{Name: "job", ReadyPath: "/ready?well", Handler: slow(0), StartTimeout: 5 * time.Second},
			watt.App{Name: "store", Workers: 1, Queue: -1, Handler: slow(time.Minute), Timeout: -1},
		))
		top := watttest.Start(t, rt)
		go top.Get("http://store.watt.local/")
		synctest.Wait()
		if err := rt.Restart("job", 0); err != nil {
			t.Error(err)
		}
		if err := rt.Update("job", func(a *watt.App) { a.ReadyPath = "/other" }); err != nil {
			t.Fatal(err)
		}
		if err := rt.Restart("job", 0); err != nil {
			t.Errorf("with another ReadyPath: %v", err)
		}
		for path, want := range map[string]int{"/ready?well": http.StatusOK, "/ready": http.StatusServiceUnavailable} {
			if status, _ := top.Get("http://job.watt.local" + path); status != want {
				t.Errorf("%s: got %d, want %d", path, status, want)
			}
		}
		resp, err := rt.Env().Client.Post("http://job.watt.local/ready?well", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("POST: got %d, want 503", resp.StatusCode)
		}
		time.Sleep(time.Minute)
	})
}

func TestAHandlerIsGuardedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
		top := watttest.Start(t, watt.New(funnel.New(
			watt.App{Name: "job", Handler: hello},
			watt.App{Name: "store", Workers: 1, Queue: -1, Handler: slow(time.Second)},
		)))
		if status, body := top.Get("http://job.watt.local/"); status != http.StatusOK || body != "hello" {
			t.Errorf("got %d %q, want 200", status, body)
		}
		go top.Get("http://store.watt.local/")
		synctest.Wait()
		if status, _ := top.Get("http://job.watt.local/"); status != http.StatusServiceUnavailable {
			t.Errorf("got %d, want 503", status)
		}
	})
}

func TestAGuardedRouterStillTellsItsRoutes(t *testing.T) {
	router := chi.NewRouter()
	router.Get("/{id}", http.NotFound)
	cpu, store := funnel.New(watt.App{Name: "a", Handler: router}, watt.App{Name: "b", Handler: http.NotFoundHandler()})
	handler, err := cpu.New(t.Context(), watt.New(cpu, store).Env())
	if routes, ok := handler.(chi.Routes); err != nil || !ok || !routes.Match(chi.NewRouteContext(), http.MethodGet, "/7") {
		t.Errorf("got %T, %v", handler, err)
	}
}

func TestFunnelsInOneProgramShareItsProcessorsAndNothingElse(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	synctest.Test(t, func(t *testing.T) {
		crop, gallery := funnel.New(between("crop", "gallery"), watt.App{Name: "gallery", Handler: slow(0)})
		scan, gallery := funnel.New(between("scan", "gallery"), gallery)
		sum, ledger := funnel.New(between("sum", "ledger"), watt.App{Name: "ledger", Workers: 1, Queue: -1, Handler: slow(time.Minute), Timeout: -1})
		rt := watt.New(pyramid.New(watt.App{Name: "gateway"}, crop, scan, gallery, sum, ledger)...)
		top := watttest.Start(t, rt)
		workers := 0
		for _, s := range rt.Status() {
			if s.Profile == watt.CPUBound {
				workers += s.Workers
			}
		}
		if workers < 3 || workers > 7 {
			t.Errorf("got %d workers that compute, want no more than there are processors to spare", workers)
		}
		go top.Get("http://ledger.watt.local/") // which is full then
		synctest.Wait()
		for app, want := range map[string]int{"crop": http.StatusOK, "scan": http.StatusOK, "sum": http.StatusServiceUnavailable} {
			if status, _ := top.Get("http://gateway.watt.local/" + app + "/"); status != want {
				t.Errorf("%s: got %d, want %d", app, status, want)
			}
		}
	})
}

// between is an app that passes everything on.
func between(name, io string) watt.App {
	return watt.App{Name: name, Calls: []string{io}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return pyramid.Proxy(env, io), nil
	}}
}

func TestAnAppThatServesByItselfAndOneElsewhereAreLeftAlone(t *testing.T) {
	serve := func(ctx context.Context, _ *watt.Env, _ net.Listener) error { <-ctx.Done(); return nil }
	cpu, _ := funnel.New(watt.App{Name: "a", Serve: serve}, watt.App{Name: "b"})
	if cpu.New != nil || cpu.Serve == nil {
		t.Error("got another app than the one that serves")
	}
	if cpu, _ = funnel.New(watt.App{Name: "a", URL: "http://a"}, watt.App{Name: "b"}); cpu.New != nil {
		t.Error("got a New for an app that runs elsewhere")
	}
}
