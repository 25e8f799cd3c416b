package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/cors"
	"github.com/go-chi/httprate"

	"github.com/org/watt"
	"github.com/org/watt/examples/shop/orders"
	"github.com/org/watt/pyramid"
)

const (
	perMinute   = 600                  // requests of one client, unless the shop is its own
	maxForm     = 1 << 10              // bytes
	maxUpload   = 20 << 20             // bytes of a picture
	mostPatient = 2 * time.Second      // for a part that a page can do without
	frontend    = "http://localhost:*" // pages from elsewhere that may use the shop
)

// newGateway returns what makes the only handler that strangers reach. It knows who they are; what they want is
// for the apps behind to know.
func newGateway(key []byte, perMinute int) func(context.Context, *watt.Env) (http.Handler, error) {
	return func(_ context.Context, env *watt.Env) (http.Handler, error) {
		r := chi.NewRouter()
		r.Use(httprate.LimitBy(perMinute, time.Minute, byClient))
		r.Use(cors.Handler(cors.Options{
			AllowedOrigins: []string{frontend},
			AllowedHeaders: []string{"Authorization", "Content-Type", "Idempotency-Key"},
		}))

		r.With(middleware.RequestSize(maxForm)).Post("/token", giveToken(key))
		r.Mount("/users", pyramid.Proxy(env, "users")) // GET /users/7 arrives at users as GET /7
		r.Route("/orders", func(r chi.Router) {
			proxy := pyramid.Proxy(env, "orders")
			r.With(signedIn(key)).Get("/mine", proxy.ServeHTTP)
			r.Handle("/*", proxy)
		})
		r.With(middleware.RequestSize(maxUpload), ifSignedIn(key)).Method(http.MethodPost, "/pictures", pyramid.Proxy(env, "resize"))
		r.Method(http.MethodGet, "/pictures/{id}", pyramid.Proxy(env, "store"))
		r.Method(http.MethodGet, "/pictures/{id}/{width}", pyramid.Proxy(env, "store"))
		r.Mount("/support", pyramid.Proxy(env, "support")) // events, and WebSockets
		r.Get("/home/{id:[0-9]+}", home(env))
		describe(r, env)
		return r, nil
	}
}

// byClient tells clients apart by the address they call from. Behind a reverse proxy that is the proxy's: use
// middleware.ClientIPFromXFF and middleware.GetClientIP there.
func byClient(r *http.Request) (string, error) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return httprate.CanonicalizeIP(host), err
}

// home composes a page of what three apps know of a user, and asks them all at once. There is no page without the user;
// with no orders it says none, and without pictures it leaves them out.
func home(env *watt.Env) http.HandlerFunc {
	return pyramid.Compose(env, pyramid.Parts{
		"user":     {App: "users", Path: "/{id}"},
		"orders":   {App: "orders", Path: "/?user={id}", Default: []orders.Order{}, Timeout: mostPatient},
		"pictures": {App: "store", Path: "/pictures?user={id}", Optional: true, Timeout: mostPatient},
	})
}
