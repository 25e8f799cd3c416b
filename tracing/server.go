package tracing

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/felixge/httpsnoop"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/org/watt"
)

// server makes the spans of an app's requests. otelhttp's handler does as much, but also where nothing is sampled: a
// span is begun here, which costs little then, and described only if somebody will read it.
type server struct {
	next    http.Handler
	options *Options
	tracer  trace.Tracer
	own     []attribute.KeyValue
}

// ServeHTTP implements [http.Handler].
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	outside := watt.Caller(r.Context()) == ""
	if !outside && s.options.passes(r.Header) {
		s.next.ServeHTTP(w, r)
		return
	}
	ctx := s.options.Propagators.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	parent := trace.SpanContextFromContext(ctx)
	if !outside && parent.IsValid() && !parent.IsSampled() { // nothing to measure, but to tell so in turn
		s.next.ServeHTTP(w, r.WithContext(ctx))
		return
	}
	begin := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}
	if outside && !s.options.TrustClients {
		begin = append(begin, trace.WithNewRoot())
		if parent.IsValid() {
			begin = append(begin, trace.WithLinks(trace.Link{SpanContext: parent}))
		}
	}
	ctx, span := s.tracer.Start(ctx, r.Method, begin...)
	defer span.End()
	r = r.WithContext(ctx)
	if !span.IsRecording() {
		s.next.ServeHTTP(w, r)
		return
	}
	s.record(w, r, span)
}

// passes reports whether a request belongs to a trace that is not sampled, and the mesh itself tells so in turn.
func (o *Options) passes(h http.Header) bool {
	const length = 55 // 00-trace-span-flags
	parent := h.Get("Traceparent")
	return o.w3c && len(parent) == length && strings.HasPrefix(parent, "00-") && parent[length-1]&1 == 0
}

// record serves a request whose span somebody will read.
func (s *server) record(w http.ResponseWriter, r *http.Request, span trace.Span) {
	span.SetAttributes(s.own...)
	span.SetAttributes(attributesOf(r)...)
	if caller := watt.Caller(r.Context()); caller != "" {
		span.SetAttributes(attribute.String("watt.caller", caller))
	}
	queued(r.Context(), span)
	status, sent := 0, int64(0)
	defer func() {
		if route := routeOf(r); route != "" {
			span.SetName(r.Method + " " + route)
			span.SetAttributes(attribute.String("http.route", route))
		}
		if reason := recover(); reason != nil {
			span.SetStatus(codes.Error, "the handler has panicked")
			panic(reason)
		}
		if status == 0 {
			status = http.StatusOK
		}
		span.SetAttributes(attribute.Int("http.response.status_code", status), attribute.Int64("http.response.body.size", sent))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(status))
			span.SetAttributes(attribute.String("error.type", strconv.Itoa(status)))
		}
	}()
	s.next.ServeHTTP(httpsnoop.Wrap(w, httpsnoop.Hooks{
		WriteHeader: func(next httpsnoop.WriteHeaderFunc) httpsnoop.WriteHeaderFunc {
			return func(code int) {
				if status == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
					status = code
				}
				next(code)
			}
		},
		Write: func(next httpsnoop.WriteFunc) httpsnoop.WriteFunc {
			return func(p []byte) (int, error) {
				n, err := next(p)
				sent += int64(n)
				return n, err
			}
		},
	}), r)
}

// attributesOf are those of the conventions for HTTP servers.
func attributesOf(r *http.Request) []attribute.KeyValue {
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	all := []attribute.KeyValue{
		attribute.String("http.request.method", r.Method),
		attribute.String("url.scheme", scheme),
		attribute.String("url.path", r.URL.Path),
		attribute.String("server.address", host),
		attribute.String("client.address", client),
		attribute.String("network.protocol.version", strconv.Itoa(r.ProtoMajor)+"."+strconv.Itoa(r.ProtoMinor)),
	}
	if n, err := strconv.Atoi(port); err == nil {
		all = append(all, attribute.Int("server.port", n))
	}
	if agent := r.UserAgent(); agent != "" {
		all = append(all, attribute.String("user_agent.original", agent))
	}
	return all
}

// queued says how long a request waited for a worker.
func queued(ctx context.Context, span trace.Span) {
	if arrived, ok := watt.Arrived(ctx); ok {
		span.AddEvent("watt.queued", trace.WithTimestamp(arrived),
			trace.WithAttributes(attribute.Float64("watt.wait", time.Since(arrived).Seconds())))
	}
}

// routeOf returns the route that a router has found for a request, without its method; "" if none has.
func routeOf(r *http.Request) string {
	if _, route, ok := strings.Cut(r.Pattern, " "); ok {
		return route
	}
	return r.Pattern
}
