package pyramid_test

import (
	"context"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// sleeping is an app that does what its paths say, one second each time.
func sleeping() watt.App {
	return handling("slow", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
		case "/upgrade":
			time.Sleep(time.Second)
			chat(w, r)
			return
		}
		time.Sleep(time.Second)
		io.WriteString(w, "1")
		if r.URL.Path != "/" {
			http.NewResponseController(w).Flush()
			time.Sleep(time.Second)
			io.WriteString(w, "2")
		}
	})
}

// busy is a gateway that takes a second for what it does itself, before any handler.
func busy(handlers func(env *watt.Env) map[string]http.Handler) watt.App {
	return watt.App{Name: "gateway", Calls: []string{"slow"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		mux := http.NewServeMux()
		for path, h := range handlers(env) {
			mux.Handle(path, h)
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			mux.ServeHTTP(w, r)
		}), nil
	}}
}

func TestTheTimeOfAnEntrypointIsItsOwnOrThatOfTheAppsBehind(t *testing.T) {
	part := pyramid.Part{App: "slow", Path: "/"}
	computed := pyramid.Part{Func: func(*http.Request) (any, error) { time.Sleep(3 * time.Second); return 1, nil }}
	shared := pyramid.Part{App: "slow", Path: "/", Coalesce: true}
	handlers := func(env *watt.Env) map[string]http.Handler {
		later := pyramid.Part{Func: func(r *http.Request) (any, error) {
			time.Sleep(time.Second / 2)
			return watt.JSON[any](env.Get(r.Context(), "http://slow.watt.local/"))
		}}
		return map[string]http.Handler{
			"/proxied/":   http.StripPrefix("/proxied", pyramid.Proxy(env, "slow")),
			"/composed":   pyramid.Compose(env, pyramid.Parts{"a": part, "b": part}),
			"/staggered":  pyramid.Compose(env, pyramid.Parts{"a": part, "b": later}),
			"/computed":   pyramid.Compose(env, pyramid.Parts{"a": part, "b": computed}),
			"/coalesced":  pyramid.Compose(env, pyramid.Parts{"a": shared}),
			"/unanswered": pyramid.Compose(env, pyramid.Parts{"a": {App: "slow", Path: "/", Optional: true, Timeout: 500 * time.Millisecond}}),
		}
	}
	const second = time.Second
	for path, c := range map[string]struct {
		requests         int
		busy, downstream time.Duration
	}{
		"/proxied/":         {1, 2 * second, second},
		"/proxied/streamed": {1, 3 * second, 2 * second},
		"/proxied/events":   {1, 2 * second, second}, // then its worker is another request's
		"/proxied/upgrade":  {1, 2 * second, second}, // likewise
		"/composed":         {1, 2 * second, second},
		"/staggered":        {1, 2*second + second/2, second + second/2},
		"/computed":         {1, 4 * second, second}, // what a function computes is the entrypoint's own
		"/coalesced":        {3, 6 * second, 3 * second},
		"/unanswered":       {1, second + second/2, second / 2},
	} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startHome(t, busy(handlers), sleeping())
				var all sync.WaitGroup
				for range c.requests {
					all.Go(func() { h.spend(t, path) })
				}
				all.Wait()
				synctest.Wait()
				s := h.rt.Status()[1]
				if s.BusyTime != c.busy || s.DownstreamTime != c.downstream {
					t.Errorf("%s: got %v, of which %v downstream, want %v and %v", s.Name, s.BusyTime, s.DownstreamTime, c.busy, c.downstream)
				}
			})
		})
	}
}

// spend sends a request, and holds on to an upgraded connection for a minute.
func (h *home) spend(t *testing.T, path string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://gateway.watt.local"+path, http.NoBody)
	if err != nil {
		t.Error(err)
		return
	}
	if path == "/proxied/upgrade" {
		req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
	}
	resp, err := h.rt.Env().Client.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		time.Sleep(time.Minute)
	} else if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
}
