package watt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/zap"

	"github.com/org/watt/internal/control"
	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/profile"
)

// What the runtime itself wants of a child goes over connections like those of the mesh, but past the app and its
// admission.
const (
	pathMetrics  = "/metrics"
	pathProfiles = "/profiles/"
	metricsTime  = time.Second // that a registry has to tell what is in it
	metricsMost  = 16 << 20    // bytes of them
)

// errands serves them in the child.
type errands struct {
	listener *pipe.Listener
	server   http.Server
}

func newErrands(a *app) *errands {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathMetrics, func(w http.ResponseWriter, _ *http.Request) { writeMetrics(w, a) })
	mux.Handle(pathProfiles, http.StripPrefix(strings.TrimSuffix(pathProfiles, "/"), profile.Handler()))
	return &errands{
		listener: pipe.Listen(new(pipe.Buffers), address(a.name)),
		server:   http.Server{Handler: mux, ReadHeaderTimeout: readHeaderTimeout, ErrorLog: zap.NewStdLog(a.log)},
	}
}

// run serves until the process ends.
func (e *errands) run() { _ = e.server.Serve(e.listener) }

// accept takes a connection of the parent's, which sees it closed if that does not succeed.
func (e *errands) accept(ctx context.Context, f *os.File) {
	conn, err := control.ConnOf(f)
	if err != nil {
		return
	}
	if e.listener.Deliver(ctx, conn) != nil {
		_ = conn.Close()
	}
}

// writeMetrics writes what the app has registered. What cannot be gathered is left out, as by any other registry.
func writeMetrics(w io.Writer, a *app) {
	families, err := gathered(a.registries())
	if err != nil {
		a.log.Warn("metrics are missing", zap.Error(err))
	}
	encoder := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeProtoDelim))
	for _, f := range families {
		if encoder.Encode(f) != nil {
			return // whoever asked has gone
		}
	}
}

// metrics implements life: it asks the child. One that does not answer in time is left out.
func (o *own) metrics() prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		if o.slot.State.Load() != slotReady {
			return nil, nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), metricsTime)
		defer cancel()
		families, err := o.fetchMetrics(ctx)
		if err != nil && !o.over() {
			o.log.Warn("its metrics are missing", zap.Error(err))
		}
		return families, nil
	})
}

// errands carries requests past the app, each on a connection of its own.
func (o *own) errands() http.RoundTripper {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return o.reach(ctx, connection{Errand: true})
	}}
}

// fetchMetrics fetches the child's metrics.
func (o *own) fetchMetrics(ctx context.Context) ([]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+o.place.app.name+suffix+pathMetrics, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := o.errands().RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	decoder := expfmt.NewDecoder(io.LimitReader(resp.Body, metricsMost), expfmt.NewFormat(expfmt.TypeProtoDelim))
	var families []*dto.MetricFamily
	for {
		f := new(dto.MetricFamily)
		switch err := decoder.Decode(f); {
		case err == nil:
			families = append(families, f)
		case errors.Is(err, io.EOF):
			return families, nil
		default:
			return nil, fmt.Errorf("decoding them: %w", err)
		}
	}
}
