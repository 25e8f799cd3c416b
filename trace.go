package watt

import (
	"maps"
	"net/http"
)

// trace is what a request hands on to the calls made while it is served.
type trace struct{ parent, state, baggage, requestID string }

func traceOf(h http.Header) trace {
	return trace{first(h, "Traceparent"), first(h, "Tracestate"), first(h, "Baggage"), first(h, "X-Request-Id")}
}

// first is Get for a name in canonical form.
func first(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// addTo returns req with what the call does not set itself; a copy, since a RoundTripper may not change
// the headers that it is given.
func (t trace) addTo(req *http.Request) *http.Request {
	if t == (trace{}) {
		return req
	}
	req = req.WithContext(req.Context())
	req.Header = maps.Clone(req.Header)
	t.set(req.Header)
	return req
}

// set sets what is not there.
func (t trace) set(h http.Header) {
	set := func(name, value string) {
		if value != "" && h[name] == nil {
			h[name] = []string{value}
		}
	}
	if h["Traceparent"] == nil { // the two belong together
		set("Traceparent", t.parent)
		set("Tracestate", t.state)
	}
	set("Baggage", t.baggage)
	set("X-Request-Id", t.requestID)
}

// trace returns the trace of the request during which the call is made.
func (c *call) trace() trace {
	if c.served == nil {
		return trace{}
	}
	return c.served.trace
}
