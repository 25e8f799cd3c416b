package watt_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
)

// What somebody has to find out at night.

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

// wrapped hides a writer as middleware does.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestWhatWriteErrorAnswersWith500IsLogged(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	rt := watt.New(watt.App{Name: "a", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := errors.New("no such table")
		if r.URL.Path == "/busy" {
			err = watt.ErrOverloaded
		}
		watt.WriteError(wrapped{w}, err)
	})})
	rt.Logger = zap.New(core)
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rt.Shutdown(context.Background()) })
	get(t.Context(), rt, "a.watt.local/rows")
	get(t.Context(), rt, "a.watt.local/busy")
	lines := logs.FilterMessage("request failed").All()
	if len(lines) != 1 {
		t.Fatalf("got %d lines, want one: an overload is summed up elsewhere", len(lines))
	}
	fields := lines[0].ContextMap()
	if fields["error"] != "no such table" || fields["request"] != "GET /rows" || fields["app"] != "a" {
		t.Errorf("got %v", fields)
	}
}

func TestJSONTakesNoContentForTheZeroValue(t *testing.T) {
	rt := start(t, app("a", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	if v, err := watt.JSON[struct{ Name string }](rt.Env().Get(t.Context(), "http://a.watt.local/")); err != nil || v.Name != "" {
		t.Errorf("got %v, %v", v, err)
	}
}
