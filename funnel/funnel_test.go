package funnel_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

func TestNewWiresTheTwoAndLeavesTheRestToTheProfiles(t *testing.T) {
	calls := make([]string, 1, 8)
	calls[0] = "mail"
	cpu, store := funnel.New(watt.App{Name: "resize", Calls: calls, Handler: http.NotFoundHandler()}, watt.App{Name: "store"})
	if want := []string{"mail", "store"}; !slices.Equal(cpu.Calls, want) || calls[:2][1] != "" {
		t.Errorf("got Calls %v, want %v, and %v unchanged", cpu.Calls, want, calls[:2])
	}
	if cpu.Profile != watt.CPUBound || store.Profile != watt.IOBound || cpu.Isolation != 0 || cpu.Workers != 0 || store.Workers != 0 {
		t.Errorf("got %+v and %+v", cpu, store)
	}
	cpu, store = funnel.New(watt.App{Name: "a", Calls: []string{"b"}, Profile: watt.Entrypoint}, watt.App{Name: "b", Profile: watt.CPUBound})
	if !slices.Equal(cpu.Calls, []string{"b"}) || cpu.Profile != watt.Entrypoint || store.Profile != watt.CPUBound {
		t.Errorf("got %+v and %+v, want what they have kept", cpu, store)
	}
}

func TestMistakesAreLeftForTheRuntimeToReport(t *testing.T) {
	serve := func(context.Context, *watt.Env, net.Listener) error { return nil }
	for want, cpu := range map[string]watt.App{
		"none is set":           {Name: "a"},
		"more than one is set":  {Name: "a", Handler: http.NotFoundHandler(), Serve: serve},
		"more than one is set ": {Name: "a", Handler: http.NotFoundHandler(), New: returning(nil, nil)},
		"neither a handler":     {Name: "a", New: returning(nil, nil)},
		"on purpose":            {Name: "a", New: returning(nil, errors.New("on purpose"))},
	} {
		cpu.Isolation = watt.InProcess
		rt := watt.New(funnel.New(cpu, watt.App{Name: "b", Handler: http.NotFoundHandler()}))
		if err := rt.Start(t.Context()); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("got %v, want %q", err, want)
			rt.Shutdown(context.Background())
		}
	}
}

func returning(h http.Handler, err error) func(context.Context, *watt.Env) (http.Handler, error) {
	return func(context.Context, *watt.Env) (http.Handler, error) { return h, err }
}

func TestTheWrongWayRoundIsRefusedWithBothNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := watt.App{Name: "store", Handler: http.NotFoundHandler()}
		resize := watt.App{Name: "resize", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := env.Get(r.Context(), "http://store.watt.local/")
				if !errors.Is(err, watt.ErrNotAllowed) || !strings.Contains(err.Error(), `add "store" to Calls of app "resize"`) {
					t.Errorf("got %v", err)
				}
				watt.WriteError(w, err)
			}), nil
		}}
		top := watttest.Start(t, watt.New(funnel.New(store, resize)))
		if status, _ := top.Get("http://resize.watt.local/"); status != http.StatusForbidden {
			t.Errorf("got %d, want 403", status)
		}
	})
}

// job is a CPU-bound app that counts the jobs that it has begun, and passes them on.
func job(name string, begun *atomic.Int64) watt.App {
	return watt.App{Name: name, Workers: 8, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begun.Add(1)
			resp, err := env.Get(r.Context(), "http://store.watt.local/")
			if err != nil {
				watt.WriteError(w, err)
				return
			}
			resp.Body.Close()
		}), nil
	}}
}

// slow serves a request in d.
func slow(d time.Duration) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
	})
}

func TestWorkThatCouldNotBeStoredIsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		cpu, store := funnel.New(job("job", &begun), watt.App{Name: "store", Workers: 1, Queue: 4, QueueTimeout: time.Minute, Handler: slow(3 * time.Second)})
		rt := watt.New(pyramid.New(watt.App{Name: "gateway"}, cpu, store)...)
		top := watttest.Start(t, rt)
		if status, _ := top.Get("http://job.watt.local/"); status != http.StatusOK || begun.Load() != 1 {
			t.Fatalf("got %d and %d begun, want 200 and 1", status, begun.Load())
		}
		for range 5 {
			go top.Get("http://job.watt.local/")
		}
		synctest.Wait()
		resp, err := rt.Env().Get(t.Context(), "http://gateway.watt.local/job/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		after := resp.Header.Get("Retry-After")
		if resp.StatusCode != http.StatusServiceUnavailable || begun.Load() != 6 {
			t.Errorf("got %s with %d begun, want 503 and 6", resp.Status, begun.Load())
		}
		if d, err := time.ParseDuration(after + "s"); err != nil || d < 12*time.Second || d > 19*time.Second { // 4 wait for 3 s each, and half as much at random
			t.Errorf("got Retry-After %q, want what the store needs for those who wait", after)
		}
		time.Sleep(20 * time.Second)
		if status, _ := top.Get("http://job.watt.local/"); status != http.StatusOK {
			t.Errorf("got %d afterwards, want 200", status)
		}
	})
}

func TestAHandlerIsGuardedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
		top := watttest.Start(t, watt.New(funnel.New(
			watt.App{Name: "job", Handler: hello},
			watt.App{Name: "store", Workers: 1, Queue: -1, Handler: slow(time.Second)},
		)))
		if status, body := top.Get("http://job.watt.local/"); status != http.StatusOK || body != "hello" {
			t.Errorf("got %d %q, want 200", status, body)
		}
		go top.Get("http://store.watt.local/")
		synctest.Wait()
		if status, _ := top.Get("http://job.watt.local/"); status != http.StatusServiceUnavailable {
			t.Errorf("got %d, want 503", status)
		}
	})
}

func TestAnAppThatServesByItselfAndOneElsewhereAreLeftAlone(t *testing.T) {
	serve := func(ctx context.Context, _ *watt.Env, _ net.Listener) error { <-ctx.Done(); return nil }
	cpu, _ := funnel.New(watt.App{Name: "a", Serve: serve}, watt.App{Name: "b"})
	if cpu.New != nil || cpu.Serve == nil {
		t.Error("got another app than the one that serves")
	}
	if cpu, _ = funnel.New(watt.App{Name: "a", URL: "http://a"}, watt.App{Name: "b"}); cpu.New != nil {
		t.Error("got a New for an app that runs elsewhere")
	}
}
