package watt_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/watt"
)

// storm makes n calls, many at a time, each with a context that ends at a random time or not at all.
func storm(ctx context.Context, n int, call func(ctx context.Context, id int)) {
	var callers sync.WaitGroup
	var next atomic.Int32
	for range 32 {
		callers.Go(func() {
			for id := int(next.Add(1)); id <= n; id = int(next.Add(1)) {
				ctx, cancel := context.WithCancel(ctx)
				after := rand.N(500 * time.Microsecond)
				switch rand.N(5) {
				case 0:
					time.AfterFunc(after, cancel)
				case 1:
					ctx, cancel = context.WithTimeout(ctx, after)
				case 2:
					cancel() // before it has begun
				}
				call(ctx, id)
				cancel()
			}
		})
	}
	callers.Wait()
}

// calm waits until no handler of a runs, and then for the goroutines that they have started.
func calm(t *testing.T, rt *watt.Runtime, left *sync.WaitGroup) {
	t.Helper()
	soon(t, "the end of all requests", func() bool {
		s := statusOf(t, rt, "a")
		return s.Busy == 0 && s.Conns == 0
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		left.Wait()
	}()
	within(t, done, "the goroutines that are left")
}

func TestStartedIsFalseOnlyIfTheHandlerNeverRan(t *testing.T) {
	var ran sync.Map
	a := app("a", func(w http.ResponseWriter, r *http.Request) {
		ran.Store(r.URL.Query().Get("id"), true)
		io.Copy(io.Discard, r.Body)
		work(w, r)
	})
	a.Workers, a.QueueTimeout = 24, patience
	rt := watt.New(a)
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var notStarted sync.Map
	var started, answered, refused atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		storm(t.Context(), 4000, func(ctx context.Context, id int) {
			url := fmt.Sprintf("http://a.watt.local/%v?id=%d", rand.N(300*time.Microsecond), id)
			resp, err := rt.Env().Client.Do(request(ctx, http.MethodPost, url, strings.NewReader("body")))
			if err == nil {
				answered.Add(1)
				resp.Body.Close()
				return
			}
			var call *watt.CallError
			switch {
			case !errors.As(err, &call):
				t.Errorf("call %d: %v is no CallError", id, err)
			case call.Started:
				started.Add(1)
			default:
				refused.Add(1)
				notStarted.Store(strconv.Itoa(id), err)
			}
		})
	}()
	within(t, done, "the end of all calls")
	if err := rt.Shutdown(t.Context()); err != nil { // now what has begun late has begun too
		t.Error(err)
	}
	notStarted.Range(func(id, err any) bool {
		if _, yes := ran.Load(id); yes {
			t.Errorf("call %v: the handler ran, and Started is false: %v", id, err)
		}
		return true
	})
	if started.Load() == 0 || answered.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d calls failed once started, %d were answered, %d not started: this test is blind", started.Load(), answered.Load(), refused.Load())
	}
	t.Logf("%d answered, %d started, %d not started", answered.Load(), started.Load(), refused.Load())
}

func TestAGoroutineThatOutlivesItsRequestMayCallWithItsContext(t *testing.T) {
	var rt *watt.Runtime
	var background sync.WaitGroup
	call := func(ctx context.Context, path string) {
		resp, err := rt.Env().Get(ctx, "http://a.watt.local"+path)
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	a := app("a", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/leaf":
			work(w, r)
			return
		case "/poll":
			watt.LongLived(r.Context())
		case "/stream":
			w.Header().Set("Content-Type", "text/event-stream")
			http.NewResponseController(w).Flush()
		}
		for range 2 {
			background.Go(func() {
				for range 3 {
					call(r.Context(), "/leaf")
				}
			})
		}
		if r.URL.Path == "/nested" {
			call(r.Context(), "/poll")
		}
	})
	a.Instances, a.Workers, a.QueueTimeout = 2, 32, time.Second
	rt = watt.New(a)
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop, restarted := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(restarted)
		for i := 0; ; i++ { // a drain ends many contexts at once
			select {
			case <-stop:
				return
			default:
			}
			if err := rt.Restart("a", i%2); err != nil {
				t.Error(err)
			}
			runtime.Gosched() // two that wake one another would keep the only processor
		}
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		storm(t.Context(), 1500, func(ctx context.Context, id int) {
			call(ctx, []string{"/plain", "/poll", "/stream", "/nested"}[id%4])
		})
	}()
	within(t, done, "the end of all calls")
	calm(t, rt, &background)
	close(stop)
	within(t, restarted, "the end of the restarts")
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// With the race detector this holds whatever callers do: Go then puts half of the goroutines that are woken behind others.
func TestCallersInLoopsLeaveTheOnlyProcessorToOthersToo(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	rt := start(t, app("a", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, len(make([]byte, 200<<10+rand.IntN(2)))) // while garbage is collected, Go's monitor takes the processor from nobody
	}))
	var stop atomic.Bool
	var callers sync.WaitGroup
	defer callers.Wait()
	defer stop.Store(true)
	for range 8 {
		callers.Go(func() {
			for !stop.Load() {
				if got := get(context.Background(), rt, "a.watt.local"); got.status != http.StatusOK {
					t.Error(got.status, got.err)
				}
			}
		})
	}
	others := make(chan struct{})
	go func() {
		defer close(others)
		for range 5 {
			<-time.After(100 * time.Millisecond) // everybody has called by then
			var other sync.WaitGroup
			for range 20 {
				other.Go(func() {})
			}
			other.Wait()
		}
	}()
	within(t, others, "others, who compute nothing")
}

func TestACallNowAndThenDoesNotWaitForWhatComputesBesideIt(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	rt := start(t, app("a", func(http.ResponseWriter, *http.Request) {}))
	var stop atomic.Bool
	var computing sync.WaitGroup
	defer computing.Wait()
	defer stop.Store(true)
	for range 3 {
		computing.Go(func() {
			for !stop.Load() {
			}
		})
	}
	fastest := time.Hour
	for try := 0; try < 20 && fastest >= 10*time.Millisecond; try++ { // the processor may be taken from any of them
		<-time.After(20 * time.Millisecond)
		began := time.Now()
		get(context.Background(), rt, "a.watt.local")
		fastest = min(fastest, time.Since(began))
	}
	if fastest >= 10*time.Millisecond {
		t.Errorf("a call takes %v at least", fastest)
	}
}

// watch looks at a context from all sides until it has ended, and then once more.
func watch(t *testing.T, ctx context.Context) { //nolint:revive // the context is what is tested
	t.Helper()
	var first error
	for i := 0; ; i++ {
		isClosed := closed(ctx)
		err := ctx.Err()
		switch {
		case isClosed && err == nil:
			t.Error("Done is closed, and Err is nil")
		case err != nil && !closed(ctx):
			t.Error("Err is set, and Done is open")
		case first != nil && err != first: //nolint:errorlint // bare
			t.Errorf("Err was %v and is %v", first, err)
		case err != nil && context.Cause(ctx) == nil:
			t.Error("there is no cause")
		}
		if first != nil {
			return
		}
		first = err
		child, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(ctx, func() {})
		if child.Err() != nil && ctx.Err() == nil {
			t.Error("a child ended before its parent")
		}
		stop()
		cancel()
		if i%8 == 0 {
			runtime.Gosched()
		}
	}
}

func TestARequestsContextMayBeUsedByManyWhileItEnds(t *testing.T) {
	var watching sync.WaitGroup
	a := app("a", func(w http.ResponseWriter, r *http.Request) {
		for range 4 {
			watching.Go(func() { watch(t, r.Context()) }) // they outlive the request
		}
		work(w, r)
	})
	a.Workers, a.QueueTimeout = 8, patience
	rt := start(t, a)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for range 100 {
					ctx, cancel := context.WithCancel(t.Context())
					after := rand.N(400 * time.Microsecond)
					switch rand.N(3) {
					case 0:
						time.AfterFunc(after, cancel)
					case 1:
						ctx, cancel = context.WithTimeout(ctx, after)
					}
					get(ctx, rt, fmt.Sprintf("a.watt.local/%v", rand.N(400*time.Microsecond)))
					cancel()
				}
			})
		}
		callers.Wait()
	}()
	within(t, done, "the end of all calls")
	calm(t, rt, &watching)
}
