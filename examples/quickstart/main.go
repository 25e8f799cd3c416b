// Command quickstart runs two applications in one program; one has a port, and calls the other by name.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/org/watt"
)

type user struct{ Name string }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once

	if err := newQuickstart(":8080").Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// newQuickstart describes the program; its test starts the same on another port.
func newQuickstart(addr string) *watt.Runtime {
	return watt.New(
		watt.App{Name: "web", Listen: addr, Calls: []string{"users"}, New: newWeb},
		watt.App{Name: "users", Handler: http.HandlerFunc(serveUser)},
	)
}

func newWeb(_ context.Context, env *watt.Env) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, err := watt.JSON[user](env.Get(r.Context(), "http://users.watt.local/7"))
		if err != nil {
			watt.WriteError(w, err) // 503 and Retry-After when users is overloaded, 504 when time is up …
			return
		}
		fmt.Fprintf(w, "Hello, %s!\n", u.Name)
	}), nil
}

func serveUser(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, `{"name": "Ada"}`)
}
