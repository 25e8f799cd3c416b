package watt

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/roundtrip"
	"github.com/org/watt/internal/trunk"
	"github.com/org/watt/internal/wire"
)

// lines are the connections that an app keeps to one callee: a door, behind which all instances of this process are, a
// generation of a Serve app, or a target in another process.
type lines struct {
	wire.Pool
	http2 *http.Transport // for gRPC, which needs it
	trunk trunk.Client    // to another process, for what needs no connection of its own
}

func newLines(errorLog roundtrip.Log, dial func(ctx context.Context) (net.Conn, error)) *lines {
	return &lines{
		Pool:  wire.Pool{IdleTimeout: meshIdleTimeout, Dial: dial, ErrorLog: errorLog},
		http2: overHTTP2(func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }),
	}
}

// overHTTP2 returns a transport that speaks HTTP/2 at once, where there is no TLS by which both sides could agree on that.
func overHTTP2(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *http.Transport {
	t := &http.Transport{DialContext: dial, DisableCompression: true, Protocols: new(http.Protocols), IdleConnTimeout: meshIdleTimeout}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// RoundTrip implements [http.RoundTripper].
func (l *lines) RoundTrip(req *http.Request) (*http.Response, error) {
	if isGRPC(req.Header) {
		return l.http2.RoundTrip(roundtrip.GuardBody(req, l.ErrorLog))
	}
	return l.Pool.RoundTrip(req, time.Time{}, nil)
}

// CloseIdle closes the connections that no call is using, and the others when they become free.
func (l *lines) CloseIdle() {
	l.Pool.CloseIdle()
	l.trunk.CloseIdle()
	l.http2.CloseIdleConnections()
}

// Close is CloseIdle for good.
func (l *lines) Close() {
	l.Pool.Close()
	l.trunk.Close()
	l.http2.CloseIdleConnections()
}

// isGRPC reports whether a request needs HTTP/2, unlike gRPC-Web.
func isGRPC(h http.Header) bool {
	kind, ok := strings.CutPrefix(strings.ToLower(first(h, "Content-Type")), "application/grpc")
	return ok && (kind == "" || kind[0] != '-')
}

// kept returns the connections that this app keeps to one callee. If there are none yet, connect will open them.
func (m *mesh) kept(to any, connect func(ctx context.Context, caller string) (net.Conn, error)) *lines {
	if l, ok := m.lines.Load(to); ok {
		return l.(*lines)
	}
	return m.keep(to, newLines(m.errorLog(), func(ctx context.Context) (net.Conn, error) { return connect(ctx, m.caller) }))
}

// keptTo is kept for a target in another process.
func (m *mesh) keptTo(to target) *lines {
	key := to.key()
	if l, ok := m.lines.Load(key); ok {
		return l.(*lines)
	}
	connect := func(trunk bool) func(context.Context) (net.Conn, error) {
		return func(ctx context.Context) (net.Conn, error) { return to.connect(ctx, m.caller, trunk) }
	}
	l := newLines(m.errorLog(), connect(false))
	l.trunk.Dial, l.trunk.Buffers, l.trunk.Timers, l.trunk.IdleTimeout = connect(true), &m.rt.buffers, &m.rt.timers, meshIdleTimeout
	return m.keep(key, l)
}

// keep keeps the connections to a callee, unless there are some already. It returns those that are kept.
func (m *mesh) keep(to any, made *lines) *lines {
	l, there := m.lines.LoadOrStore(to, made)
	if end, ok := to.(interface{ over() bool }); !there && ok && end.over() {
		m.forget(to) // whoever has forgotten it at its end may have come too early for these
	}
	return l.(*lines)
}

// errorLog is where the caller's faults are told.
func (m *mesh) errorLog() roundtrip.Log { //nolint:ireturn // what it is made of belongs to another package
	name := m.caller
	if name == "" {
		name = "main"
	}
	return zap.NewStdLog(m.rt.log().With(zap.String("app", name)))
}

// forget closes the connections that are kept to a callee that has ended, and lets no more be kept.
func (m *mesh) forget(to any) {
	if l, ok := m.lines.LoadAndDelete(to); ok {
		l.(*lines).Close()
	}
}

// forget is the mesh's for all that may call the app.
func (a *app) forget(to any) {
	a.rt.mesh.forget(to)
	for _, caller := range a.callers {
		caller.mesh.forget(to)
	}
}

// closeIdle closes the connections that no call is using.
func (m *mesh) closeIdle() {
	m.lines.Range(func(_, l any) bool {
		l.(*lines).CloseIdle()
		return true
	})
}
