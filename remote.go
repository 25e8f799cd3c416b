package watt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/wire"
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
	rem := &remote{absent: absent{inside{a}}, base: base, tls: config.TLS, dialer: net.Dialer{Timeout: 10 * time.Second}}
	rem.failures.log, rem.failures.what = a.log, "calls to it failed"
	rem.prefix = strings.TrimRight(base.EscapedPath(), "/")
	rem.dialled.resize(math.MaxInt) // the workers are the limit
	rem.transport = &http.Transport{
		DialContext:         rem.dial,
		TLSClientConfig:     config.TLS,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     meshIdleTimeout,
	}
	if rem.grpc = rem.transport; base.Scheme == "http" {
		rem.grpc = &http.Transport{
			DialContext: rem.dial, DisableCompression: true, Protocols: new(http.Protocols), IdleConnTimeout: meshIdleTimeout,
		}
		rem.grpc.Protocols.SetUnencryptedHTTP2(true)
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

// roundTrip sends a request of the mesh to the same path below the base URL. If a connection that was kept ends without an
// answer, as those do which the other side has just closed because they were idle, the transport sends it again: with a
// method that changes nothing (RFC 9110, 9.2.2). Any other goes out once, for the connection on which the transport would
// repeat what it thinks harmless is closed before that. With HTTP/2 it repeats only what the other side has refused, but for
// as long as that does.
func (rem *remote) roundTrip(req *http.Request) (*http.Response, error) {
	to, err := rem.below(req.URL)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	transport := rem.transport
	if isGRPC(req.Header) {
		transport = rem.grpc
	}
	sent, again, once := 0, false, !changesNothing(req.Method) && transport == rem.transport
	ctx, giveUp := context.WithCancelCause(req.Context())
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			switch sent++; {
			case sent > mostSends:
				giveUp(errRefusedAgain)
			case sent > 1 && once && !speaksHTTP2(info.Conn):
				_ = info.Conn.Close()
				again = true
			}
		},
	}))
	req.URL, req.Host = to, ""
	resp, err := transport.RoundTrip(wire.GuardBody(req, rem.app.direct.ErrorLog))
	switch {
	case err == nil:
	case context.Cause(ctx) == errRefusedAgain: //nolint:errorlint // ours, bare
		err = errRefusedAgain
	case sent == 0:
		err = unmet(ctx, err)
	case again && lost(err): // of the second connection
		err = errKept
	}
	return resp, err
}

// changesNothing reports whether a method is safe, in the words of RFC 9110.
func changesNothing(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

func speaksHTTP2(conn net.Conn) bool {
	secure, ok := conn.(*tls.Conn)
	return ok && secure.ConnectionState().NegotiatedProtocol == "h2"
}

// errKept is why the transport would have sent a request once more.
var errKept = fmt.Errorf("it was that of an earlier call, and has ended: %w", io.ErrUnexpectedEOF)

// mostSends is how often a request is sent to a side that refuses it, as one does that goes away. When that lets all
// connections go after their first answers, some of many requests are refused ten times and more.
const mostSends = 100

var errRefusedAgain = fmt.Errorf("refused %d times", mostSends)

// unmet returns the error of a request that has got no connection. One that was cut in its handshake, or waited for in vain,
// was none; what is wrong with a certificate had better be seen.
func unmet(ctx context.Context, err error) error {
	timeout, ok := errors.AsType[net.Error](err)
	if late := ok && timeout.Timeout(); !unseen(err) && (late || lost(err) || ctx.Err() != nil) {
		return &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	return err
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
