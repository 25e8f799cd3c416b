// Command pyramid is a gateway in front of two applications: it passes requests on to each, and composes one page
// of both.
//
//	go run ./examples/pyramid
//	curl http://127.0.0.1:8080/users/7
//	curl 'http://127.0.0.1:8080/orders/?user=7'
//	curl http://127.0.0.1:8080/home/7
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-chi/chi/v5"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := newPyramid("127.0.0.1:8080").Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// newPyramid describes the program; its test starts the same.
func newPyramid(addr string) *watt.Runtime {
	return watt.New(pyramid.New(
		watt.App{Name: "gateway", Listen: addr, New: newGateway}, // the entrypoint: may call all that follow
		watt.App{Name: "users", Handler: users()},
		watt.App{Name: "orders", Handler: orders(), Workers: 8, Queue: 32},
	)...)
}

func newGateway(_ context.Context, env *watt.Env) (http.Handler, error) {
	r := chi.NewRouter()
	r.Mount("/users", pyramid.Proxy(env, "users")) // GET /users/7 arrives at users as GET /7
	r.Mount("/orders", pyramid.Proxy(env, "orders"))
	r.Get("/home/{id}", pyramid.Compose(env, pyramid.Parts{
		"user":   {App: "users", Path: "/{id}"},                             // required
		"orders": {App: "orders", Path: "/?user={id}", Default: []string{}}, // else []
	}))
	return r, nil
}

func users() http.Handler {
	r := chi.NewRouter()
	r.Get("/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"id": r.PathValue("id"), "name": "Ada"})
	})
	return r
}

func orders() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode([]string{"tea for user " + r.FormValue("user")})
	})
}
