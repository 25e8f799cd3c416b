package watt_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/org/watt"
)

// begin starts a runtime of apps and shuts it down when the test ends; then nothing may have to be cut.
func begin(t *testing.T, apps ...watt.App) *watt.Runtime {
	t.Helper()
	rt := watt.New(apps...)
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rt.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return rt
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
