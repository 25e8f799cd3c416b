package watt_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

func TestShutdownDrainsCallersBeforeCallees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary()
		relay := func(name, callee string) watt.App {
			return watt.App{Name: name, Calls: []string{callee}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
				env.Cleanup(func() error { d.note("%s is cleaned up", name); return nil })
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					time.Sleep(time.Second) // the drain has begun when it calls
					resp, err := env.Get(r.Context(), "http://"+callee+".watt.local"+r.URL.Path)
					if err != nil {
						watt.WriteError(w, err)
						return
					}
					defer resp.Body.Close()
					io.Copy(w, resp.Body)
				}), nil
			}}
		}
		last := d.slow("c", 0, nil)
		rt := watt.New(last, relay("b", "c"), relay("a", "b"))
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		inFlight := going(t.Context(), rt, "a.watt.local/1s")
		synctest.Wait()
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if r := <-inFlight; r.status != http.StatusOK || r.body != "/1s" {
			t.Errorf("got %+v", r)
		}
		d.want(t, "0s c starts", "3s a is cleaned up", "3s b is cleaned up", "3s c is cleaned up")
		for _, name := range []string{"a", "b", "c"} {
			wantErr(t, get(t.Context(), rt, name+".watt.local/0s").err, watt.ErrUnavailable)
			if s := statusOf(t, rt, name); s.State != "stopped" || s.PerInstance[0].State != "stopped" {
				t.Errorf("%s is %s", name, s.State)
			}
		}
	})
}

func TestTheDrainIsLimitedPerAppAndOverall(t *testing.T) {
	for name, c := range map[string]struct {
		app, overall, caller, took time.Duration
		text                       string
	}{
		"DrainTimeout":               {3 * time.Second, time.Minute, 0, 3 * time.Second, "1 request or connection was cut"},
		"ShutdownTimeout":            {time.Minute, 4 * time.Second, 0, 4 * time.Second, "1 request or connection was cut"},
		"Shutdown's context":         {time.Minute, time.Minute, 2 * time.Second, 2 * time.Second, "1 request or connection was cut"},
		"no DrainTimeout of its own": {-1, 5 * time.Second, 0, 5 * time.Second, "1 request or connection was cut"},
		"within the limits":          {20 * time.Second, 20 * time.Second, 0, 10 * time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := watt.New(working("a", func(a *watt.App) { a.DrainTimeout = c.app }), working("b", nil))
				rt.ShutdownTimeout = c.overall
				if err := rt.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				inFlight := going(t.Context(), rt, "a.watt.local/10s")
				synctest.Wait()
				ctx := context.Background()
				if c.caller > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.caller)
					defer cancel()
				}
				began := time.Now()
				err := rt.Shutdown(ctx)
				wantTook(t, time.Since(began).Round(10*time.Millisecond), c.took) // connections are looked at now and then
				if c.text == "" {
					if r := <-inFlight; err != nil || r.status != http.StatusOK {
						t.Errorf("got %v, %+v", err, r)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), `app "a", instance 0: `+c.text) || strings.Contains(err.Error(), `"b"`) {
					t.Errorf("got %v", err)
				}
				<-inFlight
			})
		})
	}
}

func TestTheOverallLimitHoldsDuringARestartAndAnUpdate(t *testing.T) {
	for name, change := range map[string]func(*watt.Runtime) error{
		"Restart": func(rt *watt.Runtime) error { return rt.Restart("a", 0) },
		"Update":  func(rt *watt.Runtime) error { return rt.Update("a", func(a *watt.App) { a.Instances = 1 }) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := watt.New(working("a", func(a *watt.App) { a.Instances, a.DrainTimeout, a.Timeout = 2, -1, -1 }))
				rt.ShutdownTimeout = 3 * time.Second
				if err := rt.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				var inFlight []<-chan result
				for range 2 {
					inFlight = append(inFlight, going(t.Context(), rt, "a.watt.local/1h"))
					synctest.Wait()
				}
				changed := make(chan error, 1)
				go func() { changed <- change(rt) }()
				synctest.Wait()
				began := time.Now()
				if err := rt.Shutdown(t.Context()); err == nil {
					t.Error("nothing was cut")
				}
				wantTook(t, time.Since(began).Round(10*time.Millisecond), 3*time.Second)
				<-changed
				for _, c := range inFlight {
					<-c
				}
			})
		})
	}
}

func TestWhatComesAfterTheShutdownHearsThatItIsOver(t *testing.T) {
	rt := watt.New(app("a", sayHello), serving("b", sayHello))
	err := rt.Start(t.Context())
	if err = errors.Join(err, rt.Shutdown(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		_, dialled := rt.Env().Dial(t.Context(), name)
		for _, err := range []error{get(t.Context(), rt, name+".watt.local/").err, dialled, rt.Env().Check(name)} {
			wantErr(t, err, watt.ErrUnavailable)
			if err != nil && !strings.HasSuffix(err.Error(), "stopped") {
				t.Errorf("got error %v, want that it is stopped", err)
			}
		}
	}
	if err := rt.Ready(); err == nil || err.Error() != "watt: stopped" {
		t.Errorf("Ready: got %v", err)
	}
}

func TestFurtherShutdownsWaitForTheFirstAndReturnTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onPurpose := errors.New("on purpose")
		rt := watt.New(working("a", nil))
		rt.Env().Cleanup(func() error { return onPurpose })
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		inFlight := going(t.Context(), rt, "a.watt.local/5s")
		synctest.Wait()
		began := time.Now()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				wantErr(t, rt.Shutdown(context.Background()), onPurpose)
				wantTook(t, time.Since(began).Round(10*time.Millisecond), 5*time.Second)
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantErr(t, rt.Shutdown(ctx), context.DeadlineExceeded) // its own patience
		wantTook(t, time.Since(began), time.Second)
		if err := rt.Ready(); err == nil {
			t.Error("ready while shutting down")
		}
		all.Wait()
		<-inFlight
		wantErr(t, rt.Shutdown(context.Background()), onPurpose)
	})
}

// inMemory is a public listener that works in a bubble.
type inMemory struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newInMemory() *inMemory {
	return &inMemory{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *inMemory) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *inMemory) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *inMemory) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (l *inMemory) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// listening makes rt open in-memory listeners, and returns a client for each address.
func listening(t *testing.T, rt *watt.Runtime, d *diary, addresses ...string) map[string]*http.Client {
	t.Helper()
	clients, listeners := make(map[string]*http.Client), make(map[string]*inMemory)
	for _, a := range addresses {
		listeners[a] = newInMemory()
		transport := &http.Transport{DialContext: listeners[a].dial}
		t.Cleanup(transport.CloseIdleConnections)
		clients[a] = &http.Client{Transport: transport}
	}
	rt.Listen = func(_ context.Context, _, address string) (net.Listener, error) {
		d.note("%s opens", address)
		return listeners[address], nil
	}
	return clients
}

func TestAllPublicDoorsSayConnectionCloseOnceTheShutdownHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary()
		rt := watt.New(
			working("a", func(a *watt.App) { a.Listen, a.Calls = "a:1", []string{"b"} }),
			working("b", func(a *watt.App) { a.Listen = "b:1" }), // a callee: it drains later
		)
		clients := listening(t, rt, d, "a:1", "b:1")
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ask := func(address, path string) *http.Response {
			resp, err := clients[address].Get("http://" + address + path)
			if err != nil {
				t.Errorf("%s: %v", address, err)
				return &http.Response{}
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			return resp
		}
		for address := range clients {
			if resp := ask(address, "/0s"); resp.Close {
				t.Errorf("%s is a lame duck too early", address)
			}
		}
		slow := make(chan *http.Response, 2)
		for address := range clients {
			go func() { slow <- ask(address, "/5s") }()
		}
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- rt.Shutdown(t.Context()) }()
		time.Sleep(time.Second)
		if err := rt.Ready(); err == nil {
			t.Error("ready")
		}
		if resp := ask("b:1", "/0s"); !resp.Close || resp.StatusCode != http.StatusOK { // served, and told to go
			t.Errorf("got %v", resp)
		}
		for range 2 {
			if resp := <-slow; !resp.Close || resp.StatusCode != http.StatusOK {
				t.Errorf("got %v", resp)
			}
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
}

func TestAdminIsOpenedFirstAndClosedLastAndSurvivesAppFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary()
		m := &mortal{live: func(context.Context, int) error { return errors.New("on purpose") }}
		slow := d.slow("a", 2*time.Second, nil)
		slow.Listen = "a:1"
		slow.New = func(next func(context.Context, *watt.Env) (http.Handler, error)) func(context.Context, *watt.Env) (http.Handler, error) {
			return func(ctx context.Context, env *watt.Env) (http.Handler, error) {
				env.Cleanup(func() error { time.Sleep(2 * time.Second); return nil })
				return next(ctx, env)
			}
		}(slow.New)
		rt := watt.New(slow, m.app(func(a *watt.App) { a.MaxRestarts = 1 }))
		rt.Admin = &http.Server{Addr: "admin:1", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if rt.Ready() != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})}
		client := listening(t, rt, d, "admin:1", "a:1")["admin:1"]
		wantAdmin := func(when string) {
			t.Helper()
			resp, err := client.Get("http://admin:1/")
			if err != nil {
				t.Errorf("%s: %v", when, err)
				return
			}
			resp.Body.Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- rt.Run(ctx) }()
		time.Sleep(time.Second)
		wantAdmin("while it starts")
		time.Sleep(5 * time.Second)
		if s := statusOf(t, rt, "mortal"); s.State != "failed" {
			t.Errorf("got %s", s.State)
		}
		wantAdmin("with a failed app")
		time.Sleep(5 * time.Second)
		wantAdmin("while it drains")
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if resp, err := client.Get("http://admin:1/"); err == nil {
			resp.Body.Close()
			t.Error("admin still answers")
		}
		d.want(t, "0s admin:1 opens", "0s a:1 opens", "0s a starts", "10s a is cleaned up")
	})
}

func TestShutdownTimeoutBoundsAllAppsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		stuck := func(name string, calls ...string) watt.App {
			return watt.App{Name: name, Calls: calls, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })}
		}
		rt := watt.New(stuck("a", "b"), stuck("b", "c"), stuck("c", "d"), stuck("d"))
		rt.ShutdownTimeout = 5 * time.Second
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b", "c", "d"} {
			going(t.Context(), rt, name+".watt.local/stuck")
		}
		synctest.Wait()
		began := time.Now()
		err := rt.Shutdown(t.Context())
		if took := time.Since(began); took < 5*time.Second || took > 7*time.Second {
			t.Errorf("the shutdown took %v, want 5 s and a grace of one", took)
		}
		for _, want := range []string{`"d"`, "GET /stuck", "abandoned", "ShutdownTimeout of 5s has passed"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("the report does not say %s: %v", want, err)
			}
		}
		close(release)
	})
}

func TestAServeThatDoesNotReturnIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		rt := watt.New(watt.App{Name: "a", Serve: func(context.Context, *watt.Env, net.Listener) error {
			<-release
			return nil
		}})
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := rt.Shutdown(t.Context())
		for _, want := range []string{"Serve does not return", "DrainTimeout of 10s has passed"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("the report does not say %q: %v", want, err)
			}
		}
		close(release)
		synctest.Wait()
	})
}

// TestWhoIsShutDownHasCountedItsLastRequest, also if that has panicked and the log takes its time.
func TestWhoIsShutDownHasCountedItsLastRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(app("a", func(http.ResponseWriter, *http.Request) { panic("on purpose") }))
		core, _ := observer.New(zapcore.ErrorLevel)
		rt.Logger = zap.New(core, zap.Hooks(func(zapcore.Entry) error { time.Sleep(time.Second); return nil }))
		watttest.Start(t, rt)
		answered := going(t.Context(), rt, "a.watt.local/")
		synctest.Wait()
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(statusOf(t, rt, "a").PerInstance[0].Requests); got != "map[GET:map[5xx:1]]" {
			t.Errorf("counted are %s", got)
		}
		<-answered
	})
}
