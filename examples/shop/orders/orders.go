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
	r.Get("/", func(w http.ResponseWriter, r *http.Request) { answer(env, w, r, r.FormValue("user")) })
	r.Get("/mine", func(w http.ResponseWriter, r *http.Request) {
		user := r.Header.Get("X-Watt-User") // which only the gateway can have said
		if user == "" {
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		answer(env, w, r, user)
	})
	r.Handle("/openapi.yaml", http.FileServerFS(document))
	return r, nil
}

// answer answers with what a user has ordered.
func answer(env *watt.Env, w http.ResponseWriter, r *http.Request, user string) {
	all, err := watt.JSON[[]Order](env.Get(r.Context(), "http://store.watt.local/orders?user="+url.QueryEscape(user)))
	if err != nil {
		watt.WriteError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(all)
}
