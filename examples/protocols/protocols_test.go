package protocols_test

import (
	"context"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// limit bounds every wait of the tests.
const limit = 10 * time.Second

// start runs apps until the test ends.
func start(t *testing.T, apps ...watt.App) (*watt.Runtime, *watttest.Topology) {
	t.Helper()
	rt := watt.New(apps...)
	return rt, watttest.Start(t, rt)
}

// deadline is a context that outlives no test.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// shutdown ends rt while the test still has connections, and wants nothing cut.
func shutdown(t *testing.T, rt *watt.Runtime) {
	t.Helper()
	began := time.Now()
	if err := rt.Shutdown(deadline(t)); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if took := time.Since(began); took > limit/2 {
		t.Errorf("the shutdown took %v", took)
	}
}

// receive returns what comes next from c.
func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatal("nothing comes")
		panic("not reached")
	}
}

// gateway is an app with a public port that passes everything on to another.
func gateway(app string) watt.App {
	return watt.App{
		Name: "gateway", Listen: "127.0.0.1:0", Profile: watt.Entrypoint, Calls: []string{app},
		New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return &httputil.ReverseProxy{
				Rewrite: func(r *httputil.ProxyRequest) {
					r.SetURL(&url.URL{Scheme: "http", Host: app + ".watt.local"})
				},
				Transport:    env.Client.Transport,
				ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { watt.WriteError(w, err) },
				ErrorLog:     zap.NewStdLog(env.Logger),
			}, nil
		},
	}
}
