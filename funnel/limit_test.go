package funnel_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
)

// limited starts apps that call one behind a limit, and returns what asks it as a caller.
func limited(t *testing.T, l *funnel.Limit, callers ...string) func(caller string) (status, after int) {
	t.Helper()
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	var mu sync.Mutex // apps start at the same time
	envs := make(map[string]*watt.Env)
	apps := []watt.App{{Name: "store", Handler: l.Handler(hello)}}
	for _, name := range callers {
		apps = append(apps, watt.App{Name: name, Calls: []string{"store"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			mu.Lock()
			defer mu.Unlock()
			envs[name] = env
			return hello, nil
		}})
	}
	rt := watt.New(apps...)
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rt.Shutdown(context.Background()) })
	envs[""] = rt.Env()
	return func(caller string) (int, int) {
		resp, err := envs[caller].Get(t.Context(), "http://store.watt.local/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return resp.StatusCode, after
	}
}

func TestWhatACallerSendsTooMuchIsRefusedWith429(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask := limited(t, &funnel.Limit{PerCaller: 0.5, CallerBurst: 2}, "a", "b")
		want := func(caller string, status int) {
			t.Helper()
			got, after := ask(caller)
			if got != status || (status == 429) != (after >= 2 && after <= 3) {
				t.Errorf("%q: got %d, Retry-After %d, want %d", caller, got, after, status)
			}
		}
		for _, caller := range []string{"a", "b", ""} {
			want(caller, 200)
			want(caller, 200)
			want(caller, 429)
			want(caller, 429) // a refused one costs nothing
		}
		time.Sleep(2 * time.Second)
		want("a", 200)
		want("a", 429)
	})
}

func TestWhatAllSendTooMuchIsRefusedWith503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask := limited(t, &funnel.Limit{PerCaller: 3, Total: 2}, "a", "b")
		for _, want := range []int{200, 200, 503, 503} {
			if status, after := ask("a"); status != want || (want == 503) != (after == 1) {
				t.Errorf("got %d, Retry-After %d, want %d", status, after, want)
			}
		}
		time.Sleep(time.Second)
		for range 2 { // what was refused for all has not cost the caller anything, nor the others
			if status, _ := ask("b"); status != 200 {
				t.Errorf("got %d, want 200", status)
			}
		}
	})
}

func TestAZeroLimitLetsEverythingPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, l := range []*funnel.Limit{{}, {PerCaller: rate.Inf, Total: rate.Inf}, {PerCaller: rate.Limit(math.NaN()), Total: rate.Limit(math.NaN())}} {
			ask := limited(t, l)
			for range 100 {
				if status, _ := ask(""); status != 200 {
					t.Fatalf("got %d, want 200", status)
				}
			}
		}
	})
}

func TestALimitThatIsNearlyNothingSaysWhenToComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, l := range []*funnel.Limit{{PerCaller: 1e-10}, {Total: 1e-10}} {
			ask := limited(t, l)
			ask("")
			said := make(map[int]bool)
			for range 20 {
				status, after := ask("")
				if said[after] = true; status == 200 || after < 24*60*60 {
					t.Errorf("got %d, Retry-After %d, want a day at least", status, after)
				}
			}
			if len(said) == 1 {
				t.Error("all who were refused would come back together")
			}
		}
	})
}

func ExampleLimit() {
	limit := &funnel.Limit{PerCaller: 50, Total: 200} // requests per second, for a partner's API that allows 200
	store := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "stored") })
	rt := watt.New(watt.App{Name: "store", Profile: watt.IOBound, Handler: limit.Handler(store)})
	ctx := context.Background()
	if err := rt.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Shutdown(ctx)
	refused := 0
	for range 500 {
		resp, err := rt.Env().Get(ctx, "http://store.watt.local/")
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusTooManyRequests {
			refused++
		}
	}
	fmt.Println(refused > 0)
	// Output: true
}

func TestManyWhoComeAtOnceAreLetThroughNoFasterThanTheRate(t *testing.T) {
	const perSecond, burst = 1000, 1
	l := &funnel.Limit{Total: perSecond, TotalBurst: burst}
	var passed atomic.Int64
	limited := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed.Add(1) }))
	began := time.Now()
	var clients sync.WaitGroup
	for range 64 {
		clients.Go(func() {
			for time.Since(began) < time.Second {
				limited.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", http.NoBody))
			}
		})
	}
	clients.Wait()
	if n, most := passed.Load(), burst+int64(time.Since(began).Seconds()*perSecond)+1; n > most || n == 0 {
		t.Errorf("%d have passed, want %d at most", n, most)
	}
}
