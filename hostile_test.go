package watt_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/org/watt"
)

// What strangers and careless apps must not be able to do.

// halfRequest sends the head of a request, and nothing of its body.
func halfRequest(t *testing.T, rt *watt.Runtime) {
	t.Helper()
	conn, err := net.Dial("tcp", rt.Status()[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	before := rt.Status()[0].Admitted
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
	soon(t, "the request", func() bool { return rt.Status()[0].Admitted > before }) // and perhaps it is over again
}

func readAll(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }

func TestAStrangersSilentBodyHoldsNoWorkerBeyondTimeout(t *testing.T) {
	web := public(app("web", readAll))
	web.Timeout = 100 * time.Millisecond
	rt := start(t, web)
	halfRequest(t, rt)
	soon(t, "the worker", func() bool { return rt.Status()[0].Busy == 0 })
}

func TestABodyThatIsNoneIsTheClientsFault(t *testing.T) {
	rt, logs := logging(t, zapcore.WarnLevel, public(app("web", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			watt.WriteError(w, fmt.Errorf("reading: %w", err))
		}
	})))
	for body, want := range map[string]int{"2\r\nok\r\n0\r\n\r\n": http.StatusOK, "zz\r\n": http.StatusBadRequest, "2\r\nokay\r\n": http.StatusBadRequest} {
		conn, err := net.Dial("tcp", rt.Status()[0].Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+body)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%q: got %s, want %d", body, resp.Status, want)
		}
	}
	if logs.Len() > 0 {
		t.Errorf("got %v", logs.All())
	}
}

func TestADrainCutsWhatWaitsForAStranger(t *testing.T) {
	var running atomic.Bool
	cleaned := make(chan bool, 2)
	web := public(watt.App{Name: "web", Workers: 1, DrainTimeout: 50 * time.Millisecond, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		env.Cleanup(func() error {
			cleaned <- running.Load()
			return nil
		})
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Store(true)
			defer running.Store(false)
			readAll(w, r)
		}), nil
	}})
	rt := watt.New(web)
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	halfRequest(t, rt)
	if err := rt.Restart("web", 0); err != nil {
		t.Error(err)
	}
	if s := rt.Status()[0]; s.Busy != 0 || s.Abandoned != 0 {
		t.Errorf("after the restart: busy %d, abandoned %d, want 0", s.Busy, s.Abandoned)
	}
	halfRequest(t, rt)
	if err := rt.Shutdown(t.Context()); err == nil || strings.Contains(err.Error(), "abandoned") {
		t.Errorf("got %v, want a report of what was cut, and nothing abandoned", err)
	}
	if first, second := <-cleaned, <-cleaned; first || second {
		t.Error("a Cleanup ran beside a handler")
	}
}

func TestConnectionNamesNoHeaderThatAnAppAdds(t *testing.T) {
	got := make(chan string, 1)
	rt := start(t, public(calling("web", func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Watt-User", "7")
		(&httputil.ReverseProxy{
			Rewrite:   func(p *httputil.ProxyRequest) { p.SetURL(&url.URL{Scheme: "http", Host: "inside.watt.local"}) },
			Transport: env.Client.Transport,
		}).ServeHTTP(w, r)
	}, "inside")), app("inside", func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("X-Watt-User") }))
	req := request(t.Context(), http.MethodGet, "http://"+publicAddr(t, rt, "web")+"/", nil)
	req.Header["Connection"] = []string{"close, X-Watt-User"}
	resp, err := new(http.Transport).RoundTrip(req)
	read(t, resp, err)
	if user := <-got; user != "7" {
		t.Errorf("the app behind got user %q, want 7", user)
	}
}

func TestADoorThatCannotServeIsNoDoor(t *testing.T) {
	err := watt.New(watt.App{Name: "web", Listen: "127.0.0.1:0", TLS: &tls.Config{}, Handler: http.NotFoundHandler()}).Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), `"web": TLS`) {
		t.Errorf("TLS without a certificate: got %v", err)
	}
	broken := public(app("web", sayHello))
	broken.Critical = true
	rt := watt.New(broken)
	rt.Listen = func(context.Context, string, string) (net.Listener, error) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		return brokenListener{ln}, err
	}
	if err := rt.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "broken for good") {
		t.Errorf("a critical door that has ended: Run returned %v", err)
	}
}

type brokenListener struct{ net.Listener }

func (brokenListener) Accept() (net.Conn, error) { return nil, errors.New("broken for good") }

func TestGoexitInAnAppsCodeIsAnErrorOfItsOwn(t *testing.T) {
	err := watt.New(watt.App{Name: "a", New: func(context.Context, *watt.Env) (http.Handler, error) {
		runtime.Goexit()
		return nil, nil
	}}).Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "New has ended its goroutine") {
		t.Errorf("New: got %v", err)
	}
	rt := watt.New(watt.App{Name: "a", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		env.Cleanup(func() error {
			runtime.Goexit()
			return nil
		})
		return http.NotFoundHandler(), nil
	}})
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := rt.Shutdown(t.Context()); err == nil || !strings.Contains(err.Error(), "Cleanup has ended its goroutine") {
		t.Errorf("Cleanup: got %v", err)
	}
}

func TestACleanupOrAnUpdateThatBlocksDoesNotBlockTheShutdown(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	rt := watt.New(watt.App{Name: "a", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		env.Cleanup(func() error {
			<-release
			return nil
		})
		return http.NotFoundHandler(), nil
	}})
	rt.ShutdownTimeout = 50 * time.Millisecond
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	updating := make(chan struct{})
	go func() {
		_ = rt.Update("a", func(*watt.App) {
			close(updating)
			<-release
		})
	}()
	within(t, updating, "the update")
	stopped := make(chan error, 1)
	go func() { stopped <- rt.Shutdown(t.Context()) }()
	if err := within(t, stopped, "the shutdown"); err == nil || !strings.Contains(err.Error(), "a Cleanup does not return") {
		t.Errorf("got %v", err)
	}
	if err := rt.Update("a", func(*watt.App) {}); err == nil {
		t.Error("an update after the shutdown works")
	}
}

func TestAnUpdateThatOutlastsTheRuntimeStartsNothing(t *testing.T) {
	var started atomic.Int64
	rt := watt.New(watt.App{Name: "a", New: func(context.Context, *watt.Env) (http.Handler, error) {
		started.Add(1)
		return http.NotFoundHandler(), nil
	}})
	rt.ShutdownTimeout = 50 * time.Millisecond
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	updating, release, updated := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		updated <- rt.Update("a", func(a *watt.App) {
			close(updating)
			<-release
			a.Instances = 3
		})
	}()
	within(t, updating, "the update")
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	close(release)
	wantErr(t, within(t, updated, "the end of the update"), watt.ErrUnavailable)
	if n := started.Load(); n != 1 {
		t.Errorf("%d instances have started, want one", n)
	}
}

func TestTheCallersCodeRunsWithoutLocks(t *testing.T) {
	rt := watt.New(app("a", sayHello))
	rt.Transport = func(_ string, next http.RoundTripper) http.RoundTripper {
		_ = rt.Env().App
		_ = rt.Status()
		return next
	}
	var kept *watt.App
	done := make(chan error, 1)
	go func() {
		err := rt.Update("a", func(a *watt.App) {
			_ = rt.Status()
			kept = a
		})
		done <- errors.Join(err, rt.Start(t.Context()))
	}()
	if err := within(t, done, "the start"); err != nil {
		t.Fatal(err)
	}
	defer rt.Shutdown(context.Background())
	kept.Workers = 1
	if w := rt.Status()[0].Workers; w != 64 {
		t.Errorf("a kept pointer changes the configuration in force: %d workers", w)
	}
}

func TestAHandlersInvalidStatusIsItsPanicAndNoCutConnection(t *testing.T) {
	rt := start(t, app("a", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(1000) }))
	resp, err := rt.Env().Get(t.Context(), "http://a.watt.local/")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("got %s, want 500", resp.Status)
	}
}

// The server closes a connection over which a handler has written too much, and another call may already have it.
func TestAHandlerThatWritesTooMuchFailsNobodyElse(t *testing.T) {
	rt := start(t, app("users", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(w, "ok")
		_, _ = io.WriteString(w, "too much")
	}))
	for range 100 {
		req := request(t.Context(), http.MethodPost, "http://users.watt.local/", strings.NewReader("body"))
		req.Trailer = http.Header{"Sum": {"1"}}
		req.ContentLength = -1
		resp, err := rt.Env().Client.Do(req)
		if got := read(t, resp, err); got != "ok" {
			t.Fatalf("got %q", got)
		}
	}
}

func TestAStrangerIsToldThatAnAnswerOfTooMuchEndsTheConnection(t *testing.T) {
	rt := start(t, public(app("web", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(w, "ok")
		_, _ = io.WriteString(w, "too much")
	})))
	if got := raw(t, publicAddr(t, rt, "web"), "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.Contains(got, "\r\nConnection: close\r\n") {
		t.Errorf("got %q, want Connection: close", got)
	}
}

func TestACallToAServeAppGoesToTheInstanceWhoseWorkerItHolds(t *testing.T) {
	release, began := make(chan struct{}), make(chan int, 2)
	serve := watt.App{Name: "a", Instances: 2, Workers: 1, Serve: func(ctx context.Context, env *watt.Env, ln net.Listener) error {
		server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			began <- env.Instance
			<-release
		})}
		context.AfterFunc(ctx, func() { _ = server.Close() })
		return server.Serve(ln)
	}}
	rt := start(t, serve, calling("caller", nil, "a"))
	for range 2 {
		go func() {
			if resp, err := rt.Env().Get(context.Background(), "http://a.watt.local/"); err == nil {
				resp.Body.Close()
			}
		}()
	}
	if first, second := within(t, began, "a call"), within(t, began, "the other"); first == second {
		t.Errorf("both calls run on instance %d, each of which has one worker", first)
	}
	close(release)
}

func TestTheQueueWaitsNoLongerThanTimeout(t *testing.T) {
	a, busy := full()
	a.Queue, a.QueueTimeout, a.Timeout = 10, time.Hour, 50*time.Millisecond
	rt := start(t, a)
	occupy(t, rt, busy)
	began := time.Now()
	_, err := rt.Env().Get(t.Context(), "http://full.watt.local/")
	if took := time.Since(began); err == nil || took > 5*time.Second {
		t.Errorf("got %v after %v", err, took)
	}
}
