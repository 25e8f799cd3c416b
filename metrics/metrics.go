// Package metrics shows a runtime to Prometheus: how much each app and each instance has to do, who calls whom, and
// what goes wrong.
//
//	rt.Admin = &http.Server{Addr: "127.0.0.1:9090", Handler: metrics.Handler(rt)}
//
// All names begin with watt_. Seconds and bytes are the units, counters count from the start of the runtime, and
// histograms are both classic and native. The labels are watt_app and watt_instance, and watt_caller of calls; of a
// request there is its method, if that is a known one, and the class of its status. docs/operations.md tells what each
// metric is for, and has alerts.yaml and grafana.json, which stand beside this package, explained.
//
// A scrape asks nobody who might not answer: what instances in other processes count lies in memory that they share
// with the first. Only what an app has itself registered in its Env.Metrics is asked for, for a second at most: what
// does not answer is left out.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/org/watt"
)

// Handler returns what Prometheus scrapes: the runtime's metrics ([NewCollector]), those that apps have registered in
// their Env.Metrics, and those of the first process and its Go runtime. If some cannot be had, the others are
// answered, and rt.Logger says why. Every path is answered so: a probe needs another handler beside it in a mux, which
// asks [watt.Runtime.Ready].
func Handler(rt *watt.Runtime) http.Handler {
	own := prometheus.NewRegistry()
	own.MustRegister(NewCollector(rt), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	scrape := promhttp.HandlerFor(prometheus.Gatherers{own, rt}, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		ErrorLog:            logger{rt},
		MaxRequestsInFlight: 4, // a scrape is no reason to be overloaded
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { scrape.ServeHTTP(deaf{w}, r) })
}

// deaf hides that the scraper has gone, which promhttp would log once for each metric.
type deaf struct{ http.ResponseWriter }

func (d deaf) Write(p []byte) (int, error) {
	_, _ = d.ResponseWriter.Write(p)
	return len(p), nil
}

// Unwrap lets [http.ResponseController] reach the server's own writer.
func (d deaf) Unwrap() http.ResponseWriter { return d.ResponseWriter }

// logger is a runtime's Logger, which may be set after the handler was made.
type logger struct{ rt *watt.Runtime }

// Println implements [promhttp.Logger].
func (l logger) Println(v ...any) {
	l.rt.Env().Logger.Sugar().Warnln(append([]any{"metrics are missing:"}, v...)...)
}
