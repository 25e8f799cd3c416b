package openapi_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/org/watt"
	"github.com/org/watt/openapi"
)

// Two apps have documents; a client of the gateway sees one.
func ExampleNew() {
	document := func(path string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "openapi: 3.1.0\ninfo: {title: An app, version: '1'}\npaths: {'%s': {}}\n", path)
		}
	}
	rt := watt.New(
		watt.App{Name: "gateway", Calls: []string{"users", "orders"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			mux := http.NewServeMux()
			mux.Handle("/openapi.json", openapi.New(env, openapi.Document{
				Title: "The shop",
				Apps:  []openapi.App{{Name: "users"}, {Name: "orders", Prefix: "/bought"}},
			}))
			return mux, nil
		}},
		watt.App{Name: "users", Handler: document("/{id}")},
		watt.App{Name: "orders", Handler: document("/latest")},
	)
	ctx := context.Background()
	if err := rt.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = rt.Shutdown(ctx) }()
	doc, err := watt.JSON[struct {
		Info  struct{ Title string }
		Paths map[string]any
	}](rt.Env().Get(ctx, "http://gateway.watt.local/openapi.json"))
	fmt.Println(doc.Info.Title, doc.Paths, err)
	// Output:
	// The shop map[/bought/latest:map[] /users/{id}:map[]] <nil>
}
