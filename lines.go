package watt

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/wire"
)

// lines are the connections that an app keeps to one side of the mesh: a door, behind which all instances of this
// process are, a generation of a Serve app, or an instance in another process.
type lines struct {
	wire.Pool
	http2 func() *http.Transport // for gRPC, which needs it; made when first asked for
}

func newLines(errorLog wire.Log, dial func(ctx context.Context) (net.Conn, error)) *lines {
	return &lines{
		Pool: wire.Pool{IdleTimeout: meshIdleTimeout, Dial: dial, ErrorLog: errorLog},
		http2: sync.OnceValue(func() *http.Transport {
			var protocols http.Protocols
			protocols.SetUnencryptedHTTP2(true)
			return &http.Transport{
				DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
				DisableCompression: true,
				Protocols:          &protocols,
				IdleConnTimeout:    meshIdleTimeout,
			}
		}),
	}
}

// RoundTrip implements [http.RoundTripper].
func (l *lines) RoundTrip(req *http.Request) (*http.Response, error) {
	if isGRPC(req.Header) {
		return l.http2().RoundTrip(wire.GuardBody(req, l.ErrorLog))
	}
	return l.Pool.RoundTrip(req, time.Time{}, nil)
}

// close closes the connections that no call is using, and the others when they become free.
func (l *lines) close() {
	l.CloseIdle()
	l.http2().CloseIdleConnections()
}

// isGRPC reports whether a request needs HTTP/2, unlike gRPC-Web.
func isGRPC(h http.Header) bool {
	kind, ok := strings.CutPrefix(first(h, "Content-Type"), "application/grpc")
	return ok && (kind == "" || kind[0] != '-')
}

// kept returns the connections that this app keeps to one side, and makes them of what connect returns.
func (m *mesh) kept(to any, connect func(ctx context.Context, caller string) (net.Conn, error)) *lines {
	if l, ok := m.lines.Load(to); ok {
		return l.(*lines)
	}
	l, there := m.lines.LoadOrStore(to, newLines(m.errorLog(), func(ctx context.Context) (net.Conn, error) { return connect(ctx, m.caller) }))
	if end, ok := to.(interface{ over() bool }); !there && ok && end.over() {
		m.forget(to) // who forgets it at its end may have come before
	}
	return l.(*lines)
}

// errorLog is where the caller's faults are told.
func (m *mesh) errorLog() wire.Log { //nolint:ireturn // what it is made of belongs to another package
	name := m.caller
	if name == "" {
		name = "main"
	}
	return zap.NewStdLog(m.rt.log().With(zap.String("app", name)))
}

// forget closes the connections that are kept to something that has ended, and keeps no more.
func (m *mesh) forget(to any) {
	if l, ok := m.lines.LoadAndDelete(to); ok {
		l.(*lines).Close()
		l.(*lines).http2().CloseIdleConnections()
	}
}

// closeIdle closes the connections that no call is using.
func (m *mesh) closeIdle() {
	m.lines.Range(func(_, l any) bool {
		l.(*lines).close()
		return true
	})
}
