package watt_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// diary remembers what happened, and when after its beginning: to 10 ms, for closing looks at connections now and then.
type diary struct {
	began time.Time
	mu    sync.Mutex
	lines []string
}

func newDiary() *diary { return &diary{began: time.Now()} }

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf("%v ", time.Since(d.began).Round(10*time.Millisecond))+fmt.Sprintf(format, args...))
}

func (d *diary) want(t *testing.T, want ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(d.lines, "\n"), strings.Join(want, "\n"))
	}
}

// slow is an app whose New takes d, and fails with err; all that happens is noted.
func (d *diary) slow(name string, takes time.Duration, err error, calls ...string) watt.App {
	return watt.App{Name: name, Calls: calls, New: func(ctx context.Context, env *watt.Env) (http.Handler, error) {
		d.note("%s starts", name)
		env.Cleanup(func() error { d.note("%s is cleaned up", name); return nil })
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			d.note("%s is given up", name)
			return nil, ctx.Err()
		}
		return http.HandlerFunc(work), err
	}}
}

func TestARuntimeThatStartsIsNotReadyAndSaysWhatIsMissing(t *testing.T) {
	var rt *watt.Runtime
	var said []string
	ready := func() { said = append(said, fmt.Sprint(rt.Ready())) }
	rt = watt.New(watt.App{Name: "a", New: func(context.Context, *watt.Env) (http.Handler, error) {
		ready()
		return http.NotFoundHandler(), nil
	}})
	rt.Transport = func(caller string, next http.RoundTripper) http.RoundTripper {
		if caller == "" { // main's is the last before there is an app
			ready()
		}
		return next
	}
	watttest.Start(t, rt)
	ready()
	if want := []string{"watt: starting", `watt: app "a" is starting`, "<nil>"}; !slices.Equal(said, want) {
		t.Errorf("got %q, want %q", said, want)
	}
}

func TestStartOrderFollowsCallsInParallelWhereNothingForbids(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary()
		rt := start(t,
			d.slow("a", time.Second, nil, "b", "c"),
			d.slow("b", 2*time.Second, nil, "d"),
			d.slow("c", 3*time.Second, nil),
			d.slow("d", 4*time.Second, nil),
		)
		d.note("ready")
		slices.Sort(d.lines[:2]) // c and d start at once
		d.want(t, "0s c starts", "0s d starts", "4s b starts", "6s a starts", "7s ready")
		if err := rt.Ready(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnAppIsReadyWhenItsReadyPathAnswers2xx(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, admitted atomic.Int32
		began := time.Now()
		rt := watt.New(watt.App{Name: "a", ReadyPath: "/ready", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/ready" {
				admitted.Add(1)
				return
			}
			if asked.Add(1); time.Since(began) < 5*time.Second {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})}, working("b", func(b *watt.App) { b.Calls = []string{"a"} }))
		done := make(chan error, 1)
		go func() { done <- rt.Start(t.Context()) }()
		synctest.Wait()
		early := going(t.Context(), rt, "a.watt.local/") // waits
		time.Sleep(900 * time.Millisecond)
		if s := statusOf(t, rt, "a"); s.State != "starting" || rt.Ready() == nil || admitted.Load() != 0 {
			t.Errorf("got %s, Ready %v, %d requests, before it is ready", s.State, rt.Ready(), admitted.Load())
		}
		wantErr(t, (<-early).err, watt.ErrUnavailable) // as long as the queue allows
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 5*time.Second || took > 6*time.Second || asked.Load() < 5 {
			t.Errorf("ready after %v and %d checks", took, asked.Load())
		}
		if s := statusOf(t, rt, "a"); s.Admitted != 0 {
			t.Errorf("got Admitted %d: checks are outside admission", s.Admitted)
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAStartHasATimeLimit(t *testing.T) {
	for name, c := range map[string]struct {
		app       watt.App
		text      string
		took      time.Duration
		abandoned uint64
	}{
		"ReadyPath never answers": {
			watt.App{Name: "a", ReadyPath: "/ready", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "migration 7 of 9", http.StatusServiceUnavailable)
			})}, `/ready answered 503 Service Unavailable: "migration 7 of 9"`, 3 * time.Second, 0,
		},
		"New obeys its context": {
			watt.App{Name: "a", New: func(ctx context.Context, _ *watt.Env) (http.Handler, error) {
				<-ctx.Done()
				return nil, errors.New("interrupted")
			}}, "context deadline exceeded; then it returned: interrupted", 3 * time.Second, 0,
		},
		"New hangs": {
			watt.App{Name: "a", New: func(context.Context, *watt.Env) (http.Handler, error) {
				time.Sleep(time.Hour)
				return nil, nil
			}}, "abandoned", 4 * time.Second, 1,
		},
		"Serve never accepts": {
			watt.App{Name: "a", Serve: func(ctx context.Context, _ *watt.Env, _ net.Listener) error {
				<-ctx.Done()
				return nil
			}}, "Accept", 3 * time.Second, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cleaned := false
				began := time.Now()
				c.app.StartTimeout = 3 * time.Second
				if run := c.app.New; run != nil {
					c.app.New = func(ctx context.Context, env *watt.Env) (http.Handler, error) {
						env.Cleanup(func() error { cleaned = true; return nil })
						return run(ctx, env)
					}
				}
				rt := watt.New(c.app, working("b", func(b *watt.App) { b.Calls = []string{"a"} }))
				err := rt.Run(t.Context())
				if err == nil || !strings.Contains(err.Error(), `app "a": start: `) || !strings.Contains(err.Error(), c.text) {
					t.Errorf("got %v", err)
				}
				wantTook(t, time.Since(began), c.took)
				if s := statusOf(t, rt, "a"); s.Abandoned != c.abandoned {
					t.Errorf("got Abandoned %d, want %d", s.Abandoned, c.abandoned)
				}
				if c.app.New != nil && !cleaned {
					t.Error("not cleaned up")
				}
				time.Sleep(2 * time.Hour) // for what was abandoned to end
			})
		})
	}
}

func TestAPanicInNewIsAStartError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(watt.App{Name: "a", New: func(context.Context, *watt.Env) (http.Handler, error) { panic("no TOKEN") }})
		err := rt.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), `watt: app "a": start: panic in New: no TOKEN`) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWhatSeveralInstancesSayOfTheirStartsIsToldOnce(t *testing.T) {
	rt := watt.New(watt.App{Name: "a", Instances: 4, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		switch env.Instance {
		case 1:
			return nil, errors.New("no milk")
		case 3:
			return http.HandlerFunc(work), nil
		}
		return nil, errors.New("no tea")
	}})
	err := rt.Start(t.Context())
	if want := "watt: app \"a\": start: instances 0, 2: no tea\ninstance 1: no milk"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestTheFirstAppThatFailsStopsTheOthersAndEverythingIsCleanedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary()
		rt := watt.New(
			d.slow("never", 0, nil, "fails"),
			d.slow("fails", 2*time.Second, errors.New("on purpose")),
			d.slow("ready", time.Second, nil),
			d.slow("slow", time.Hour, nil),
		)
		err := rt.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), `app "fails": start: on purpose`) || strings.Contains(err.Error(), `"never"`) || strings.Contains(err.Error(), `"slow"`) {
			t.Errorf("got %v", err)
		}
		slices.Sort(d.lines)
		d.want(t, "0s fails starts", "0s ready starts", "0s slow starts",
			"2s fails is cleaned up", "2s ready is cleaned up", "2s slow is cleaned up", "2s slow is given up")
		for _, s := range rt.Status() {
			if s.State != "stopped" {
				t.Errorf("%s is %s in the end", s.Name, s.State)
			}
		}
		if s := statusOf(t, rt, "fails").PerInstance[0]; !strings.Contains(s.LastError, "on purpose") {
			t.Errorf("got the error %q", s.LastError)
		}
	})
}

func TestAPortInUseIsOneErrorBeforeAnythingStarts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	started := false
	free := working("free", func(a *watt.App) { a.Listen = "127.0.0.1:0" })
	rt := watt.New(free, watt.App{Name: "a", Listen: taken.Addr().String(), New: func(context.Context, *watt.Env) (http.Handler, error) {
		started = true
		return http.NotFoundHandler(), nil
	}})
	err = rt.Run(t.Context())
	want := fmt.Sprintf(`watt: app "a": Listen: address %s is in use, by another program or another listener of this one: `, taken.Addr())
	if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Count(err.Error(), "\n") != 0 {
		t.Errorf("got %v, want %s", err, want)
	}
	if started {
		t.Error("an app was started")
	}
	if conn, err := net.Dial("tcp", statusOf(t, rt, "free").Addr); err == nil {
		conn.Close()
		t.Error("the other listener is still open")
	}
}

func TestRunThatIsToldToEndDuringTheStartReturnsNilAndCleansUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary()
		rt := watt.New(d.slow("a", 0, nil, "b"), d.slow("b", time.Hour, nil), d.slow("c", 0, nil))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := rt.Run(ctx); err != nil {
			t.Errorf("got %v", err)
		}
		slices.Sort(d.lines)
		d.want(t, "0s b starts", "0s c starts", "1s b is cleaned up", "1s b is given up", "1s c is cleaned up")
	})
}

func TestRunThatIsToldToEndReportsAStartThatItHadToAbandon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(watt.App{Name: "a", New: func(context.Context, *watt.Env) (http.Handler, error) {
			time.Sleep(time.Minute)
			return nil, nil
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := rt.Run(ctx); err == nil || !strings.Contains(err.Error(), "abandoned") {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)
	})
}

func TestShutdownDuringTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary()
		rt := watt.New(d.slow("a", time.Hour, nil))
		started := make(chan error, 1)
		go func() { started <- rt.Start(t.Context()) }()
		synctest.Wait()
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		wantErr(t, <-started, watt.ErrUnavailable)
		d.want(t, "0s a starts", "0s a is given up", "0s a is cleaned up")
	})
}

func TestARuntimeRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(working("a", nil))
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { first <- rt.Run(ctx) }()
		synctest.Wait()
		if err := rt.Run(ctx); err == nil {
			t.Error("a second Run works")
		}
		if r := get(t.Context(), rt, "a.watt.local/"); r.err != nil {
			t.Errorf("the first one is disturbed: %v", r.err)
		}
		cancel()
		if err := <-first; err != nil {
			t.Error(err)
		}
		if err := rt.Run(t.Context()); err == nil {
			t.Error("a third Run works")
		}
	})
}

func TestRunGoesOnWithWhatStartHasStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(working("a", nil))
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- rt.Run(ctx) }()
		synctest.Wait()
		if r := get(t.Context(), rt, "a.watt.local/"); r.err != nil {
			t.Error(r.err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		wantErr(t, get(t.Context(), rt, "a.watt.local/").err, watt.ErrUnavailable)
	})
}

func TestShutdownBeforeTheStartKeepsItFromStarting(t *testing.T) {
	rt := watt.New(watt.App{Name: "a", New: func(context.Context, *watt.Env) (http.Handler, error) { panic("started") }})
	for range 2 {
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := rt.Start(t.Context()); err == nil || strings.Contains(err.Error(), "panic") {
		t.Errorf("got %v", err)
	}
}

func TestAServeAppThatNobodyCanReachIsReadyWhenItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, watt.App{Name: "job", Serve: func(ctx context.Context, _ *watt.Env, _ net.Listener) error {
			<-ctx.Done()
			return nil
		}})
		if err := rt.Ready(); err != nil {
			t.Error(err)
		}
	})
}

func TestReadinessChecksDoNotFollowRedirects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		moved := app("a", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/ready" {
				t.Errorf("%s was asked for", r.URL.Path)
			}
			if asked++; asked < 5 {
				http.Redirect(w, r, "/elsewhere", http.StatusFound)
			}
		})
		moved.ReadyPath = "/ready"
		start(t, moved)
		if asked != 5 {
			t.Errorf("it was ready after %d checks", asked)
		}
	})
}
