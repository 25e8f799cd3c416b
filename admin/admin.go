// Package admin serves what people and machines that run a program want to know of its runtime, and to do with it:
// probes, metrics, status, profiles, logs, a page for browsers, and actions.
//
//		logs := new(admin.Logs)
//		rt.Logger = zap.New(zapcore.NewTee(core, logs))
//		rt.Output = logs.Output // of instances in processes of their own
//		rt.Admin = &http.Server{Addr: "127.0.0.1:9090", Handler: admin.Handler(rt, admin.Options{Token: token, Logs: logs})}
//
//	  - GET /: the page; one look tells what is wrong
//	  - GET /healthz: 200 as long as the program lives
//	  - GET /readyz: 200, or 503 if an app is not ready ([watt.Runtime.Ready]) or has fewer instances than Options.Minimum
//	    says; those who may see the rest are told which, and why
//	  - GET /metrics: for Prometheus (package metrics)
//	  - GET /status: all that is known, and advice, as JSON ([Report]); GET /events: the same every second, as
//	    server-sent events; GET /history: the last 15 minutes, for charts
//	  - GET /logs?app=orders: the last lines of the log, and those to come, as server-sent events; without app, all
//	  - GET /debug/pprof/: [watt.Runtime.Profiles]
//	  - POST /apps/{app}/instances/{instance}/restart: drains and replaces an instance
//	  - POST /apps/{app}/instances/{instance}/drain: drains an instance, and leaves it out until it is restarted
//	  - PATCH /apps/{app} with {"workers": 8, "queue": 64, "instances": 2}: changes limits, those that are there
//	  - PUT /level with {"level": "debug", "for": "10m"}: another level of the log, in all processes and for a while, if
//	    the runtime's Level is set
//
// An action that is done is answered with 204; a drain, and a change to fewer instances, with 200 and what had to be cut if
// requests took longer than DrainTimeout. 404 says that there is no such app, and 409 why nothing was done, or what has
// failed.
//
// Actions need the token, and are refused to pages of other origins. But for the probes, only requests to a loopback
// address, to localhost or to one of Options.Hosts are answered, so that no page elsewhere can reach it by a name of
// its own (DNS rebinding). A runtime does not start if its Admin can be reached from elsewhere and there is no token;
// with one, everything but the probes needs it there. What a proxy has passed on is from elsewhere too, if it says so:
// by Forwarded, X-Forwarded-For, X-Real-IP or Via.
package admin

import (
	"net/http"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/metrics"
)

// Options are what an admin handler may do, and for whom.
type Options struct {
	// Token is what actions need, as "Authorization: Bearer" or as the password of basic authentication. If empty,
	// there are no actions.
	Token string

	// Hosts are names, without ports, by which it may be called besides localhost and loopback addresses.
	Hosts []string

	// Minimum is how many instances of an app have to be ready for /readyz to answer 200, by the app's name. Of an app
	// that is not there, one.
	Minimum map[string]int

	// Logs are shown at /logs, if set.
	Logs *Logs

	// CPUShares has a CPU profile of the first process be taken for a second in 15, to know how much the apps that live in
	// it compute: for advice, [Figures] and the metric watt_app_sampled_cpu_cores. Another CPU profile goes first: one
	// that is asked for at /debug/pprof/profile ends the sample, one that the program takes itself must not begin during
	// one.
	CPUShares bool

	// FlightRecorder keeps the last seconds of what the first process's scheduler did, for GET /debug/flight and go tool
	// trace. There can be one in a process, and it costs some processor time. With FlightDir, a file is written there
	// when a queue has not been empty for 5 s; one in ten minutes at most.
	FlightRecorder bool
	FlightDir      string
}

// Handler returns the handler for [watt.Runtime.Admin]. It begins to remember, for charts and advice, when rt starts
// and Admin's Handler is this one, or else with its first request.
func Handler(rt *watt.Runtime, o Options) http.Handler {
	h := &handler{rt: rt, options: o, watch: newWatch(rt, &o)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", h.ready)
	mux.Handle("GET /metrics", metrics.Handler(rt))
	mux.HandleFunc("GET /status", h.status)
	mux.HandleFunc("GET /events", h.events)
	mux.HandleFunc("GET /history", h.history)
	mux.HandleFunc("GET /logs", h.logs)
	profiles := http.StripPrefix("/debug/pprof", rt.Profiles())
	mux.Handle("GET /debug/pprof/", profiles)
	mux.Handle("GET /debug/pprof/profile", h.watch.shares.yielding(profiles))
	mux.Handle("GET /debug/flight", &h.watch.flight)
	mux.Handle("POST /apps/{app}/instances/{instance}/restart", h.action(h.restart))
	mux.Handle("POST /apps/{app}/instances/{instance}/drain", h.action(h.drain))
	mux.Handle("PATCH /apps/{app}", h.action(h.change))
	mux.Handle("PUT /level", h.action(h.level))
	mux.Handle("GET /", page())
	h.routes = http.NewCrossOriginProtection().Handler(mux)
	return h
}

type handler struct {
	rt      *watt.Runtime
	options Options
	watch   *watch
	raised  level
	routes  http.Handler
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.admits(w, r) {
		return
	}
	h.watch.begin()
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	h.routes.ServeHTTP(w, r)
}

func (h *handler) ready(w http.ResponseWriter, r *http.Request) {
	switch err := h.watch.ready(); {
	case err == nil:
		plain(w, http.StatusOK, "ready")
	case h.called(r.Host) && (h.fromHere(r) || h.authorized(r)):
		plain(w, http.StatusServiceUnavailable, err.Error())
	default: // an app's last words may be in it
		plain(w, http.StatusServiceUnavailable, "not ready")
	}
}

func (h *handler) status(w http.ResponseWriter, _ *http.Request) {
	reply(w, h.watch.report(time.Now()))
}

func (h *handler) history(w http.ResponseWriter, _ *http.Request) { reply(w, h.watch.history()) }
