// Package pyramid puts one entrypoint in front of many apps: an API gateway, a composition layer, a frontend
// over a modular monolith. Strangers reach the entrypoint alone; the apps behind it have no port.
//
//	rt := watt.New(pyramid.New(
//		watt.App{Name: "gateway", Listen: ":8080"}, // GET /users/7 arrives at users as GET /7
//		watt.App{Name: "users", New: users.New, Calls: []string{"store"}},
//		watt.App{Name: "orders", New: orders.New, Calls: []string{"store"}},
//		watt.App{Name: "store", New: store.New, Profile: watt.IOBound},
//	)...)
//	err := rt.Run(ctx)
//
// That gateway passes each app on below its name. One of one's own is a handler like any other, in which
// [Proxy] and [Compose] are handlers too, for any router and under any middleware:
//
//	func newGateway(_ context.Context, env *watt.Env) (http.Handler, error) {
//		r := chi.NewRouter()
//		r.Mount("/users", pyramid.Proxy(env, "users"))
//		r.With(signedIn).Mount("/orders", pyramid.Proxy(env, "orders"))
//		r.Get("/home/{id}", pyramid.Compose(env, pyramid.Parts{
//			"user":   {App: "users", Path: "/{id}"},
//			"orders": {App: "orders", Path: "/?user={id}", Default: []string{}},
//		}))
//		return r, nil
//	}
//
// # When to use it
//
// When clients should see one address, one way to sign in and one answer per page, whatever the number of apps
// behind. A program with one app needs no pyramid, and neither do apps that have clients of their own: give
// those a Listen each. Work that comes in faster than it can be done is what package funnel is for.
//
// # What stays out of the entrypoint
//
// All requests pass it, so that what it does, it does for all of them: routing, authentication, limits, CORS and
// composition belong there. Databases, rendering, business rules and state do not: they belong to apps behind
// it, which can be limited, restarted and moved alone.
//
// # What the apps behind may believe
//
// Headers that begin with X-Watt- cannot come from outside: they are for what the entrypoint has found out, such
// as who is signed in. Whose address the client has, see [Proxy] and [TrustProxies].
package pyramid

import (
	"context"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/org/watt"
)

// New returns entry and apps as [watt.New] takes them, with entry as their entrypoint: its Calls name all the
// others too, after those it has, and its Profile is [watt.Entrypoint] unless it has another one. The arguments
// are not changed. Mistakes are left for the runtime to report, all together. An app that works in the background and
// takes no calls is none of apps: it is appended to what New returns.
//
// An entry with none of Handler, New, Serve and URL becomes a ready gateway. It passes /<name> and what is below
// on to the app of that name, without the prefix, as [Proxy] does; anything else is answered with 404 and a
// problem document. Paths with empty, "." or ".." segments are redirected (307) to what they mean, as
// [http.ServeMux] does, so that what was matched is what is passed on. Over HTTP/1 too, apps may
// answer while they read.
func New(entry watt.App, apps ...watt.App) []watt.App {
	names := make([]string, len(apps))
	entry.Calls = slices.Clone(entry.Calls)
	for i, a := range apps {
		names[i] = a.Name
		if !slices.Contains(entry.Calls, a.Name) {
			entry.Calls = append(entry.Calls, a.Name)
		}
	}
	if entry.Profile == 0 {
		entry.Profile = watt.Entrypoint
	}
	if entry.Handler == nil && entry.New == nil && entry.Serve == nil && entry.URL == "" {
		entry.New = func(_ context.Context, env *watt.Env) (http.Handler, error) { return newGateway(env, names), nil }
	}
	return append([]watt.App{entry}, apps...)
}

// gateway passes requests on to the app that the first segment of their path names.
type gateway map[string]http.Handler

func newGateway(env *watt.Env, names []string) gateway {
	g := make(gateway, len(names))
	for _, name := range names {
		g[name] = Proxy(env, name)
	}
	return g
}

func (g gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	whole := r.URL.EscapedPath()
	if clean := cleaned(whole); clean != whole {
		if r.URL.RawQuery != "" {
			clean += "?" + r.URL.RawQuery
		}
		http.Redirect(w, r, clean, http.StatusTemporaryRedirect)
		return
	}
	segment, below, _ := strings.Cut(whole[1:], "/")
	name, _ := url.PathUnescape(segment)
	app := g[name]
	if app == nil {
		watt.WriteError(w, &watt.CallError{Status: http.StatusNotFound})
		return
	}
	if r.ContentLength != 0 { // else the server of HTTP/1 ends the reading of the body when the app begins to answer
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	app.ServeHTTP(w, withPath(r, "/"+below))
}

// cleaned returns an escaped path without empty and dot segments.
func cleaned(escaped string) string {
	clean := path.Clean("/" + escaped)
	if strings.HasSuffix(escaped, "/") && clean != "/" {
		return clean + "/"
	}
	return clean
}

// withPath returns r with another path, given in escaped form.
func withPath(r *http.Request, escaped string) *http.Request {
	moved := *r
	u := *r.URL
	setPath(&u, escaped)
	moved.URL = &u
	return &moved
}
