package watt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/net/idna"

	"github.com/org/watt/internal/count"
	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/roundtrip"
)

// suffix ends the host names of the mesh. Names under it never reach DNS.
const suffix = ".watt.local"

// AppOf returns the app that the host of a URL names: "users" for "users.watt.local". It reads names as [Env.Client]
// does, whatever their case, with or without a port or a dot at the end. It reports false for a host outside the mesh;
// whether there is an app of that name it does not know.
func AppOf(host string) (app string, mesh bool) {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	if name, ok := strings.CutSuffix(host, suffix); ok && nameProblem(name) == "" {
		return name, true // as nearly all are written
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) {
		if ascii, err := idna.Lookup.ToASCII(host); err == nil {
			host = ascii // as net/http does before it asks DNS
		}
	}
	host = strings.ToLower(strings.TrimRight(strings.Trim(host, "[]"), "."))
	if app, mesh = strings.CutSuffix(host, suffix); !mesh {
		return "", false
	}
	return app, true
}

// mesh is one app's way to the others: it resolves names, checks that the call is allowed, and keeps
// connections for the next call.
type mesh struct {
	rt      *Runtime
	caller  string // empty for main and tests
	peer    peer   // the caller, as doors see it without a connection
	address string // likewise

	edges     map[string]*edge  // of all that it may call, and of nothing else, by name
	transport http.RoundTripper // this mesh, wrapped

	lines sync.Map // *lines by what they lead to
	fair  fairness
}

// edge is an app that another may call.
type edge struct {
	app     *app
	calls   *count.Calls // counts them
	lengths lengths      // of their answers
}

func newMesh(rt *Runtime, caller string) *mesh {
	return &mesh{
		rt: rt, caller: caller, peer: peer{caller: caller}, address: address(caller).String(),
		edges: make(map[string]*edge),
	}
}

// leadTo lets the mesh call an app.
func (m *mesh) leadTo(a *app) { m.edges[a.name] = &edge{app: a, calls: new(count.Calls)} }

// wrapped returns the mesh as the runtime's Transport wraps it.
func (m *mesh) wrapped() http.RoundTripper {
	if m.rt.Transport == nil {
		return m
	}
	if wrapped := m.rt.Transport(m.caller, m); wrapped != nil {
		return wrapped
	}
	return m // and not what http.Client makes of nil
}

// checkRedirect is the default policy, and keeps answers from the outside from sending a request
// into the mesh.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("watt: stopped after 10 redirects")
	}
	_, to := AppOf(req.URL.Host)
	if _, from := AppOf(via[len(via)-1].URL.Host); to && !from {
		return fmt.Errorf("%w: %s redirects into the mesh", ErrNotAllowed, via[len(via)-1].URL.Host)
	}
	return nil
}

// resolve returns the way to the app that name means to this caller.
func (m *mesh) resolve(name string) (*edge, error) {
	apps := m.rt.running.Load()
	if apps == nil {
		return nil, m.failed(name, fmt.Errorf("%w: the runtime has not started", ErrUnavailable))
	}
	if e := m.edges[name]; e != nil {
		return e, nil
	}
	if (*apps)[name] == nil {
		return nil, m.failed(name, fmt.Errorf("%w: there are %s", ErrNoSuchApp, listed(slices.Collect(maps.Keys(*apps)))))
	}
	if name == m.caller {
		return nil, m.failed(name, fmt.Errorf("%w: no app calls itself", ErrNotAllowed))
	}
	return nil, m.failed(name, fmt.Errorf("%w: add %q to Calls of app %q", ErrNotAllowed, name, m.caller))
}

// listedMost is how many apps an error names.
const listedMost = 20

// listed sorts and lists the names of apps, for whoever has mistaken a name.
func listed(names []string) string {
	slices.Sort(names)
	if len(names) > listedMost {
		names = append(names[:listedMost], "…")
	}
	return strings.Join(names, ", ")
}

func (m *mesh) check(app string, by time.Time) error {
	e, err := m.resolve(nameOf(app))
	if err != nil {
		return err
	}
	if err := e.app.place.check(by); err != nil {
		return m.failed(e.app.name, err)
	}
	return nil
}

func (m *mesh) dial(ctx context.Context, app string) (net.Conn, error) {
	e, err := m.resolve(nameOf(app))
	if err != nil {
		return nil, err
	}
	a := e.app
	if err := a.await(ctx, a.waitsUntil()); err != nil {
		return nil, m.failed(a.name, err)
	}
	conn, err := a.place.connect(ctx, m.caller)
	if err != nil {
		return nil, m.failed(a.name, err)
	}
	held, err := a.conns.hold(conn) // the other end is closed by its side, after all that it has to say
	if err != nil {
		_ = conn.Close()
		a.shedConn(err)
		return nil, m.failed(a.name, err)
	}
	return held, nil
}

// nameOf returns the app's name in what Dial and Check take: a name, a host, or either with a port.
func nameOf(app string) string {
	if name, ok := AppOf(app); ok {
		return name
	}
	if host, _, err := net.SplitHostPort(app); err == nil {
		app = host
	}
	return strings.ToLower(app)
}

// RoundTrip implements [http.RoundTripper]: mesh names go to their apps, everything else goes out.
func (m *mesh) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil || req.Header == nil {
		return m.rt.outside.RoundTrip(req) // which says so
	}
	name, ok := AppOf(req.URL.Host)
	if !ok {
		resp, err := m.rt.outside.RoundTrip(req)
		return resp, m.meant(req.URL.Hostname(), err)
	}
	e, err := m.resolve(name)
	if err == nil && req.URL.Scheme != "http" {
		err = m.failed(name, fmt.Errorf("the mesh speaks http, not %q: did you mean http://%s?", req.URL.Scheme, req.URL.Host))
	}
	if err != nil {
		roundtrip.CloseBody(req)
		return nil, err
	}
	return m.call(e, req)
}

// meant adds to what DNS says of a host that is called like an app.
func (m *mesh) meant(host string, err error) error {
	a := m.rt.app(strings.ToLower(host))
	if dns, failed := errors.AsType[*net.DNSError](err); !failed || dns.IsTimeout || a == nil {
		return err
	}
	return fmt.Errorf("%w: did you mean http://%s%s?", err, a.name, suffix)
}

// address is what the pipe's ends say of an app.
func address(app string) pipe.Addr {
	if app == "" {
		app = "main"
	}
	return pipe.Addr(app + suffix + ":80")
}

// lateTransport is main's, which can be asked for before the runtime knows how it is wrapped.
type lateTransport struct{ rt *Runtime }

// RoundTrip calls an app through the runtime's Transport, once that is in use.
func (t lateTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.rt.running.Load() == nil {
		return t.rt.mesh.RoundTrip(req)
	}
	return t.rt.mesh.transport.RoundTrip(req)
}
