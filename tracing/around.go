package tracing

import (
	"context"
	"io"
	"net/http"
)

// otelhttp copies a request, and wraps the body of its answer. Two things are lost on the way: the trailers, with which the
// caller fills its own map while the body is read, and that of a connection taken over one direction can be ended alone. The
// transports above and below it hand them past it.

// passed is what they hand each other.
type passed struct {
	trailer http.Header   // of the request, the caller's own
	conn    io.ReadCloser // that was taken over
}

// passedKey is the context key of a *passed.
type passedKey struct{}

// concerns reports whether one of the two may be lost.
func concerns(req *http.Request) bool { return req.Trailer != nil || req.Header["Upgrade"] != nil }

// above is the transport above otelhttp's.
type above struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t above) RoundTrip(req *http.Request) (*http.Response, error) {
	if !concerns(req) {
		return t.RoundTripper.RoundTrip(req)
	}
	p := &passed{trailer: req.Trailer}
	resp, err := t.RoundTripper.RoundTrip(req.WithContext(context.WithValue(req.Context(), passedKey{}, p)))
	if err != nil {
		return nil, err
	}
	half, halves := p.conn.(closeWriter)
	if body, ok := resp.Body.(io.ReadWriteCloser); ok && halves {
		resp.Body = connection{body, half}
	}
	return resp, nil
}

// connection is one that was taken over.
type connection struct {
	io.ReadWriteCloser
	closeWriter
}

type closeWriter interface{ CloseWrite() error }

// below is the transport below otelhttp's.
type below struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t below) RoundTrip(req *http.Request) (*http.Response, error) {
	if !concerns(req) {
		return t.RoundTripper.RoundTrip(req)
	}
	p, ok := req.Context().Value(passedKey{}).(*passed)
	if !ok {
		return t.RoundTripper.RoundTrip(req)
	}
	req = req.WithContext(req.Context())
	req.Trailer = p.trailer
	resp, err := t.RoundTripper.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		p.conn = resp.Body
	}
	return resp, err
}
