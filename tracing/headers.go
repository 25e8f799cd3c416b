package tracing

import (
	"context"
	"encoding/hex"
	"maps"
	"net/http"
	"slices"

	"go.opentelemetry.io/otel/trace"
)

// traceparent is that of W3C: version, trace, span, and whether it is sampled.
type traceparent [len("00-") + 2*len(trace.TraceID{}) + len("-") + 2*len(trace.SpanID{}) + len("-00")]byte

func traceparentOf(span trace.SpanContext) traceparent {
	t := traceparent([]byte("00-00000000000000000000000000000000-0000000000000000-00"))
	ofTrace, ofSpan := span.TraceID(), span.SpanID()
	hex.Encode(t[len("00-"):], ofTrace[:])
	hex.Encode(t[len("00-")+2*len(ofTrace)+len("-"):], ofSpan[:])
	if span.IsSampled() {
		t[len(t)-1] = '1'
	}
	return t
}

// extract returns ctx with what the headers of its request say.
func (o *Options) extract(ctx context.Context, h http.Header) context.Context {
	if o.w3c && h["Traceparent"] == nil && h["Baggage"] == nil {
		return ctx
	}
	return o.Propagators.Extract(ctx, carrier(h))
}

// say makes the headers of a request name the span that it has now, for those who pass them on. What a call has to say
// of the trace's state, its own span knows.
func (o *Options) say(h http.Header, span trace.SpanContext) {
	if !o.w3c || !span.IsValid() {
		return
	}
	t := traceparentOf(span)
	h["Traceparent"] = []string{string(t[:])}
	delete(h, "Tracestate")
}

// said reports whether headers that are passed on name the span, as say makes them, and nothing more is to be said.
func said(h http.Header, span trace.SpanContext) bool {
	t, have, state := traceparentOf(span), h["Traceparent"], span.TraceState()
	return len(have) == 1 && have[0] == string(t[:]) && state.Len() == 0
}

// carrier is [propagation.HeaderCarrier] for headers of which the usual names need not be made canonical each time.
type carrier http.Header

func canonical(name string) string {
	switch name {
	case "traceparent":
		return "Traceparent"
	case "tracestate":
		return "Tracestate"
	case "baggage":
		return "Baggage"
	}
	return http.CanonicalHeaderKey(name)
}

// Get implements [propagation.TextMapCarrier].
func (c carrier) Get(name string) string {
	if all := c.Values(name); len(all) > 0 {
		return all[0]
	}
	return ""
}

// Set implements [propagation.TextMapCarrier].
func (c carrier) Set(name, value string) { c[canonical(name)] = []string{value} }

// Keys implements [propagation.TextMapCarrier].
func (c carrier) Keys() []string { return slices.Collect(maps.Keys(c)) }

// Values implements [propagation.ValuesGetter].
func (c carrier) Values(name string) []string { return c[canonical(name)] }
