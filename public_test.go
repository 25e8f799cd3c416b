package watt_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/watttest"
)

// show answers with what the app behind the door sees of a request.
func show(w http.ResponseWriter, r *http.Request) {
	_, deadline := r.Context().Deadline()
	fmt.Fprintf(w, "%s caller=%q deadline=%t\n", r.Proto, watt.Caller(r.Context()), deadline)
	r.Header.Write(w)
}

// publicAddr is where an app listens.
func publicAddr(t *testing.T, rt *watt.Runtime, name string) string {
	t.Helper()
	return statusOf(t, rt, name).Addr
}

// headers of a request as an app behind a public door sees them.
func seenBehind(t *testing.T, addr, lines string) string {
	t.Helper()
	answer := raw(t, addr, "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n"+lines+"\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Fatalf("%q: got %q", lines, answer)
	}
	_, body, _ := strings.Cut(answer, "\r\n\r\n")
	return body
}

func TestCONNECTIsRefused(t *testing.T) {
	rt := start(t, public(app("web", show)))
	for _, target := range []string{"shop.example:443", "web.watt.local:80", "/path"} {
		got := raw(t, publicAddr(t, rt, "web"), "CONNECT "+target+" HTTP/1.1\r\nHost: shop.example\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 4") || !strings.Contains(got, "Connection: close") || strings.Contains(got, " 200 ") {
			t.Errorf("%s: got %q", target, got)
		}
	}
}

func TestMeshNamesAreNeverReachableFromAPublicListener(t *testing.T) {
	rt := start(t, public(app("web", func(http.ResponseWriter, *http.Request) { t.Error("it reached the app") })), app("users", sayHello))
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: users.watt.local",
		"GET / HTTP/1.1\r\nHost: USERS.Watt.Local.:80",
		"GET / HTTP/1.1\r\nHost: web.watt.local",
		"GET / HTTP/1.1\r\nHost: nobody.watt.local",
		"GET http://users.watt.local/ HTTP/1.1\r\nHost: shop.example",
		"GET http://Users.Watt.Local:8080/ HTTP/1.1\r\nHost: shop.example",
		"GET / HTTP/1.0\r\nHost: users.watt.local",
	} {
		got := raw(t, publicAddr(t, rt, "web"), head+"\r\nConnection: close\r\n\r\n")
		if !strings.Contains(got, " 421 Misdirected Request\r\n") || strings.Contains(got, "hello") {
			t.Errorf("%q: got %q", head, got)
		}
	}
}

func TestWhatIsTrustedInsideIsRemovedAtTheDoor(t *testing.T) {
	rt := start(t, public(app("web", show)))
	got := seenBehind(t, publicAddr(t, rt, "web"), "X-Watt-User: 1\r\nx-watt-caller: 1\r\nX_Watt_User: 1\r\nx-WATT_user: 1\r\nX_watt-Timeout: 5000\r\n"+
		"X-Watt-Timeout: 5000\r\nX-Watt-: 1\r\nTrace-Parent: ok\r\nX_Request_Id: 1\r\nX-Wattage: ok\r\n")
	want := "HTTP/1.1 caller=\"\" deadline=false\nConnection: close\r\nTrace-Parent: ok\r\nX-Wattage: ok\r\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAMalformedTraceparentIsDroppedWithItsTracestate(t *testing.T) {
	rt := start(t, public(app("web", show)))
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for value, valid := range map[string]bool{
		"00-" + trace + "-" + span + "-01": true,
		"cc-" + trace + "-" + span + "-01": true, "cc-" + trace + "-" + span + "-01-later": true,
		"ff-" + trace + "-" + span + "-01": false, "00-" + trace + "-" + span + "-01-more": false, "cc-" + trace + "-" + span + "-01more": false,
		"00-" + strings.ToUpper(trace) + "-" + span + "-01":  false,
		"00-" + strings.Repeat("0", 32) + "-" + span + "-01": false, "00-" + trace + "-" + strings.Repeat("0", 16) + "-01": false,
		"00-x": false, "": false, "00-" + trace + "-" + span + "-0g": false, "00-" + trace + "-" + span + "-01\r\nTraceparent: 00-x": false,
	} {
		got := seenBehind(t, publicAddr(t, rt, "web"), "Traceparent: "+value+"\r\nTracestate: a=1\r\nTracestate: b=2\r\n")
		if valid != strings.Contains(got, "Traceparent: "+value+"\r\nTracestate: a=1,b=2\r\n") || !valid && strings.Contains(got, "Trace") {
			t.Errorf("%q: got %q", value, got)
		}
	}
}

func TestARequestIDOfAStrangerIsShortAndPrintable(t *testing.T) {
	rt := start(t, public(app("web", show)))
	for value, keep := range map[string]bool{
		"7": true, "a b~!": true, strings.Repeat("x", 128): true,
		strings.Repeat("x", 129): false, "a\tb": false, "ü": false,
	} {
		got := seenBehind(t, publicAddr(t, rt, "web"), "X-Request-ID: "+value+"\r\n")
		if keep != strings.Contains(got, "X-Request-Id: "+value+"\r\n") || !keep && strings.Contains(got, "X-Request-Id") {
			t.Errorf("%q: got %q", value, got)
		}
	}
	if got := seenBehind(t, publicAddr(t, rt, "web"), "Baggage: "+strings.Repeat("x", 9<<10)+"\r\n"); strings.Contains(got, "Baggage") {
		t.Error("baggage of 9 KiB came in")
	}
}

func TestOnlyUpgradeWebsocketIsProxied(t *testing.T) {
	rt := start(t, public(app("web", show)), public(app("chat", shout)))
	for value, keep := range map[string]bool{"websocket": true, "WebSocket": true, "h2c": false, "websocket, h2c": false, "h2c\r\nUpgrade: websocket": false} {
		conn := dialTCP(t, publicAddr(t, rt, "web"))
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: %s\r\n\r\n", value)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		got := read(t, resp, err)
		if keep != strings.Contains(got, "Upgrade: "+value) || !keep && strings.Contains(got, "pgrade") {
			t.Errorf("%q: got %q", value, got)
		}
	}
	conn := dialTCP(t, publicAddr(t, rt, "chat"))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello\n")
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(br); string(got) != "HELLO\nbye" {
		t.Errorf("got %q, %v", got, err)
	}
}

// bubble starts apps whose public door is in memory, and returns a way to connect to it.
func bubble(t *testing.T, apps ...watt.App) (*watt.Runtime, func() net.Conn) {
	t.Helper()
	ln := pipe.Listen(new(pipe.Buffers), "public:80")
	rt := watt.New(apps...)
	rt.Listen = func(context.Context, string, string) (net.Listener, error) { return ln, nil }
	watttest.Start(t, rt)
	return rt, func() net.Conn {
		conn, err := ln.Dial(t.Context(), "stranger:1", nil)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
}

func TestSlowHeadersAndIdleConnectionsTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, dial := bubble(t, public(app("web", sayHello)))
		for head, want := range map[string]time.Duration{"": 10 * time.Second, "GET / HTTP/1.1\r\nHost: a\r\nX: ": 10 * time.Second, "GET / HTTP/1.1\r\nHost: a\r\n\r\n": 2 * time.Minute} {
			conn := dial()
			io.WriteString(conn, head)
			began := time.Now()
			got, err := io.ReadAll(conn)
			if took := time.Since(began); err != nil || took < want || took > want+time.Second {
				t.Errorf("%q: closed after %v, want %v; %q, %v", head, took, want, got, err)
			}
			conn.Close()
		}
	})
}

func TestHeadersAreLimited(t *testing.T) {
	rt := start(t, public(app("web", sayHello)))
	got := raw(t, publicAddr(t, rt, "web"), "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: "+strings.Repeat("x", 60<<10)+"\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("60 KiB: got %.80q", got)
	}
	conn := dialTCP(t, publicAddr(t, rt, "web"))
	go io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("x", 128<<10)+"\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 431 ") {
		t.Errorf("128 KiB: got %q, %v", line, err)
	}
}

func TestSeveralEntrypointsHaveDoorsOfTheirOwn(t *testing.T) {
	rt := start(t, public(app("one", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "one") })),
		public(app("two", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "two") })),
		public(watt.App{Name: "raw", Serve: shoutTCP}))
	for _, name := range []string{"one", "two"} {
		resp, err := http.Get("http://" + publicAddr(t, rt, name))
		if got := read(t, resp, err); got != name {
			t.Errorf("%s: got %q", name, got)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	conn := dialTCP(t, publicAddr(t, rt, "raw"))
	io.WriteString(conn, "hello")
	conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != "HELLO" {
		t.Errorf("raw: got %q, %v", got, err)
	}
}

func TestH2CWhenProtocolsAsk(t *testing.T) {
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	asks := public(app("asks", show))
	asks.Protocols = both
	rt := start(t, asks, public(app("not", show)))
	only := new(http.Protocols)
	only.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: only}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(request(t.Context(), http.MethodGet, "http://"+publicAddr(t, rt, "asks")+"/", nil))
	if got := read(t, resp, err); !strings.HasPrefix(got, "HTTP/2.0 ") {
		t.Errorf("got %q", got)
	}
	if resp, err := transport.RoundTrip(request(t.Context(), http.MethodGet, "http://"+publicAddr(t, rt, "not")+"/", nil)); err == nil {
		resp.Body.Close()
		t.Errorf("HTTP/2 without having been asked for: %s", resp.Proto)
	}
}

// fail answers in all the ways in which watt itself answers for an app.
func fail(env *watt.Env, w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/panic":
		panic("secret")
	case "/late":
		io.WriteString(w, "some")
		http.NewResponseController(w).Flush()
		panic("secret")
	case "/timeout":
		<-r.Context().Done()
	default:
		resp, err := env.Get(r.Context(), "http://"+r.URL.Path[1:]+".watt.local/")
		if err != nil {
			watt.WriteError(w, fmt.Errorf("secret: %w", err))
			return
		}
		resp.Body.Close()
	}
}

func TestStrangersGetTheStatusAndNoErrorsText(t *testing.T) {
	a, busy := full()
	a = public(a)
	web, hurried := public(calling("web", fail, "full")), public(calling("hurried", fail))
	hurried.Timeout = 50 * time.Millisecond
	rt := start(t, web, hurried, a, app("other", sayHello))
	occupy(t, rt, busy)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for path, want := range map[string]int{"web/panic": 500, "hurried/timeout": 504, "web/nobody": 502, "web/other": 403, "web/full": 503} {
		name, path, _ := strings.Cut(path, "/")
		resp, err := client.Get("http://" + publicAddr(t, rt, name) + "/" + path)
		if err != nil {
			t.Fatal(err)
		}
		checkProblem(t, resp, want)
		for name := range resp.Header {
			if strings.HasPrefix(name, "X-Watt-") {
				t.Errorf("%s: %s went out", path, name)
			}
		}
	}
	for range 3 { // the door's own, also to a body that nobody reads
		resp, err := client.Post("http://"+publicAddr(t, rt, "full"), "", strings.NewReader(strings.Repeat("x", 100<<10)))
		if err != nil {
			t.Fatal(err)
		}
		if resp.Header.Get("X-Watt-Refused") != "" {
			t.Error("X-Watt-Refused went out")
		}
		checkProblem(t, resp, http.StatusServiceUnavailable)
	}
	got, err := io.ReadAll(func() io.Reader {
		conn := dialTCP(t, publicAddr(t, rt, "web"))
		io.WriteString(conn, "GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
		return conn
	}())
	if !strings.HasSuffix(string(got), "4\r\nsome\r\n") { // cut: no last chunk
		t.Errorf("late: got %q, %v", got, err)
	}
}

func TestTLSHasHTTP2(t *testing.T) {
	ca := newCA(t)
	web := public(app("web", show))
	web.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue("shop.example")}}
	rt := start(t, web)
	for _, http2 := range []bool{true, false} {
		client := ca.client(http2)
		resp, err := client.Get("https://" + publicAddr(t, rt, "web") + "/")
		got := read(t, resp, err)
		if want := map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[http2]; !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %s", got, want)
		}
		client.CloseIdleConnections()
	}
	if web.TLS.NextProtos != nil {
		t.Error("the user's configuration was changed")
	}
}

func TestAServeAppHasTLSOnItsPublicSideAlone(t *testing.T) {
	ca := newCA(t)
	web := public(serving("web", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	web.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue("shop.example")}}
	rt := start(t, web)
	client := ca.client(false)
	defer client.CloseIdleConnections()
	for url, by := range map[string]*http.Client{"https://" + statusOf(t, rt, "web").Addr: client, "http://web.watt.local": rt.Env().Client} {
		resp, err := by.Get(url)
		if got := read(t, resp, err); got != "hello" {
			t.Errorf("%s: got %q", url, got)
		}
	}
}

// starved is a listener whose next calls of Accept find no descriptor.
type starved struct {
	net.Listener
	times atomic.Int32
}

func (s *starved) Accept() (net.Conn, error) {
	if s.times.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: s.Addr(), Err: syscall.EMFILE}
	}
	return s.Listener.Accept()
}

func TestAPublicDoorSaysThatItCannotAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &starved{Listener: pipe.Listen(new(pipe.Buffers), "public:80")}
		ln.times.Store(2)
		core, logs := observer.New(zapcore.WarnLevel)
		rt := watt.New(public(app("web", sayHello)))
		rt.Logger = zap.New(core)
		rt.Listen = func(context.Context, string, string) (net.Listener, error) { return ln, nil }
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		lines := logs.FilterMessage("accept failed").FilterField(zap.String("app", "web")).All()
		if len(lines) != 1 || logs.Len() != 1 {
			t.Errorf("got %v, want once that it accepts nothing, and no more when it has been closed", logs.All())
		}
	})
}
