// Package orders is the application that knows what was ordered.
package orders

import (
	"context"
	"embed"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"

	"github.com/org/watt"
)

// document describes what other programs may ask of the app.
//
//go:embed openapi.yaml
var document embed.FS

// Order is one order.
type Order struct {
	ID    int64  `json:"id"`
	Item  string `json:"item"`
	Cents int64  `json:"cents"`
}

// New returns the handler of the orders app.
func New(_ context.Context, env *watt.Env) (http.Handler, error) {
	r := chi.NewRouter()
	r.Get("/", func(w http.ResponseWriter, r *http.Request) {
		user := url.QueryEscape(r.FormValue("user"))
		all, err := watt.JSON[[]Order](env.Get(r.Context(), "http://store.watt.local/orders?user="+user))
		if err != nil {
			watt.WriteError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(all)
	})
	r.Handle("/openapi.yaml", http.FileServerFS(document))
	return r, nil
}
