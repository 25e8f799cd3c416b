package watt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/roundtrip"
)

// remote stands for an app that runs elsewhere, behind one base URL.
type remote struct {
	absent
	base      *url.URL
	prefix    string // base's path in escaped form, without a slash at its end
	tls       *tls.Config
	dialer    net.Dialer
	transport *http.Transport
	grpc      *http.Transport                // for gRPC, which needs HTTP/2; only TLS can find out whether the other side has it
	dialled   conns                          // of both
	calls     *admission.Member[*generation] // in progress; nil before the start
	failures  summary
}

func newRemote(a *app, config *App) *remote {
	base, _ := url.Parse(config.URL) // validated
	rem := &remote{
		absent: absent{inside{a}}, base: base, prefix: strings.TrimRight(base.EscapedPath(), "/"),
		tls: config.TLS, dialer: net.Dialer{Timeout: 10 * time.Second},
		failures: summary{log: a.log, what: "calls to it failed"},
	}
	rem.dialled.resize(math.MaxInt) // the workers are the limit
	rem.transport = &http.Transport{
		DialContext:         rem.dial,
		TLSClientConfig:     config.TLS.Clone(), // to which it adds protocols
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     meshIdleTimeout,
	}
	if rem.grpc = rem.transport; base.Scheme == "http" {
		rem.grpc = overHTTP2(rem.dial)
	}
	return rem
}

// open implements place.
func (rem *remote) open() {
	rem.calls = rem.app.pool.Add()
	rem.calls.Open(&generation{app: rem.app, tally: rem.app.tallies.instance(0)})
}

func (rem *remote) send(c *call, req *http.Request) (*http.Response, error) {
	if err := c.admit(req); err != nil {
		return nil, err
	}
	resp, err := c.withTimer(req, rem.roundTrip)
	if err != nil {
		rem.note(c, err)
	}
	return resp, err
}

// note counts a call that has failed with err, if that is for the app, or for the way to it: a caller with little time may
// have waited in vain for a connection.
func (rem *remote) note(c *call, err error) {
	cause := c.endCause()
	switch {
	case isCall(err), bodyFailed(err):
	case unseen(err) && (cause == nil || errors.Is(cause, context.DeadlineExceeded)):
		rem.failures.note(err)
	case cause == nil, c.late():
		rem.failures.note(c.failure(err))
	}
}

// roundTrip sends a request of the mesh to the same path below the base URL.
func (rem *remote) roundTrip(req *http.Request) (*http.Response, error) {
	to, err := rem.below(req.URL)
	if err != nil {
		roundtrip.CloseBody(req)
		return nil, err
	}
	transport := rem.transport
	if isGRPC(req.Header) {
		transport = rem.grpc
	}
	out, s := watchSends(req, transport == rem.transport)
	out.URL, out.Host = to, ""
	resp, err := transport.RoundTrip(roundtrip.GuardBody(out, rem.app.direct.ErrorLog))
	if err != nil {
		err = s.explain(err)
	}
	return resp, err
}

// below returns where u is below the base URL, with every byte of its path as it is. What the other side takes dot
// segments for is up to that; with a path of the base's, those that may lead out of it are refused. So is what is opaque, unless
// it is a path and the base has none.
func (rem *remote) below(u *url.URL) (*url.URL, error) {
	if u.Opaque != "" && (rem.prefix != "" || u.Opaque[0] != '/' || strings.HasPrefix(u.Opaque, "//")) {
		return nil, &CallError{Err: errors.New("a URL that is opaque may lead past the base URL")}
	}
	to := *rem.base
	to.Opaque, to.Path, to.RawPath, to.RawQuery, to.ForceQuery = u.Opaque, u.Path, u.RawPath, u.RawQuery, u.ForceQuery
	if rem.prefix == "" {
		return &to, nil
	}
	if slices.Contains(strings.FieldsFunc(u.Path, func(c rune) bool { return c == '/' || c == '\\' }), "..") {
		return nil, &CallError{Err: errors.New(`a path with ".." may leave the base URL`)}
	}
	path := u.EscapedPath()
	if path != "" && path[0] != '/' {
		path = "/" + path
	}
	to.RawPath = rem.prefix + path
	to.Path, _ = url.PathUnescape(to.RawPath) // which both of its parts have come from
	return &to, nil
}

// connect opens a raw connection to the base URL's host, which does not learn who calls.
func (rem *remote) connect(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := rem.raw(ctx)
	if err != nil && ctx.Err() == nil {
		rem.failures.note(err)
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return conn, err
}

func (rem *remote) raw(ctx context.Context) (net.Conn, error) {
	port := rem.base.Port()
	if port == "" {
		port = rem.base.Scheme // "http" and "https" are services with a port
	}
	addr := net.JoinHostPort(rem.base.Hostname(), port)
	if rem.base.Scheme == "https" {
		return (&tls.Dialer{NetDialer: &rem.dialer, Config: rem.tls}).DialContext(ctx, "tcp", addr)
	}
	return rem.dialer.DialContext(ctx, "tcp", addr)
}

func (rem *remote) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := rem.dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	tracked, err := rem.dialled.track(conn)
	if err != nil {
		_ = conn.Close()
	}
	return tracked, err
}

// quiet waits for the calls in progress, which can only be main's own.
func (rem *remote) quiet(ctx context.Context) error {
	if rem.calls == nil {
		return nil
	}
	rem.calls.Close()
	if rem.calls.Idle(ctx) != nil {
		return fmt.Errorf("watt: app %q: %s cut, to %s", rem.app.name, were(rem.calls.Busy(), "call", "calls"), rem.base)
	}
	return nil
}

// close closes all connections: those of HTTP/2 may not know yet that they are idle.
func (rem *remote) close(context.Context) {
	rem.dialled.refuse(errStopped)
	rem.transport.CloseIdleConnections()
	rem.grpc.CloseIdleConnections()
	rem.dialled.cut()
	rem.failures.flush()
}
