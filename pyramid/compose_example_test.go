package pyramid_test

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// shown runs apps and prints what the first one answers at each path.
func shown(paths []string, apps ...watt.App) {
	rt := watt.New(apps...)
	if err := rt.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Shutdown(context.Background())
	for _, path := range paths {
		resp, err := rt.Env().Get(context.Background(), "http://"+apps[0].Name+".watt.local"+path)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(resp.StatusCode, resp.Header.Get("X-Watt-Partial"), string(body))
	}
}

// One answer of three parts: without the user there is none, without orders there is an empty list, and
// without pictures there are no pictures.
func ExampleCompose() {
	gateway := func(_ context.Context, env *watt.Env) (http.Handler, error) {
		r := chi.NewRouter()
		r.Get("/home/{id}", pyramid.Compose(env, pyramid.Parts{
			"user":     {App: "users", Path: "/{id}"},
			"orders":   {App: "orders", Path: "/?user={id}", Default: []string{}},
			"pictures": {App: "pictures", Path: "/of/{id}", Optional: true},
		}))
		return r, nil
	}
	users := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/7" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, `{"name": "Ada"}`)
	}
	broken := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no disk", http.StatusInternalServerError) }

	shown([]string{"/home/7", "/home/8"},
		watt.App{Name: "gateway", Calls: []string{"users", "orders", "pictures"}, New: gateway},
		watt.App{Name: "users", Handler: http.HandlerFunc(users)},
		watt.App{Name: "orders", Handler: http.HandlerFunc(broken)},
		watt.App{Name: "pictures", Handler: http.HandlerFunc(broken)},
	)
	// Output:
	// 200 orders;reason=status, pictures;reason=status {"orders":[],"user":{"name": "Ada"}}
	// 404  {"type":"about:blank","title":"Not Found","status":404,"app":"users"}
}

// A call that needs another's result is a function: here the user says which team to ask for.
func ExampleCompose_dependent() {
	gateway := func(_ context.Context, env *watt.Env) (http.Handler, error) {
		team := func(r *http.Request) (any, error) {
			ctx := r.Context() // ends in time, and when nobody waits any more
			user, err := watt.JSON[struct{ Team string }](env.Get(ctx, "http://users.watt.local/"+r.PathValue("id")))
			if err != nil {
				return nil, err
			}
			return watt.JSON[map[string]any](env.Get(ctx, "http://teams.watt.local/"+user.Team))
		}
		r := chi.NewRouter()
		r.Get("/home/{id:[0-9]+}", pyramid.Compose(env, pyramid.Parts{
			"team": {Func: team},
			"user": {App: "users", Path: "/{id}"},
		}))
		return r, nil
	}
	reply := func(body string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
	}

	shown([]string{"/home/7"},
		watt.App{Name: "gateway", Calls: []string{"users", "teams"}, New: gateway},
		watt.App{Name: "users", Handler: reply(`{"name": "Ada", "team": "red"}`)},
		watt.App{Name: "teams", Handler: reply(`{"members": 3}`)},
	)
	// Output: 200  {"team":{"members":3},"user":{"name": "Ada", "team": "red"}}
}
