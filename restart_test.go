package watt_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
)

// numbered is an app whose generations answer with their number, after the time that the path says.
func numbered(change func(*watt.App)) watt.App {
	var mu sync.Mutex
	generations := make(map[int]int)
	a := watt.App{Name: "a", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		mu.Lock()
		generations[env.Instance]++
		number := generations[env.Instance]
		mu.Unlock()
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%d ", number)
			work(w, r)
		}), nil
	}}
	if change != nil {
		change(&a)
	}
	return a
}

func TestRestartDrainsOneGenerationAndStartsTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary()
		generation := 0
		rt := start(t, watt.App{Name: "a", Workers: 2, QueueTimeout: time.Minute, New: func(ctx context.Context, env *watt.Env) (http.Handler, error) {
			generation++
			number := generation
			d.note("start %d", number)
			context.AfterFunc(ctx, func() { d.note("context of %d has ended", number) })
			env.Cleanup(func() error { d.note("cleanup first added"); return nil })
			env.Cleanup(func() error { time.Sleep(time.Second); d.note("cleanup last added"); return nil })
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				work(w, r)
				d.note("%d has served %s", number, r.URL.Path)
			}), nil
		}})
		inFlight := going(t.Context(), rt, "a.watt.local/2s")
		synctest.Wait()
		restarted := make(chan error, 1)
		go func() { restarted <- rt.Restart("a", 0) }()
		synctest.Wait()
		if s := statusOf(t, rt, "a"); s.State != "draining" || s.PerInstance[0].State != "draining" || rt.Ready() == nil {
			t.Errorf("got %s, Ready %v", s.State, rt.Ready())
		}
		waiting := going(t.Context(), rt, "a.watt.local/0s")
		for _, c := range []<-chan result{inFlight, waiting} {
			if r := <-c; r.status != http.StatusOK {
				t.Errorf("got %+v", r)
			}
		}
		if err := <-restarted; err != nil {
			t.Error(err)
		}
		d.want(t, "0s start 1", "2s 1 has served /2s", "2s context of 1 has ended", "3s cleanup last added",
			"3s cleanup first added", "3s start 2", "3s 2 has served /0s")
		if s := statusOf(t, rt, "a"); s.State != "ready" || s.PerInstance[0].Generation != 2 || s.PerInstance[0].Instance != 0 || s.Restarts != 0 {
			t.Errorf("got %s, %+v, Restarts %d", s.State, s.PerInstance[0], s.Restarts)
		}
	})
}

func TestReplacingAnInstanceIsNotNoticedByAnyConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, numbered(nil))
		for generation := 1; generation <= 3; generation++ {
			reused := false
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }})
			resp, err := rt.Env().Client.Do(upgrading(ctx, "http://a.watt.local/0s"))
			if got := read(t, resp, err); got != fmt.Sprint(generation, " /0s") {
				t.Errorf("got %q from generation %d", got, generation)
			}
			if generation > 1 && !reused {
				t.Errorf("generation %d is called over a new connection", generation)
			}
			if err := rt.Restart("a", 0); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestAConnectionIsUsedAgainAfterARequestThatWasCutOrEnds(t *testing.T) {
	for _, first := range []string{
		"GET /cut HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
	} {
		for _, begun := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				a := app("a", func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					if r.URL.Path != "/cut" {
						return
					}
					if begun {
						w.WriteHeader(http.StatusOK)
					}
					<-r.Context().Done()
				})
				a.DrainTimeout = time.Second
				rt := start(t, a)
				wantKept(t, rt, first, func() {
					if err := rt.Restart("a", 0); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

func TestWithTwoInstancesNobodyWaitsForARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, numbered(func(a *watt.App) { a.Instances = 2 }))
		inFlight := going(t.Context(), rt, "a.watt.local/5s") // on instance 0
		synctest.Wait()
		restarted := make(chan error, 1)
		go func() { restarted <- rt.Restart("a", 0) }()
		for range 10 {
			synctest.Wait()
			if r := get(t.Context(), rt, "a.watt.local/100ms"); r.body != "1 /100ms" || r.took != 100*time.Millisecond {
				t.Errorf("got %+v", r)
			}
			if err := rt.Ready(); err != nil {
				t.Error(err)
			}
		}
		if r := <-inFlight; r.body != "1 /5s" {
			t.Errorf("got %+v", r)
		}
		if err := <-restarted; err != nil {
			t.Error(err)
		}
		if r := get(t.Context(), rt, "a.watt.local/0s"); r.body != "2 /0s" {
			t.Errorf("got %+v", r)
		}
	})
}

func TestARestartThatCannotStartIsRetriedLikeAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken, starts := false, 0
		onPurpose := errors.New("on purpose")
		rt := start(t, watt.App{Name: "a", QueueTimeout: time.Hour, New: func(context.Context, *watt.Env) (http.Handler, error) {
			if starts++; broken && starts < 5 {
				return nil, onPurpose
			}
			return http.HandlerFunc(work), nil
		}})
		broken = true
		wantErr(t, rt.Restart("a", 0), onPurpose)
		if r := get(t.Context(), rt, "a.watt.local/0s"); r.status != http.StatusOK || r.took > 700*time.Millisecond {
			t.Errorf("got %+v", r)
		}
		if s := statusOf(t, rt, "a"); starts != 5 || s.Restarts != 3 {
			t.Errorf("got %d starts, Restarts %d", starts, s.Restarts)
		}
		err := rt.Restart("b", 0)
		wantErr(t, err, watt.ErrNoSuchApp)
		if want := `watt: no such app: "b": there are a`; err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
		for _, i := range []int{-1, 1} {
			if err := rt.Restart("a", i); err == nil {
				t.Errorf("instance %d was restarted", i)
			}
		}
	})
}

func TestWhenRestartHasFailedStatusSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken, told, early := false, false, false
		rt := watt.New(watt.App{Name: "a", New: func(context.Context, *watt.Env) (http.Handler, error) {
			if broken {
				return nil, errors.New("on purpose")
			}
			return http.HandlerFunc(work), nil
		}})
		core, _ := observer.New(zapcore.WarnLevel)
		rt.Logger = zap.New(core, zap.Hooks(func(zapcore.Entry) error {
			synctest.Wait() // for everything that can happen before this line
			early = early || told
			return nil
		}))
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer rt.Shutdown(context.Background())
		broken = true
		if rt.Restart("a", 0) == nil {
			t.Error("it starts again")
		}
		told = true
		if in := statusOf(t, rt, "a").PerInstance[0]; in.State != "restarting" || in.Restarts["start"] != 1 {
			t.Errorf("got %q, %v", in.State, in.Restarts)
		}
		time.Sleep(time.Nanosecond) // it is over before the next start
		if early {
			t.Error("Restart returned first")
		}
	})
}

func TestAHandlerThatIgnoresCancellationIsAbandonedAndKeepsItsWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		rt := watt.New(watt.App{Name: "a", Workers: 2, Queue: -1, Timeout: -1, DrainTimeout: 3 * time.Second, Handler: http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/stuck" {
					<-release
					return
				}
				work(w, r)
			})})
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		stuck := going(t.Context(), rt, "a.watt.local/stuck")
		synctest.Wait()
		began := time.Now()
		if err := rt.Restart("a", 0); err != nil {
			t.Error(err)
		}
		wantTook(t, time.Since(began), 4*time.Second) // and a second to follow the end of its context
		s := statusOf(t, rt, "a")
		if s.Abandoned != 1 || s.Busy != 1 || s.PerInstance[0].Generation != 2 || s.State != "ready" {
			t.Errorf("got Abandoned %d, Busy %d, %+v", s.Abandoned, s.Busy, s.PerInstance[0])
		}
		second := going(t.Context(), rt, "a.watt.local/1s")
		synctest.Wait()
		wantErr(t, get(t.Context(), rt, "a.watt.local/0s").err, watt.ErrOverloaded) // two workers: one is lost
		if r := <-second; r.status != http.StatusOK {
			t.Errorf("got %+v", r)
		}
		close(release)
		<-stuck
		synctest.Wait()
		if s := statusOf(t, rt, "a"); s.Busy != 0 {
			t.Errorf("got Busy %d", s.Busy)
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestCleanupErrorsAndPanicsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []int
		first := errors.New("the first")
		rt := watt.New(watt.App{Name: "a", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			env.Cleanup(func() error { order = append(order, 1); return first })
			env.Cleanup(func() error { order = append(order, 2); panic("the second") })
			env.Cleanup(func() error { order = append(order, 3); return nil })
			return http.HandlerFunc(work), nil
		}})
		rt.Env().Cleanup(func() error { order = append(order, 0); return nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := rt.Run(ctx)
		wantErr(t, err, first)
		if err == nil || !strings.Contains(err.Error(), "panic in Cleanup: the second") || !strings.Contains(err.Error(), `app "a", instance 0: `) {
			t.Errorf("got %v", err)
		}
		if want := []int{3, 2, 1, 0}; !slices.Equal(order, want) {
			t.Errorf("got %v, want %v", order, want)
		}
	})
}

func TestNoCallFailsWhileInstancesAreReplacedAndLimitsChange(t *testing.T) {
	rt := start(t,
		numbered(func(a *watt.App) { a.Instances, a.Workers, a.QueueTimeout = 2, 2, time.Minute }),
		watt.App{Name: "front", QueueTimeout: time.Minute, Calls: []string{"a"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				resp, err := env.Client.Post("http://a.watt.local/10us", "", r.Body)
				if err != nil {
					watt.WriteError(w, err)
					return
				}
				resp.Body.Close()
			}), nil
		}})
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := rt.Env().Client.Post("http://front.watt.local/", "", strings.NewReader("body"))
				if err != nil {
					t.Error(err)
					return
				}
				if resp.Body.Close(); resp.StatusCode != http.StatusOK {
					t.Error(resp.Status)
				}
			}
		})
	}
	var changes sync.WaitGroup
	for i := range 3 {
		changes.Go(func() {
			for n := range 30 {
				var err error
				switch i {
				case 0:
					err = rt.Restart("a", 0)
				case 1:
					err = rt.Restart("front", 0)
				case 2:
					err = rt.Update("a", func(a *watt.App) { a.Instances, a.Workers = 1+n%3, 1+n%2 })
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	changes.Wait()
	close(stop)
	callers.Wait()
	for _, s := range rt.Status() {
		if s.Conns != 0 || s.Abandoned != 0 || s.Queued != 0 {
			t.Errorf("%s: got Conns %d, Abandoned %d, Queued %d", s.Name, s.Conns, s.Abandoned, s.Queued)
		}
	}
}

func TestADrainedInstanceIsLeftOutUntilItIsRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, numbered(func(a *watt.App) { a.Instances, a.Workers, a.QueueTimeout = 2, 1, time.Second }))
		inFlight := going(t.Context(), rt, "a.watt.local/1s")
		synctest.Wait()
		busy := 0
		for _, in := range statusOf(t, rt, "a").PerInstance {
			if in.Busy > 0 {
				busy = in.Instance
			}
		}
		for range 2 { // the second time there is nothing to do
			if err := rt.Drain("a", busy); err != nil {
				t.Error(err)
			}
		}
		if r := <-inFlight; r.status != http.StatusOK {
			t.Errorf("what was in progress got %+v", r)
		}
		s := statusOf(t, rt, "a")
		if s.PerInstance[busy].State != "drained" || s.State != "ready" || rt.Ready() != nil {
			t.Errorf("got %s, the app %s, %v", s.PerInstance[busy].State, s.State, rt.Ready())
		}
		if r := get(t.Context(), rt, "a.watt.local/"); r.status != http.StatusOK {
			t.Errorf("the other instance answers %+v", r)
		}

		if err := rt.Drain("a", 1-busy); err != nil {
			t.Error(err)
		}
		if s := statusOf(t, rt, "a"); s.State != "drained" || rt.Ready() == nil {
			t.Errorf("got %s, %v", s.State, rt.Ready())
		}
		if r := get(t.Context(), rt, "a.watt.local/"); !errors.Is(r.err, watt.ErrUnavailable) && !errors.Is(r.err, watt.ErrOverloaded) {
			t.Errorf("without an instance: got %+v", r)
		}
		if err := rt.Restart("a", busy); err != nil {
			t.Error(err)
		}
		if r := get(t.Context(), rt, "a.watt.local/"); r.status != http.StatusOK {
			t.Errorf("after the restart: got %+v", r)
		}
		if err := rt.Drain("a", 2); err == nil {
			t.Error("an instance was drained that is not there")
		}
	})
}

// TestADrainedAppIsNotSaidToHaveEnded: what it last ended of is long over, and not why it is not ready.
func TestADrainedAppIsNotSaidToHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan struct{})
		rt := watt.New(watt.App{Name: "a", Serve: func(ctx context.Context, _ *watt.Env, _ net.Listener) error {
			select {
			case <-ends:
				return errors.New("no tea")
			case <-ctx.Done():
				return nil
			}
		}})
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer rt.Shutdown(context.WithoutCancel(t.Context()))
		ends <- struct{}{}
		time.Sleep(time.Hour)
		if err := rt.Drain("a", 0); err != nil {
			t.Fatal(err)
		}
		if err := rt.Ready(); err == nil || !strings.Contains(err.Error(), "is drained") || strings.Contains(err.Error(), "no tea") {
			t.Errorf("got %v, want that it is drained, and nothing of how it has ended before", err)
		}
	})
}

func TestDrainSaysWhatWasCutAndARuntimeEndsWithDrainedInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(working("a", func(a *watt.App) { a.DrainTimeout = time.Second }))
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		going(t.Context(), rt, "a.watt.local/1h")
		synctest.Wait()
		if err := rt.Drain("a", 0); err == nil || !strings.Contains(err.Error(), "1 request or connection was cut") {
			t.Errorf("got %v", err)
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Errorf("what was told is told again: %v", err)
		}
	})
}
