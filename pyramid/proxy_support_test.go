package pyramid_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

// patience bounds what a test waits for on real sockets.
const patience = 10 * time.Second

// front is a running pyramid whose entrypoint, "gateway", has a port.
type front struct {
	*watttest.Topology
	rt   *watt.Runtime
	logs *observer.ObservedLogs
	addr string
}

// newFront starts apps behind the ready gateway.
func newFront(t *testing.T, apps ...watt.App) *front {
	t.Helper()
	return startFront(t, watt.App{}, apps...)
}

// startFront starts apps behind an entrypoint, whose name and address it fills in.
func startFront(t *testing.T, entry watt.App, apps ...watt.App) *front {
	t.Helper()
	entry.Name, entry.Listen = "gateway", "127.0.0.1:0"
	f := &front{rt: watt.New(pyramid.New(entry, apps...)...)}
	core, logs := observer.New(zap.WarnLevel)
	f.rt.Logger, f.logs = zap.New(core), logs
	f.Topology = watttest.Start(t, f.rt)
	_, f.addr, _ = strings.Cut(f.URL("gateway"), "://")
	return f
}

// serving is an entrypoint whose handler is made by h.
func serving(h func(env *watt.Env) http.Handler) watt.App {
	return watt.App{New: func(_ context.Context, env *watt.Env) (http.Handler, error) { return h(env), nil }}
}

// behind is an entrypoint that has users mounted below /users, behind a middleware of chi's, and a page of users' at
// /home/{id}.
func behind(by func(http.Handler) http.Handler) watt.App {
	return serving(func(env *watt.Env) http.Handler {
		r := chi.NewRouter()
		r.Use(by)
		r.Mount("/users", pyramid.Proxy(env, "users"))
		r.Handle("/home/{id}", pyramid.Compose(env, pyramid.Parts{"a": {App: "users", Path: "/{id}", Optional: true}}))
		return r
	})
}

// client makes no more of an answer than what is there. It ends with the test.
func client(t *testing.T, protocols *http.Protocols) *http.Client {
	t.Helper()
	transport := &http.Transport{DisableCompression: true, Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// h2c is HTTP/2 without encryption.
func h2c() *http.Protocols {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &p
}

// do sends a request to the entrypoint over TCP.
func (f *front) do(t *testing.T, method, path string, body io.Reader, headers ...string) *http.Response {
	t.Helper()
	return send(t, client(t, nil), f.request(t, method, path, body, headers...))
}

func (f *front) request(t *testing.T, method, path string, body io.Reader, headers ...string) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, "http://"+f.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header[headers[i]] = append(req.Header[headers[i]], headers[i+1])
	}
	return req
}

func send(t *testing.T, c *http.Client, req *http.Request) *http.Response {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// all returns the whole body of an answer.
func all(t *testing.T, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(body), err)
	}
	return string(body)
}

// dial opens a connection to the entrypoint. It ends with the test, or when patience does.
func (f *front) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// raw sends bytes to the entrypoint and returns its first answer, body read.
func (f *front) raw(t *testing.T, text string) (*http.Response, string) {
	t.Helper()
	conn := f.dial(t)
	io.WriteString(conn, text)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("to %q: %v", text, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("to %q: after %q: %v", text, body, err)
	}
	return resp, string(body)
}

// arrival is what an app saw of a request.
type arrival struct {
	target, host string
	header       http.Header
}

// recorder is an app that remembers what arrives.
type recorder struct {
	mu  sync.Mutex
	got []arrival
}

func (s *recorder) app(name string) watt.App {
	return watt.App{Name: name, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.got = append(s.got, arrival{r.RequestURI, r.Host, r.Header.Clone()})
		io.WriteString(w, name)
	})}
}

// take returns what has arrived since the last call.
func (s *recorder) take() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got = nil
	return got
}

// one returns the only request that has arrived.
func (s *recorder) one(t *testing.T) arrival {
	t.Helper()
	got := s.take()
	if len(got) != 1 {
		t.Fatalf("%d requests arrived, want 1", len(got))
	}
	return got[0]
}

// wantNotice fails the test unless an answer is the problem document for status, of app unless that is empty.
func wantNotice(t *testing.T, resp *http.Response, body string, status int, app string) {
	t.Helper()
	var doc struct {
		Title, App string
		Status     int
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Errorf("got %q: %v", body, err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("got Content-Type %q", got)
	}
	if resp.StatusCode != status || doc.Status != status || doc.Title != http.StatusText(status) || doc.App != app {
		t.Errorf("got %s, %s, want %d about %q", resp.Status, body, status, app)
	}
}

// wantSilence fails the test if anything was logged at level or above.
func (f *front) wantSilence(t *testing.T, level zapcore.Level) {
	t.Helper()
	for _, line := range f.logs.All() {
		if line.Level >= level {
			t.Errorf("logged: %s %v", line.Message, line.ContextMap())
		}
	}
}

// within returns what c gives, or fails the test if that does not come in time.
func within[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// soon waits until ok, which follows from what the test has seen, but perhaps a moment later.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !ok(); <-tick.C {
		if time.Since(began) > patience {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// statusOf returns the status of the app called name.
func (f *front) statusOf(t *testing.T, name string) watt.Status {
	t.Helper()
	all := f.rt.Status()
	i := slices.IndexFunc(all, func(s watt.Status) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("there is no app %q", name)
	}
	return all[i]
}
