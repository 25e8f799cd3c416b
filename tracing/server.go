package tracing

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/org/watt"
)

// server makes the spans of an app's requests. otelhttp's handler does as much, but also where nothing is sampled: a
// span is begun here, which costs little then, and described only if somebody will read it.
type server struct {
	next    http.Handler
	options *Options
	tracer  trace.Tracer
	kind    trace.SpanStartOption
	own     []attribute.KeyValue
}

// ServeHTTP implements [http.Handler].
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	outside := !strings.HasSuffix(r.RemoteAddr, mesh)
	ctx := s.options.extract(r.Context(), r.Header)
	parent := trace.SpanContextFromContext(ctx)
	if !outside && parent.IsValid() && !parent.IsSampled() { // nothing to measure, but those behind have to know
		own := r.WithContext(&unsampled{ctx, parent}) //nolint:contextcheck // it holds the request's own
		defer giveBack(r, own)
		s.next.ServeHTTP(w, own)
		return
	}
	how := append(make([]trace.SpanStartOption, 0, 4), s.kind, trace.WithAttributes(s.first(r)...))
	if outside && !s.options.TrustClients {
		how = append(how, trace.WithNewRoot())
		if parent.IsValid() {
			how = append(how, trace.WithLinks(trace.Link{SpanContext: parent}))
		}
	}
	ctx, span := s.tracer.Start(ctx, nameOf(r.Method), how...)
	defer span.End()
	own, recording := r.WithContext(ctx), span.IsRecording()
	s.options.say(own.Header, span.SpanContext())
	var found *chi.Context
	if recording {
		own, found = routed(s.next, own)
	}
	defer giveBack(r, own)
	if recording {
		s.record(w, own, found, span)
	} else {
		s.next.ServeHTTP(w, own)
	}
}

// unsampled is the context of a request that belongs to a trace which is not sampled.
type unsampled struct {
	context.Context //nolint:containedctx // it is one
	parent          trace.SpanContext
}

// unsampledKey is its key.
type unsampledKey struct{}

// Value implements [context.Context].
func (u *unsampled) Value(key any) any {
	if key == (unsampledKey{}) {
		return u
	}
	return u.Context.Value(key)
}

// handsOn reports whether the mesh tells the callee of a call the span, since it is that of the request during which the call
// is made, and not one that its handler has from elsewhere.
func (o *Options) handsOn(ctx context.Context, span trace.SpanContext) bool {
	u, ok := ctx.Value(unsampledKey{}).(*unsampled)
	return ok && o.w3c && u.parent.Equal(span)
}

// giveBack gives what the handler of a request's copy has found to r: its route, and its form, whose files are removed with r.
func giveBack(r, own *http.Request) { r.Pattern, r.MultipartForm = own.Pattern, own.MultipartForm }

// mesh is how addresses of callers in the mesh end, main's too; those of others are addresses of the network.
const mesh = ".watt.local:80"

// record serves a request whose span somebody will read.
func (s *server) record(w http.ResponseWriter, r *http.Request, found *chi.Context, span trace.Span) {
	span.SetAttributes(attributesOf(r)...)
	if caller := watt.Caller(r.Context()); caller != "" {
		span.SetAttributes(attribute.String("watt.caller", caller))
	}
	queued(r.Context(), span)
	ctx := r.Context()
	var a answer
	defer func() {
		if route := cmp.Or(found.RoutePattern(), routeOf(r)); route != "" {
			span.SetName(nameOf(r.Method) + " " + route)
			span.SetAttributes(attribute.String("http.route", route))
		}
		reason := recover()
		a.end(span, reason, context.Cause(ctx))
		if reason != nil {
			panic(reason)
		}
	}()
	s.next.ServeHTTP(a.wrap(w), r)
}

// first are the attributes that a sampler sees.
func (s *server) first(r *http.Request) []attribute.KeyValue {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	all := append(make([]attribute.KeyValue, 0, len(s.own)+4), s.own...)
	all = append(all, attribute.String("url.scheme", scheme), text("url.path", r.URL.Path))
	if known(r.Method) {
		return append(all, attribute.String("http.request.method", r.Method))
	}
	return append(all, attribute.String("http.request.method", "_OTHER"), attribute.String("http.request.method_original", r.Method))
}

// attributesOf are the others of the conventions for HTTP servers.
func attributesOf(r *http.Request) []attribute.KeyValue {
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	all := []attribute.KeyValue{
		text("server.address", host),
		attribute.String("client.address", client),
		attribute.String("network.protocol.version", strconv.Itoa(r.ProtoMajor)+"."+strconv.Itoa(r.ProtoMinor)),
	}
	if n, err := strconv.Atoi(port); err == nil {
		all = append(all, attribute.Int("server.port", n))
	}
	if agent := r.UserAgent(); agent != "" {
		all = append(all, text("user_agent.original", agent))
	}
	return all
}

// text is an attribute of what strangers may have sent. OTLP takes valid UTF-8 alone: with anything else in one of them, an
// exporter loses all spans that it would have sent at once.
func text(key, value string) attribute.KeyValue {
	return attribute.String(key, strings.ToValidUTF8(value, "\uFFFD"))
}

// known reports whether a method is one of the conventions: strangers can send any, and must not make names.
func known(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// nameOf is what a span of a request with this method is called.
func nameOf(method string) string {
	if known(method) {
		return method
	}
	return "HTTP"
}

// queued says how long a request waited for a worker.
func queued(ctx context.Context, span trace.Span) {
	if arrived, ok := watt.Arrived(ctx); ok {
		span.AddEvent("watt.queued", trace.WithTimestamp(arrived),
			trace.WithAttributes(attribute.Float64("watt.wait", time.Since(arrived).Seconds())))
	}
}

// routed returns the request with a place where a router of chi leaves the route that it has found, if next is one.
// That tells the route otherwise only to those behind it.
func routed(next http.Handler, r *http.Request) (*http.Request, *chi.Context) {
	router, ok := next.(chi.Routes)
	if !ok {
		return r, nil
	}
	found := chi.NewRouteContext()
	found.Routes = router
	return r.WithContext(context.WithValue(r.Context(), chi.RouteCtxKey, found)), found
}

// routeOf returns the route that an [http.ServeMux] has found for a request, without its method; "" if none has.
func routeOf(r *http.Request) string {
	if _, route, ok := strings.Cut(r.Pattern, " "); ok {
		return route
	}
	return r.Pattern
}
