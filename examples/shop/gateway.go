package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/org/watt"
	"github.com/org/watt/examples/shop/orders"
	"github.com/org/watt/examples/shop/users"
)

func newGateway(_ context.Context, env *watt.Env) (http.Handler, error) {
	r := chi.NewRouter()
	r.Mount("/users", http.StripPrefix("/users", proxy(env, "users")))
	r.Mount("/orders", http.StripPrefix("/orders", proxy(env, "orders")))
	r.Method(http.MethodPost, "/pictures", proxy(env, "resize"))
	r.Method(http.MethodGet, "/pictures/{id}", proxy(env, "store"))
	r.Method(http.MethodGet, "/pictures/{id}/{width}", proxy(env, "store"))
	r.Get("/home/{id:[0-9]+}", home(env))
	describe(r, env)
	return r, nil
}

// proxy passes requests on to app, and its answers back.
func proxy(env *watt.Env, app string) *httputil.ReverseProxy {
	to := &url.URL{Scheme: "http", Host: app + ".watt.local"}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.SetXForwarded()
		},
		Transport:    env.Client.Transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { watt.WriteError(w, err) },
		ErrorLog:     zap.NewStdLog(env.Logger),
	}
}

// page is what a user sees first.
type page struct {
	User     users.User      `json:"user"`
	Orders   []orders.Order  `json:"orders"`
	Pictures json.RawMessage `json:"pictures,omitempty"`
}

// home composes a page of what three apps know of a user, and asks them all at once. There is no
// page without the user; with no orders it says none, and without pictures it leaves them out.
func home(env *watt.Env) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p := page{Orders: []orders.Order{}}
		id := r.PathValue("id")
		parts, ctx := errgroup.WithContext(r.Context())
		parts.Go(func() (err error) {
			p.User, err = watt.JSON[users.User](env.Get(ctx, "http://users.watt.local/"+id))
			return err
		})
		parts.Go(func() error {
			optional(ctx, env, "http://orders.watt.local/?user="+id, &p.Orders)
			return nil
		})
		parts.Go(func() error {
			optional(ctx, env, "http://store.watt.local/pictures?user="+id, &p.Pictures)
			return nil
		})
		if err := parts.Wait(); err != nil {
			watt.WriteError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(p)
	}
}

// optional gets a part of a page. If that fails, or takes longer than a page can wait, part stays as it is.
func optional[T any](ctx context.Context, env *watt.Env, url string, part *T) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	v, err := watt.JSON[T](env.Get(ctx, url))
	if err != nil {
		env.Logger.Info("a part is missing", zap.String("url", url), zap.Error(err))
		return
	}
	*part = v
}
