package watttest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// recorder is a test whose failures do not fail the one that it belongs to.
type recorder struct {
	testing.TB
	failures []string
	lines    []string
	cleanups []func()
}

func (r *recorder) Helper()                     {}
func (r *recorder) Deadline() (time.Time, bool) { return r.TB.(*testing.T).Deadline() }
func (r *recorder) Cleanup(f func())            { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// Log is what the runtime without a Logger writes to.
func (r *recorder) Log(args ...any) { r.lines = append(r.lines, fmt.Sprint(args...)) }

// run calls f as a test and returns what failed.
func (r *recorder) run(f func(r *recorder)) []string {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	for len(r.cleanups) > 0 {
		last := r.cleanups[len(r.cleanups)-1]
		r.cleanups = r.cleanups[:len(r.cleanups)-1]
		last()
	}
	return r.failures
}

func echo(name string, calls ...string) watt.App {
	return watt.App{Name: name, Calls: calls, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, callee := range calls {
				resp, err := env.Get(r.Context(), "http://"+callee+".watt.local/")
				if err != nil {
					watt.WriteError(w, err)
					return
				}
				resp.Body.Close()
			}
			io.WriteString(w, name)
		}), nil
	}}
}

func TestAGoroutineThatIsLeftFailsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, where := range map[string]func(start func()) watt.App{
			"New": func(start func()) watt.App {
				return watt.App{Name: "a", New: func(context.Context, *watt.Env) (http.Handler, error) {
					start()
					return http.NotFoundHandler(), nil
				}}
			},
			"a handler": func(start func()) watt.App {
				return watt.App{Name: "a", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { start() })}
			},
		} {
			release := make(chan struct{})
			leak := func() {
				go func() { <-release }()
			}
			rec := &recorder{TB: t}
			failures := rec.run(func(r *recorder) {
				watttest.Start(r, watt.New(where(leak))).Get("http://a.watt.local/")
			})
			if len(failures) != 1 || !strings.Contains(failures[0], "TestAGoroutineThatIsLeft") {
				t.Errorf("%s: got failures %q, want one with the stack", name, failures)
			}
			close(release)
			synctest.Wait()
		}
		rec := &recorder{TB: t}
		if failures := rec.run(func(r *recorder) { watttest.Start(r, watt.New(echo("a"))).Get("http://a.watt.local/") }); failures != nil {
			t.Errorf("without a leak: got %q", failures)
		}
	})
}

func TestWarningsAndErrorsAreInTheTestsLogUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late *watt.Env
		rec := &recorder{TB: t}
		rec.run(func(r *recorder) {
			top := watttest.Start(r, watt.New(watt.App{Name: "a", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
				late = env
				return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("on purpose") }), nil
			}}))
			top.Get("http://a.watt.local/")
		})
		late.Logger.Error("too late")
		if len(rec.lines) != 1 || !strings.Contains(rec.lines[0], "on purpose") {
			t.Errorf("got %q, want the panic", rec.lines)
		}
	})
}

func TestAStartOrAnEndThatFailsFailsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onPurpose := errors.New("on purpose")
		for name, run := range map[string]func(env *watt.Env) error{
			"start":   func(*watt.Env) error { return onPurpose },
			"cleanup": func(env *watt.Env) error { env.Cleanup(func() error { return onPurpose }); return nil },
		} {
			rec := &recorder{TB: t}
			failures := rec.run(func(r *recorder) {
				watttest.Start(r, watt.New(watt.App{Name: "a", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
					return http.NotFoundHandler(), run(env)
				}}))
			})
			if len(failures) != 1 || !strings.Contains(failures[0], "on purpose") {
				t.Errorf("%s: got failures %q", name, failures)
			}
		}
	})
}

func TestFailMakesCallsOnOneEdgeFailUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := watttest.Start(t, watt.New(echo("a", "c"), echo("b", "c"), echo("c")))
		want := func(app string, status int) {
			t.Helper()
			if got, body := top.Get("http://" + app + ".watt.local/"); got != status {
				t.Errorf("%s: got %d %s, want %d", app, got, body, status)
			}
		}
		for err, status := range map[error]int{
			watt.ErrOverloaded: 503, watt.ErrUnavailable: 503, watt.ErrNotAllowed: 403, watt.ErrInstanceDied: 502,
			context.DeadlineExceeded: 504, errors.New("another"): 502,
		} {
			top.Fail("a", "c", err)
			want("a", status)
			want("b", 200)
			want("c", 200)
		}
		top.Fail("a", "c", nil)
		want("a", 200)
		top.Fail("", "c", watt.ErrOverloaded) // main's own edge
		want("c", 503)
		want("a", 200)
		if _, text := top.Get("http://c.watt.local/"); !strings.Contains(text, "watt: call to c: overloaded") {
			t.Errorf("got %q", text)
		}
		if status, text := top.Get("http://nobody.watt.local/"); status != 502 || !strings.Contains(text, "no such app") {
			t.Errorf("got %d %q", status, text)
		}
	})
}

func TestAFaultOfACallThatCannotBeFailsTheTest(t *testing.T) {
	for _, edge := range [][2]string{{"a", "b"}, {"a", "nobody"}, {"nobody", "c"}, {"", "nobody"}} {
		rec := &recorder{TB: t}
		failures := rec.run(func(r *recorder) {
			watttest.Start(r, watt.New(echo("a", "c"), echo("b"), echo("c"))).Fail(edge[0], edge[1], watt.ErrOverloaded)
		})
		if len(failures) != 1 || !strings.Contains(failures[0], "nobody") && !strings.Contains(failures[0], "Calls") {
			t.Errorf("%q: got failures %q", edge, failures)
		}
	}
}

func TestDelayMakesCallsOnOneEdgeWaitUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(echo("a", "c"), echo("b", "c"), echo("c"))
		if err := rt.Update("a", func(a *watt.App) { a.Timeout = 10 * time.Second }); err != nil {
			t.Fatal(err)
		}
		top := watttest.Start(t, rt)
		want := func(app string, status int, took time.Duration) {
			t.Helper()
			began := time.Now()
			if got, body := top.Get("http://" + app + ".watt.local/"); got != status || time.Since(began) != took {
				t.Errorf("%s: got %d %s after %v, want %d after %v", app, got, body, time.Since(began), status, took)
			}
		}
		top.Delay("a", "c", 3*time.Second)
		want("a", 200, 3*time.Second)
		want("b", 200, 0)
		top.Delay("a", "c", time.Minute)
		want("a", 504, 10*time.Second) // the end of the context ends the wait
		top.Delay("a", "c", 0)
		want("a", 200, 0)
	})
}

func TestURLIsThePublicAddress(t *testing.T) {
	rt := watt.New(watt.App{Name: "a", Listen: ":0", Handler: http.NotFoundHandler()}, echo("b"))
	top := watttest.Start(t, rt)
	host, _, err := net.SplitHostPort(strings.TrimPrefix(top.URL("a"), "http://"))
	if err != nil || host != "localhost" {
		t.Errorf("got %q", top.URL("a"))
	}
	resp, err := http.Get(top.URL("a"))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusNotFound {
		t.Errorf("got %s, want the app's 404", resp.Status)
	}
	for _, name := range []string{"b", "nobody"} {
		rec := &recorder{TB: t}
		if failures := rec.run(func(r *recorder) { watttest.Start(r, watt.New(echo("b"))).URL(name) }); len(failures) != 1 {
			t.Errorf("%s: got failures %q", name, failures)
		}
	}
}

func TestTheRuntimesOwnTransportStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		rt := watt.New(echo("a", "b"), echo("b"))
		rt.Transport = func(caller string, next http.RoundTripper) http.RoundTripper {
			return transport(func(req *http.Request) (*http.Response, error) {
				seen = append(seen, caller+">"+req.URL.Host)
				return next.RoundTrip(req)
			})
		}
		top := watttest.Start(t, rt)
		top.Get("http://a.watt.local/")
		if got := strings.Join(seen, " "); got != ">a.watt.local a>b.watt.local" {
			t.Errorf("got %s", got)
		}
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestWhatCannotLiveInABubbleFailsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listening, apart := echo("public"), echo("apart")
		listening.Listen, apart.Isolation = "127.0.0.1:0", watt.OwnProcess
		rt := watt.New(listening, apart, watt.App{Name: "elsewhere", URL: "http://127.0.0.1:1", Listen: ":1"}, echo("inside"))
		rt.Admin = &http.Server{Addr: "127.0.0.1:0"}
		rec := &recorder{TB: t}
		got := rec.run(func(r *recorder) { watttest.Start(r, rt) })
		want := `watttest: in a synctest bubble Admin cannot listen: leave it out; app "public" cannot listen: set its Listen to "" by Update; ` +
			`app "apart" cannot have processes of its own: set its Isolation to InProcess by Update`
		if len(got) != 1 || got[0] != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
