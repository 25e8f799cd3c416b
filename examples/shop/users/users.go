// Package users is the application that knows who the users are.
package users

import (
	"context"
	"embed"
	"encoding/json"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/org/watt"
)

// document describes what other programs may ask of the app.
//
//go:embed openapi.json
var document embed.FS

// User is one user.
type User struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

// New returns the handler of the users app.
func New(_ context.Context, env *watt.Env) (http.Handler, error) {
	r := chi.NewRouter()
	r.Get("/{id:[0-9]+}", func(w http.ResponseWriter, r *http.Request) {
		user, err := watt.JSON[User](env.Get(r.Context(), "http://store.watt.local/users/"+r.PathValue("id")))
		if err != nil {
			watt.WriteError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(user)
	})
	r.Handle("/openapi.json", http.FileServerFS(document))
	return r, nil
}
