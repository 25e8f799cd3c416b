package watt_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// patience bounds what a test waits for on real sockets.
const patience = 10 * time.Second

// start runs apps until the test ends, and fails it if they leave anything behind.
func start(t *testing.T, apps ...watt.App) *watt.Runtime {
	t.Helper()
	rt := watt.New(apps...)
	watttest.Start(t, rt)
	return rt
}

// logging runs apps until the test ends, or shuts them down, and returns what they log from a level on.
func logging(t *testing.T, level zapcore.LevelEnabler, apps ...watt.App) (*watt.Runtime, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(level)
	rt := watt.New(apps...)
	rt.Logger = zap.New(core)
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rt.Shutdown(context.Background()) })
	return rt, logs
}

// app is an app with a handler that calls nobody.
func app(name string, h http.HandlerFunc) watt.App { return watt.App{Name: name, Handler: h} }

// calling is an app with a handler that calls others.
func calling(name string, h func(env *watt.Env, w http.ResponseWriter, r *http.Request), calls ...string) watt.App {
	return watt.App{Name: name, Calls: calls, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(env, w, r) }), nil
	}}
}

// public gives an app a port of its own.
func public(a watt.App) watt.App {
	a.Listen = "127.0.0.1:0"
	return a
}

// read returns the whole body of an answer that must have come.
func read(t *testing.T, resp *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("reading the body: %v", err)
	}
	return string(body)
}

// text returns the body of an answer, or why there is none.
func text(resp *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// request is an http.NewRequest that does not fail.
func request(ctx context.Context, method, url string, body io.Reader) *http.Request {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		panic(err)
	}
	return req
}

// upgrading is a request for another protocol, for which there must be a connection: the one that strangers may ask for.
func upgrading(ctx context.Context, url string) *http.Request {
	req := request(ctx, http.MethodGet, url, http.NoBody)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	return req
}

// dialTCP connects to a public door; the connection ends with the test, or when patience does.
func dialTCP(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// raw sends bytes to a public door and returns all that it answers until it closes the connection.
func raw(t *testing.T, addr, text string) string {
	t.Helper()
	conn := dialTCP(t, addr)
	io.WriteString(conn, text)
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("after %q: %v", answer, err)
	}
	return string(answer)
}

// within returns what c gives, or fails the test if that does not come in time.
func within[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// soon waits until ok, which follows from what the test has seen, but perhaps a moment later.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !ok(); <-tick.C {
		if time.Since(began) > patience {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// more waits until n more are counted, however long the machine takes for all of them.
func more(t *testing.T, what string, counted *atomic.Int64, n int64) {
	t.Helper()
	for now, most := counted.Load(), counted.Load()+n; now < most; now = counted.Load() {
		soon(t, what, func() bool { return counted.Load() > now })
	}
}

// statusOf returns the status of the app called name.
func statusOf(t *testing.T, rt *watt.Runtime, name string) watt.Status {
	t.Helper()
	for _, s := range rt.Status() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no app %q", name)
	return watt.Status{}
}

// result is what a call came to.
type result struct {
	status int
	body   string
	err    error
	took   time.Duration
}

// get calls app/path as main would, and reads the answer to its end.
func get(ctx context.Context, rt *watt.Runtime, path string) result {
	began := time.Now()
	resp, err := rt.Env().Get(ctx, "http://"+path)
	if err != nil {
		return result{err: err, took: time.Since(began)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return result{resp.StatusCode, string(body), err, time.Since(began)}
}

// going is get in a goroutine of its own.
func going(ctx context.Context, rt *watt.Runtime, path string) <-chan result {
	c := make(chan result, 1)
	go func() { c <- get(ctx, rt, path) }()
	return c
}

// work serves /<duration>: it answers with the path when that time has passed, or not at all when the
// request's context ends before.
func work(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.URL.Path[1:])
	if err != nil {
		d = 0
	}
	select {
	case <-time.After(d):
		io.WriteString(w, r.URL.Path)
	case <-r.Context().Done():
	}
}

// working is an app that runs work.
func working(name string, change func(*watt.App)) watt.App {
	app := watt.App{Name: name, Handler: http.HandlerFunc(work)}
	if change != nil {
		change(&app)
	}
	return app
}

// wantErr fails the test unless err wraps want.
func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

// wantTook fails the test unless d is want, exactly: fake time passes only where somebody waits.
func wantTook(t *testing.T, d, want time.Duration) {
	t.Helper()
	if d != want {
		t.Errorf("it took %v, want %v", d, want)
	}
}
