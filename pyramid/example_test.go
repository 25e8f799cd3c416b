package pyramid_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/go-chi/chi/v5"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// A gateway that needs no code: each app is below its name.
func ExampleNew() {
	users := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "user %s, asked for by %s", r.URL.Path, watt.Caller(r.Context()))
	}
	shown([]string{"/users/7"}, pyramid.New(
		watt.App{Name: "gateway", Listen: "127.0.0.1:0"},
		watt.App{Name: "users", Handler: http.HandlerFunc(users)},
	)...)
	// Output: 200  user /7, asked for by gateway
}

// A gateway that knows who is signed in, and tells the app behind. It may believe X-Watt-User: no header that
// begins with X-Watt- ever comes in from outside.
func ExampleProxy() {
	signedIn := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.FormValue("password") != "secret" {
				http.Error(w, "sign in first", http.StatusUnauthorized)
				return
			}
			r.Header.Set("X-Watt-User", "7")
			next.ServeHTTP(w, r)
		})
	}
	gateway := func(_ context.Context, env *watt.Env) (http.Handler, error) {
		r := chi.NewRouter()
		r.With(signedIn).Mount("/orders", pyramid.Proxy(env, "orders"))
		return r, nil
	}
	orders := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "order %s of user %s", r.URL.Path, r.Header.Get("X-Watt-User"))
	}
	shown([]string{"/orders/12?password=secret", "/orders/12"}, pyramid.New(
		watt.App{Name: "gateway", Listen: "127.0.0.1:0", New: gateway},
		watt.App{Name: "orders", Handler: http.HandlerFunc(orders)},
	)...)
	// Output:
	// 200  order /12 of user 7
	// 401  sign in first
}

// A gateway behind load balancers in 10.0.0.0/8, which tell where a request comes from.
func ExampleTrustProxies() {
	gateway := func(_ context.Context, env *watt.Env) (http.Handler, error) {
		r := chi.NewRouter()
		r.Use(pyramid.TrustProxies(netip.MustParsePrefix("10.0.0.0/8")))
		r.Mount("/users", pyramid.Proxy(env, "users"))
		return r, nil
	}
	users := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q", r.Header.Get("X-Forwarded-Host"))
	}
	shown([]string{"/users/7"}, pyramid.New(
		watt.App{Name: "gateway", New: gateway},
		watt.App{Name: "users", Handler: http.HandlerFunc(users)},
	)...)
	// Output: 200  "gateway.watt.local"
}
