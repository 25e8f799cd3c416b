// Command outside asks somebody else's API through the one app that owns the way there: it keeps to the API's rate,
// tries again what may be tried again, and stops asking when that is of no use.
//
//	go run ./examples/outside -api https://example.com
//	curl 127.0.0.1:8080/
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
	"github.com/org/watt/pyramid"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "public address")
	api := flag.String("api", "https://example.com", "the API")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := newOutside(*listen, *api).Run(ctx); err != nil {
		log.Fatal(err)
	}
}

func newOutside(listen, api string) *watt.Runtime {
	return watt.New(pyramid.New(
		watt.App{Name: "web", Listen: listen, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return pyramid.Proxy(env, "outside"), nil
		}},
		watt.App{Name: "outside", Profile: watt.IOBound, New: newAsker(api)},
	)...)
}

// newAsker returns what makes the app that asks the API.
func newAsker(api string) func(context.Context, *watt.Env) (http.Handler, error) {
	return func(_ context.Context, env *watt.Env) (http.Handler, error) {
		base, err := url.Parse(api)
		if err != nil {
			return nil, err
		}
		own := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
		env.Cleanup(func() error {
			own.CloseIdleConnections()
			return nil
		})
		a := &asker{base: base, client: newClient(own)}
		limit := &funnel.Limit{Total: 50, PerCaller: 40} // what the API allows; nobody gets all of it
		return limit.Handler(a), nil
	}
}

type asker struct {
	base   *url.URL
	client *client
}

// ServeHTTP asks the API what it was asked.
func (a *asker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to := a.base.JoinPath(r.URL.Path)
	to.RawQuery = r.URL.RawQuery
	req, err := http.NewRequestWithContext(r.Context(), r.Method, to.String(), r.Body)
	if err != nil {
		watt.WriteError(w, err)
		return
	}
	req.ContentLength = r.ContentLength
	for _, name := range []string{"Accept", "Content-Type", "Idempotency-Key"} {
		if v := r.Header[name]; v != nil {
			req.Header[name] = v
		}
	}
	resp, err := a.client.Do(req)
	if errors.Is(err, circuitbreaker.ErrOpen) || errors.Is(err, budget.ErrExceeded) {
		err = &watt.CallError{RetryAfter: a.client.breaker.RemainingDelay(), Err: watt.ErrUnavailable} // 503
	} else if err != nil && r.Context().Err() == nil {
		err = &watt.CallError{Err: err} // 502, and not 500: it is not this app's failure
	}
	if err != nil {
		watt.WriteError(w, err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	for _, name := range []string{"Content-Type", "Retry-After"} {
		if v := resp.Header[name]; v != nil {
			w.Header()[name] = v
		}
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}
