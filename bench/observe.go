package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/org/watt/admin"
	"github.com/org/watt/tracing"
)

// The observe group asks what it costs to see inside.

const (
	tracedPart = 0.01        // of the requests have spans
	scrapeTime = time.Second // between two scrapes
)

func observeBenchmarks() []benchmark {
	const perSecond, p99, cpu, memory, off = "answers", "p99", "server CPU", "server memory", "everything off"
	return []benchmark{{
		name: "observe/overhead", unit: "ns/op", also: []figure{{perSecond, "/s"}, {p99, "ms"}, {cpu, "µs/op"}, {memory, "MiB"}},
		contenders: []contender{
			{name: watt, start: loadOf("/home", watched)},
			{name: off, floor: true, start: loadOf("/home", wattPyramid)},
			{name: "flight recorder", floor: true, start: loadOf("/home", recording)},
			{name: "all traced", floor: true, start: loadOf("/home", traced)},
		},
		bars: []bar{atLeast(0.95, "answers vs everything off", ratio(figureOf(watt, perSecond), figureOf(off, perSecond)))},
	}}
}

// discard is an exporter that sends spans nowhere.
type discard struct{}

func (discard) ExportSpans(context.Context, []sdk.ReadOnlySpan) error { return nil }
func (discard) Shutdown(context.Context) error                        { return nil }

// playWatched plays a pyramid with its page open, and scraped, and with spans of a part of the requests.
func playWatched(part float64, flightRecorder bool) (string, func(), error) {
	rt := pyramidOf("127.0.0.1:0")
	provider := sdk.NewTracerProvider(sdk.WithBatcher(discard{}), sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(part))))
	if err := tracing.Instrument(rt, tracing.Options{Provider: provider}); err != nil {
		return "", nil, err
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	rt.Listen = func(ctx context.Context, network, address string) (net.Listener, error) {
		if address == ln.Addr().String() {
			return ln, nil
		}
		return new(net.ListenConfig).Listen(ctx, network, address)
	}
	handler := admin.Handler(rt, admin.Options{FlightRecorder: flightRecorder})
	rt.Admin = &http.Server{Addr: ln.Addr().String(), Handler: handler, ReadHeaderTimeout: time.Second}
	address, end, err := playWatt(rt)
	if err != nil {
		return "", nil, errors.Join(err, ln.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	look := func(path string) {
		if req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+rt.Admin.Addr+path, http.NoBody); err == nil {
			if resp, err := http.DefaultClient.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}
	}
	go look("/events")
	go func() {
		for ; ctx.Err() == nil; pause(ctx, scrapeTime) {
			look("/metrics")
		}
	}()
	return address, func() { stop(); end() }, nil
}
