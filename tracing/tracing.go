// Package tracing makes OpenTelemetry spans of what a runtime does: one for each request that an app serves, and one
// for each call from an app to another.
//
//	rt := watt.New(…)
//	err := tracing.Instrument(rt, tracing.Options{Provider: provider})
//	…
//	err = rt.Run(ctx)
//
// In a program with instances in processes of their own, main runs in each of them up to Run: make the provider and
// call Instrument before that, and the spans of all processes belong together. An exporter that sends in the background
// loses the last moments of a child, unless it is flushed in a Cleanup of the app's Env.
//
// Spans follow OpenTelemetry's conventions for HTTP, those of calls made by otelhttp, and say besides:
//
//   - watt.app, watt.instance: who serves the request; watt.caller: which app has called, if one has
//   - the event watt.queued with watt.wait, in seconds: how long the request waited for a worker
//   - of calls: watt.app, the callee; the event watt.shed with watt.retry_after, in seconds, if it took on no more;
//     watt.retry, if the call was sent once more because the first instance or connection had not begun with it; and
//     watt.error, the cause of a failure in one word: overloaded, unavailable, not_allowed, no_such_app, died, timeout,
//     canceled or other
//
// A span is named by its http.route, where the handler itself is an [http.ServeMux] or a router of chi.
//
// Queries are left out, also of url.full, since strangers' may hold secrets, and proxies pass them on.
// Of a connection that a handler has taken over, nobody knows the status. It is 499, and no error, where the client had
// gone, or the caller had given up, before there was an answer.
// An answer that is cut off while somebody waits for it has the error.type aborted, whatever its status said.
//
// Whether a request is sampled is decided where it comes in; a sampler sees http.request.method, url.path, url.scheme,
// watt.app and watt.instance. The calls that it leads to follow, and cost little if it is not: no span is begun for them,
// but the context in those behind still says which trace it is, and that nobody samples it.
//
// Without this package nothing is measured, and traceparent, tracestate and baggage still go along from request to
// call.
package tracing

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/org/watt"
)

// Options say where spans go.
type Options struct {
	// Provider makes the spans; it decides which are sampled, and where they go. If nil, OpenTelemetry's global one.
	Provider trace.TracerProvider

	// Propagators read and write the headers. If nil, those of W3C: traceparent, tracestate and baggage.
	Propagators propagation.TextMapPropagator

	// TrustClients lets requests from outside the mesh continue the trace that their headers name. Otherwise each begins
	// one of its own, with a link to that: strangers could have everything sampled.
	TrustClients bool

	w3c bool // Propagators are those of W3C, which the mesh knows
}

// Instrument has all handlers and clients of rt make spans. It is to be called before the start, and once: after a
// second time, instances do not start. Apps with Serve or URL are seen by their callers alone.
func Instrument(rt *watt.Runtime, o Options) error {
	if o.Propagators == nil {
		o.w3c = true
		o.Propagators = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	}
	var errs []error
	for _, s := range rt.Status() {
		errs = append(errs, rt.Update(s.Name, o.server))
	}
	if err := errors.Join(errs...); err != nil {
		return err // it has started
	}
	next := rt.Transport
	rt.Transport = func(caller string, base http.RoundTripper) http.RoundTripper {
		if next != nil {
			base = next(caller, base)
		}
		return o.client(base)
	}
	return nil
}

// server puts spans around an app's handler.
func (o *Options) server(app *watt.App) {
	handler, newHandler := app.Handler, app.New
	switch {
	case app.URL != "" || app.Serve != nil:
	case newHandler != nil:
		app.New = func(ctx context.Context, env *watt.Env) (http.Handler, error) {
			h, err := newHandler(ctx, env)
			if h == nil || err != nil {
				return h, err
			}
			if _, twice := h.(*server); twice {
				return nil, errTwice
			}
			return o.traced(env, h), nil
		}
	case handler != nil:
		app.Handler = nil
		app.New = func(_ context.Context, env *watt.Env) (http.Handler, error) { return o.traced(env, handler), nil }
	}
}

var errTwice = errors.New("tracing: Instrument was called twice")

func (o *Options) traced(env *watt.Env, next http.Handler) http.Handler {
	return &server{
		next: next, options: o, tracer: o.provider().Tracer(scope), kind: trace.WithSpanKind(trace.SpanKindServer),
		own: []attribute.KeyValue{attribute.String("watt.app", env.App), attribute.Int("watt.instance", env.Instance)},
	}
}

// scope is what OpenTelemetry calls whoever makes spans.
const scope = "github.com/org/watt/tracing"

func (o *Options) provider() trace.TracerProvider { //nolint:ireturn // as OpenTelemetry has it
	if o.Provider != nil {
		return o.Provider
	}
	return otel.GetTracerProvider()
}

// client puts a span around each call, unless it is made for a request that is not sampled.
func (o *Options) client(base http.RoundTripper) http.RoundTripper {
	full := otelhttp.NewTransport(spanned{below{base}}, otelhttp.WithPropagators(o.Propagators), otelhttp.WithTracerProvider(o.provider()),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
			return nameOf(cmp.Or(r.Method, http.MethodGet)) + " " + appOf(r)
		}))
	return &client{base: base, full: above{full}, options: o}
}

// client makes the spans of one app's calls.
type client struct {
	base, full http.RoundTripper
	options    *Options
}

// RoundTrip implements [http.RoundTripper].
func (c *client) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	span := trace.SpanContextFromContext(ctx)
	if (span.IsSampled() || !span.IsValid()) && utf8.ValidString(req.URL.Host) { // what is none is no name either
		return c.full.RoundTrip(req)
	}
	told := said(req.Header, span) || c.options.handsOn(ctx, span)
	if told && baggage.FromContext(ctx).Len() == 0 {
		return c.base.RoundTrip(req)
	}
	req = req.WithContext(ctx)
	req.Header = maps.Clone(req.Header)
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	c.options.Propagators.Inject(ctx, carrier(req.Header))
	return c.base.RoundTrip(req)
}

// appOf returns the app that a call is for, or the host outside.
func appOf(r *http.Request) string {
	if app, mesh := watt.AppOf(r.URL.Host); mesh {
		return app
	}
	return strings.ToLower(r.URL.Hostname())
}

// spanned says of a call's span what came of it.
type spanned struct{ base http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (s spanned) RoundTrip(req *http.Request) (*http.Response, error) {
	span := trace.SpanFromContext(req.Context())
	if !span.IsRecording() {
		return s.base.RoundTrip(req)
	}
	span.SetAttributes(attribute.String("watt.app", appOf(req)), attribute.String("url.full", withoutQuery(req.URL)))
	resp, err := s.base.RoundTrip(req.WithContext(noticed(req.Context(), span)))
	if err == nil {
		return resp, nil
	}
	if errors.Is(err, watt.ErrOverloaded) {
		shed := []attribute.KeyValue{}
		if call, ok := errors.AsType[*watt.CallError](err); ok {
			shed = append(shed, attribute.Float64("watt.retry_after", call.RetryAfter.Seconds()))
		}
		span.AddEvent("watt.shed", trace.WithAttributes(shed...))
	}
	span.SetAttributes(attribute.String("watt.error", kindOf(err)))
	return nil, err
}

func withoutQuery(u *url.URL) string {
	bare := *u
	bare.User, bare.RawQuery, bare.ForceQuery, bare.Fragment = nil, "", false, ""
	return bare.String()
}

// noticed returns ctx with a trace that tells span of each connection after the first.
func noticed(ctx context.Context, span trace.Span) context.Context {
	var conns atomic.Int64
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		if conns.Add(1) > 1 {
			span.AddEvent("watt.retry")
		}
	}})
}

// kindOf says why a call has failed, in one word.
func kindOf(err error) string {
	for _, k := range []struct {
		is   error
		name string
	}{
		{watt.ErrInstanceDied, "died"},
		{watt.ErrOverloaded, "overloaded"},
		{watt.ErrUnavailable, "unavailable"},
		{watt.ErrNotAllowed, "not_allowed"},
		{watt.ErrNoSuchApp, "no_such_app"},
		{context.DeadlineExceeded, "timeout"},
		{context.Canceled, "canceled"},
	} {
		if errors.Is(err, k.is) {
			return k.name
		}
	}
	return "other"
}
