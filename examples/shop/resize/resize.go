// Package resize is the application that makes thumbnails of pictures.
package resize

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/go-chi/chi/v5"

	"github.com/org/watt"
)

// upload is what store takes.
type upload struct {
	User       *int64      `json:"user"` // nil: nobody's
	Width      int         `json:"width"`
	Height     int         `json:"height"`
	Thumbnails []thumbnail `json:"thumbnails"`
}

// New returns the handler of the resize app.
func New(_ context.Context, env *watt.Env) (http.Handler, error) {
	r := chi.NewRouter()
	r.Post("/pictures", func(w http.ResponseWriter, r *http.Request) {
		user, err := userOf(r)
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		up, err := resize(http.MaxBytesReader(w, r.Body, maxBytes))
		if bad, ok := errors.AsType[*badPictureError](err); ok {
			refuse(w, http.StatusUnprocessableEntity, bad)
			return
		}
		if err != nil {
			watt.WriteError(w, err) // 413 if the body is too large
			return
		}
		up.User = user
		saved, err := save(r, env.Client, up)
		if err != nil {
			watt.WriteError(w, err)
			return
		}
		defer saved.Body.Close()
		copyHeader(w.Header(), saved.Header, "Content-Type", "Location", "Idempotent-Replayed", "Retry-After")
		w.WriteHeader(saved.StatusCode)
		_, _ = io.Copy(w, saved.Body) // or why it was not saved
	})
	return r, nil
}

// userOf returns the user that a picture is for, or nil. It reads the URL alone: r.FormValue would
// take the picture for a form, since that is what curl --data-binary says of it.
func userOf(r *http.Request) (*int64, error) {
	query := r.URL.Query()
	if !query.Has("user") {
		return nil, nil //nolint:nilnil // nobody's
	}
	id, err := strconv.ParseInt(query.Get("user"), 10, 64)
	if err != nil {
		return nil, errors.New("user is not a number")
	}
	return &id, nil
}

// save has store keep the thumbnails of the picture that r brought: once, if the client repeats it with its key, which
// is its user's own. It returns what store answers.
func save(r *http.Request, client *http.Client, up *upload) (*http.Response, error) {
	body, err := json.Marshal(up)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://store.watt.local/pictures", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	copyHeader(req.Header, r.Header, "Idempotency-Key", "X-Watt-User")
	return client.Do(req)
}

func copyHeader(to, from http.Header, names ...string) {
	for _, name := range names {
		if values := from.Values(name); len(values) > 0 {
			to[name] = values
		}
	}
}

// refuse tells the client what is wrong with its request, in the form that [watt.WriteError] has.
func refuse(w http.ResponseWriter, status int, reason error) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"title": http.StatusText(status), "status": status, "detail": reason.Error(),
	})
}
