package pyramid

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"

	"github.com/org/watt"
)

// Proxy returns a handler that passes requests on to app, given by its name, and its answers back: both as
// streams, trailers and informational answers included, events and whatever has no length without delay.
// WebSockets and gRPC pass too; for gRPC from outside, the entrypoint's Protocols must have unencrypted HTTP/2,
// or it must have TLS. Where apps answer while they read, a middleware in front has to call
// [http.ResponseController.EnableFullDuplex] for clients of HTTP/1.
//
// Below a Mount of chi's, app gets the path below the mount; under Handle, [http.ServeMux] and
// [http.StripPrefix] the one in r.URL. Of two different ones it is the shorter, so that chi's CleanPath and
// StripSlashes count. The path keeps its escapes, and the query all of its bytes, also what net/url
// cannot parse. A path with "." or ".." for a segment, in whatever encoding, is answered with 400. To chi, /%61 is
// another path than /a, and to app perhaps not: a middleware on one route does not guard what a wider one lets pass.
//
// The Host that app sees is its own, <app>.watt.local. The client's is in X-Forwarded-Host, the scheme in
// X-Forwarded-Proto, and its address in X-Forwarded-For, all three taken from the connection: what the client
// itself sends of X-Forwarded- headers, Forwarded and X-Real-Ip is dropped, spelled with underscores too.
// Only a request that has a [watt.Caller], or is from a proxy that [TrustProxies] knows, keeps the first three, and gets the
// peer's address appended. In such a chain nothing is kept to the left of what is no address. Read it from the
// right: its beginning may still be the client's own words. Whatever compares a browser's Origin with the Host,
// as libraries for WebSockets do, needs X-Forwarded-Host in its place, or no page may connect.
//
// Where a prefix was taken from the path, an answer's Location, Content-Location and cookie paths get it back,
// if they are absolute paths or name app's host in the mesh, by http or https. A cookie's Domain in the mesh is
// removed. Cookies whose names begin with __Host- keep the path "/", without which browsers refuse them. Nothing
// else in an answer changes.
//
// A 1xx of app's passes with all headers that stand before Proxy on the way, and those are gone then, as with every
// [httputil.ReverseProxy]: a middleware in front of an app with such answers sets its headers when the final one is written.
//
// Failed calls are answered by [watt.WriteError]. An app that breaks off its answer has the client's cut, never
// ended. A client that breaks off its request is answered with 400. Event streams and WebSockets are cut when the
// drain of the entrypoint begins; what the app behind says then does not arrive. A WebSocket that the app has ended is
// cut after 5 s, if its client has not ended it by then.
//
// Proxy panics if env is nil, or app can never be called: it is meant for [watt.App.New], whose
// panics are errors of the start. Fields of what it returns may be changed, or wrapped, before it is used; then
// it is safe for concurrent use.
func Proxy(env *watt.Env, app string) *httputil.ReverseProxy {
	if err := callable(env, app); err != nil {
		panic("pyramid: Proxy: " + err.Error())
	}
	errorLog, _ := zap.NewStdLogAt(env.Logger, zap.WarnLevel) // its error is of the level alone
	p := &proxy{env: env, app: app, transport: env.Client.Transport}
	return &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      p,
		ModifyResponse: p.restore,
		ErrorHandler:   p.fail,
		ErrorLog:       errorLog,
		BufferPool:     &buffers{},
	}
}

// callable returns an error if env can never call app. Whether it could now does not matter.
func callable(env *watt.Env, app string) error {
	switch {
	case env == nil:
		return errors.New("env is nil")
	case app == "" || strings.Trim(app, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("%q is not the name of an app", app)
	}
	if err := env.Check(app); errors.Is(err, watt.ErrNoSuchApp) || errors.Is(err, watt.ErrNotAllowed) {
		return err
	}
	return nil
}

// proxy is what a ReverseProxy to one app does at its hooks.
type proxy struct {
	env       *watt.Env
	app       string
	transport http.RoundTripper
}

// rewrite turns a request of the client's into one to the app.
func (p *proxy) rewrite(r *httputil.ProxyRequest) {
	below := pathBelow(r.In)
	if text, err := url.PathUnescape(below); err != nil || climbs(text) {
		refuse(r)
		return
	}
	u := &url.URL{Scheme: "http", Host: p.app + suffix, RawQuery: r.In.URL.RawQuery, ForceQuery: r.In.URL.ForceQuery}
	setPath(u, below)
	r.Out.URL, r.Out.Host = u, ""
	delete(r.Out.Header, "Content-Length") // which is a field too; with the header, the mesh would need a connection for the request
	r.Out.Trailer = r.In.Trailer           // the very map: it fills when the body has been read
	dropForwarded(r.Out.Trailer)
	if r.Out.Body != nil {
		body := &incoming{ReadCloser: r.Out.Body, trailer: r.Out.Trailer}
		r.Out.Body, _ = body.open()
		r.Out.GetBody = body.open
	}
	setForwarded(r)
	if prefix := prefixOf(r.In, below); prefix != "" {
		r.Out = r.Out.WithContext(context.WithValue(r.Out.Context(), prefixKey{}, prefix))
	}
}

// pathBelow returns the path to pass on, in escaped form.
func pathBelow(r *http.Request) string {
	below := r.URL.EscapedPath()
	if route := chi.RouteContext(r.Context()); route != nil && route.RoutePath != "" {
		if mounted := spelled(r.URL, route.RoutePath); len(mounted) < len(below) {
			below = mounted
		}
	}
	if !strings.HasPrefix(below, "/") {
		return "/" + below
	}
	return below
}

// refusedKey is the context key of requests that must not be sent, whatever the transport.
type refusedKey struct{}

// refuse makes a request one that no transport can send.
func refuse(r *httputil.ProxyRequest) {
	r.Out.URL = new(url.URL)
	r.Out = r.Out.WithContext(context.WithValue(r.Out.Context(), refusedKey{}, true))
}

// setPath gives u a path in escaped form. A path that cannot be unescaped makes none.
func setPath(u *url.URL, escaped string) {
	u.Path, _ = url.PathUnescape(escaped)
	if u.RawPath = ""; u.EscapedPath() != escaped {
		u.RawPath = escaped
	}
}

// RoundTrip sends what may be sent to the app. It does not follow redirects: that is up to the client.
func (p *proxy) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(r.URL.Path, "/") || climbs(r.URL.Path) {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, p.badRequest(errors.New("the path has dot segments"))
	}
	resp, err := p.transport.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = newUpgraded(r.Context(), resp)
	}
	return resp, err
}

// climbs reports whether a path has dot segments, for whatever a server may take for its separators.
func climbs(path string) bool {
	if !strings.Contains(path, ".") {
		return false
	}
	for segment := range strings.FieldsFuncSeq(path, func(c rune) bool { return c == '/' || c == '\\' }) {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// badRequest is the error of a request that the client has got wrong.
func (p *proxy) badRequest(err error) error {
	return &watt.CallError{Caller: p.env.App, App: p.app, Status: http.StatusBadRequest, Err: err}
}

// fail answers a request that got no answer from the app.
func (p *proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Value(refusedKey{}) != nil {
		err = p.badRequest(errors.New("the path has dot segments"))
	}
	_, called := errors.AsType[*watt.CallError](err)
	if body, ok := r.Body.(*upload); ok && r.Context().Err() == nil && body.failure() != nil {
		err, called = body.failure(), true
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); !tooLarge {
			err = p.badRequest(fmt.Errorf("reading the request: %w", err))
		}
	}
	if !called {
		err = &watt.CallError{Caller: p.env.App, App: p.app, Started: true, Err: err}
	}
	watt.WriteError(w, err)
}

// bufferSize is what is copied of an answer at once, in bytes.
const bufferSize = 32 << 10

// buffers is a proxy's [httputil.BufferPool].
type buffers struct{ pool sync.Pool }

// Get returns a buffer for one answer.
func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return *buf
	}
	return make([]byte, bufferSize)
}

// Put takes a buffer back.
func (b *buffers) Put(buf []byte) { b.pool.Put(&buf) }
