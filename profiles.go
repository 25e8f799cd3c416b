package watt

import (
	"net/http"
	"net/http/httputil"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/profile"
)

// Profiles returns a handler for [Runtime.Admin] that serves profiles as net/http/pprof does, for go tool pprof and
// go tool trace, but registers nothing anywhere. Mount it without its prefix:
//
//	mux.Handle("/debug/pprof/", http.StripPrefix("/debug/pprof", rt.Profiles()))
//
// "/profile?seconds=30", "/trace?seconds=1", "/goroutine", "/heap", "/allocs", "/block", "/mutex" and "/threadcreate"
// are of this process, and "/" lists them. "/orders/0/profile" is of instance 0 of orders, if that lives in a process
// of its own, and "/orders/0/" lists them; 404 if it lives in this one: there, samples have the labels app and instance
// (go tool pprof -tagfocus app:orders). What goes on can be read from profiles: do not show them to strangers.
func (rt *Runtime) Profiles() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", profile.Handler())
	mux.HandleFunc("GET /{app}/{instance}", rt.profileOfInstance) // a redirect would lead out of the prefix
	mux.HandleFunc("GET /{app}/{instance}/{rest...}", rt.profileOfInstance)
	return mux
}

func (rt *Runtime) profileOfInstance(w http.ResponseWriter, r *http.Request) {
	var in *instance
	if index, err := strconv.Atoi(r.PathValue("instance")); err == nil {
		if a := rt.app(r.PathValue("app")); a != nil {
			in = a.instance(index)
		}
	}
	if in == nil {
		http.Error(w, "there is no such instance", http.StatusNotFound)
		return
	}
	o, ok := in.current().(*own)
	if !ok {
		http.Error(w, "the instance has no process of its own now: its samples are among those of the first one, with the labels app and instance",
			http.StatusNotFound)
		return
	}
	proxy := &httputil.ReverseProxy{
		Transport:     o.errands(),
		FlushInterval: -1,
		ErrorLog:      zap.NewStdLog(o.log),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.Scheme, pr.Out.URL.Host = "http", o.place.app.name+suffix
			pr.Out.URL.Path, pr.Out.URL.RawPath = pathProfiles+r.PathValue("rest"), ""
		},
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(profile.Longest)) // a server may have a shorter one
	proxy.ServeHTTP(w, r)
}
