package admin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"go.uber.org/zap"

	"github.com/org/watt"
	"github.com/org/watt/admin"
	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/watttest"
)

const token = "open sesame"

// started is a runtime with an admin side, and its URL.
func started(t *testing.T, o admin.Options, apps ...watt.App) (rt *watt.Runtime, url string) {
	t.Helper()
	if len(apps) == 0 {
		apps = []watt.App{
			{Name: "gateway", Profile: watt.Entrypoint, Listen: "127.0.0.1:0", Calls: []string{"orders"}, New: passOn("orders")},
			{Name: "orders", Workers: 2, Instances: 2, Handler: http.NotFoundHandler()},
		}
	}
	rt = watt.New(apps...)
	address := make(chan string, 1)
	rt.Listen = func(ctx context.Context, network, addr string) (net.Listener, error) {
		ln, err := new(net.ListenConfig).Listen(ctx, network, addr)
		if err == nil {
			select {
			case address <- ln.Addr().String(): // Admin's is the first
			default:
			}
		}
		return ln, err
	}
	if o.Logs != nil {
		rt.Logger = zap.New(o.Logs)
	}
	rt.Admin = &http.Server{Addr: "127.0.0.1:0", Handler: admin.Handler(rt, o)}
	watttest.Start(t, rt)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return rt, "http://" + <-address
}

// passOn returns what makes a handler that answers as another app does.
func passOn(app string) func(context.Context, *watt.Env) (http.Handler, error) {
	return func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			resp, err := env.Get(r.Context(), "http://"+app+".watt.local"+r.URL.Path)
			if err != nil {
				watt.WriteError(w, err)
				return
			}
			resp.Body.Close()
			w.WriteHeader(resp.StatusCode)
		}), nil
	}
}

// do sends a request; change may add to it.
func do(t *testing.T, method, url, body string, change ...func(*http.Request)) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}

func with(name, value string) func(*http.Request) {
	return func(r *http.Request) {
		if name == "Host" {
			r.Host = value
			return
		}
		r.Header.Set(name, value)
	}
}

func authorized(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }

func TestWhatIsServed(t *testing.T) {
	_, url := started(t, admin.Options{})
	for path, has := range map[string]string{
		"/healthz":                       "ok",
		"/readyz":                        "ready",
		"/metrics":                       `watt_instance_up{watt_app="orders",watt_instance="1"} 1`,
		"/status":                        `"Name":"orders"`,
		"/history":                       `"Utilisation":0`,
		"/debug/pprof/":                  "goroutine",
		"/debug/pprof/goroutine?debug=1": "goroutine profile",
		"/":                              "<html",
	} {
		if status, text := do(t, http.MethodGet, url+path, ""); status != http.StatusOK || !strings.Contains(text, has) {
			t.Errorf("%s: got %d %.200s, want %q in it", path, status, text, has)
		}
	}
	for _, path := range []string{"/logs", "/debug/flight", "/nothing", "/debug/pprof/nothing"} {
		if status, _ := do(t, http.MethodGet, url+path, ""); status != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", path, status)
		}
	}
}

func TestBrowsersKeepNothingAndLoadNothingFromElsewhere(t *testing.T) {
	_, url := started(t, admin.Options{})
	for path, want := range map[string]map[string]string{
		"/":        {"Content-Security-Policy": "default-src 'self';", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"},
		"/page.js": {"Content-Security-Policy": "frame-ancestors 'none'"},
		"/status":  {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
	} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		for name, has := range want {
			if got := resp.Header.Get(name); !strings.Contains(got, has) {
				t.Errorf("%s: got %s %q, want %q in it", path, name, got, has)
			}
		}
	}
}

func TestReadinessFollowsTheApps(t *testing.T) {
	rt, url := started(t, admin.Options{}, watt.App{Name: "flaky", MaxRestarts: -1, Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
		if conn, err := ln.Accept(); err == nil {
			conn.Close()
			return errors.New("ended on purpose")
		}
		return nil
	}})
	if status, _ := do(t, http.MethodGet, url+"/readyz", ""); status != http.StatusOK {
		t.Fatalf("got %d before", status)
	}
	conn, err := rt.Env().Dial(t.Context(), "flaky")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, conn)
	conn.Close()
	for {
		status, text := do(t, http.MethodGet, url+"/readyz", "")
		if status == http.StatusServiceUnavailable {
			if !strings.Contains(text, "flaky") {
				t.Errorf("got %q, want the app's name in it", text)
			}
			return
		}
		if rt.Status()[0].PerInstance[0].Generation > 1 { // too fast for us, but it went through it
			return
		}
	}
}

func TestReadinessAsksForAMinimum(t *testing.T) {
	for _, test := range []struct {
		minimum map[string]int
		drained int // instances of orders, of which there are two
		lacks   string
	}{
		{nil, 0, ""},
		{nil, 1, ""},
		{nil, 2, `app "orders" is drained`},
		{map[string]int{"orders": 2}, 0, ""},
		{map[string]int{"orders": 2}, 1, `app "orders": 1 of its instances are ready, and 2 have to be`},
		{map[string]int{"gateway": 1, "nobody": 1}, 0, `app "nobody": 0 of its instances`},
	} {
		rt, url := started(t, admin.Options{Minimum: test.minimum})
		for i := range test.drained {
			if err := rt.Drain("orders", i); err != nil {
				t.Fatal(err)
			}
		}
		want := http.StatusOK
		if test.lacks != "" {
			want = http.StatusServiceUnavailable
		}
		if status, text := do(t, http.MethodGet, url+"/readyz", ""); status != want || !strings.Contains(text, test.lacks) {
			t.Errorf("%v, %d drained: got %d %s, want %d and %q in it", test.minimum, test.drained, status, text, want, test.lacks)
		}
		var r admin.Report
		if _, text := do(t, http.MethodGet, url+"/status", ""); json.Unmarshal([]byte(text), &r) != nil || (r.Ready == "") != (test.lacks == "") {
			t.Errorf("%v, %d drained: the page says %q", test.minimum, test.drained, r.Ready)
		}
	}
}

func TestStrangersAreNotToldWhatIsNotReady(t *testing.T) {
	rt := watt.New(watt.App{Name: "app", Handler: http.NotFoundHandler()})
	h, open := admin.Handler(rt, admin.Options{Token: token}), admin.Handler(rt, admin.Options{})
	for _, test := range []struct {
		name   string
		h      http.Handler
		at     net.Addr
		host   string
		change func(*http.Request)
		told   bool
	}{
		{"here", h, loopback{}, "127.0.0.1", func(*http.Request) {}, true},
		{"here, by a Unix socket", h, &net.UnixAddr{Name: "@watt", Net: "unix"}, "localhost", func(*http.Request) {}, true},
		{"here, by another's name", h, loopback{}, "evil.example", func(*http.Request) {}, false},
		{"elsewhere", h, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, "127.0.0.1", func(*http.Request) {}, false},
		{"elsewhere, with the token", h, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, "127.0.0.1", authorized, true},
		{"elsewhere, where there is no token", open, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, "127.0.0.1", with("Authorization", "Bearer "), false},
	} {
		ctx := context.WithValue(t.Context(), http.LocalAddrContextKey, test.at)
		req := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://"+test.host+"/readyz", http.NoBody)
		test.change(req)
		rec := httptest.NewRecorder()
		test.h.ServeHTTP(rec, req)
		if told := strings.Contains(rec.Body.String(), "not started"); rec.Code != http.StatusServiceUnavailable || told != test.told {
			t.Errorf("%s: got %d %s", test.name, rec.Code, rec.Body)
		}
	}
}

func TestOnlyThoseWhoMayDo(t *testing.T) {
	rt, url := started(t, admin.Options{Token: token, Hosts: []string{"ops.example"}})
	restart := url + "/apps/orders/instances/0/restart"
	for _, test := range []struct {
		name   string
		method string
		url    string
		body   string
		change []func(*http.Request)
		status int
	}{
		{"no token", http.MethodPost, restart, "", nil, http.StatusUnauthorized},
		{"a wrong token", http.MethodPost, restart, "", []func(*http.Request){with("Authorization", "Bearer open")}, http.StatusUnauthorized},
		{"an empty token", http.MethodPost, restart, "", []func(*http.Request){with("Authorization", "Bearer ")}, http.StatusUnauthorized},
		{"another origin", http.MethodPost, restart, "", []func(*http.Request){authorized, with("Sec-Fetch-Site", "cross-site")}, http.StatusForbidden},
		{"another origin, by an older browser", http.MethodPost, restart, "", []func(*http.Request){authorized, with("Origin", "http://evil.example")}, http.StatusForbidden},
		{"another origin of the same site", http.MethodPost, restart, "", []func(*http.Request){authorized, with("Sec-Fetch-Site", "same-site")}, http.StatusForbidden},
		{"another name", http.MethodGet, url + "/status", "", []func(*http.Request){with("Host", "evil.example")}, http.StatusMisdirectedRequest},
		{"another name that begins well", http.MethodGet, url + "/status", "", []func(*http.Request){with("Host", "127.0.0.1.evil.example")}, http.StatusMisdirectedRequest},
		{"a probe by a pod's address", http.MethodGet, url + "/healthz", "", []func(*http.Request){with("Host", "10.1.2.3:9090")}, http.StatusOK},
		{"a page from elsewhere", http.MethodGet, url + "/debug/pprof/heap", "", []func(*http.Request){with("Sec-Fetch-Site", "cross-site")}, http.StatusForbidden},
		{"a link from elsewhere", http.MethodGet, url + "/", "", []func(*http.Request){with("Sec-Fetch-Site", "cross-site")}, http.StatusOK},
		{"a name that is known", http.MethodGet, url + "/status", "", []func(*http.Request){with("Host", "OPS.example:1")}, http.StatusOK},
		{"every address of this machine", http.MethodGet, url + "/status", "", []func(*http.Request){with("Host", "0.0.0.0:9090")}, http.StatusMisdirectedRequest},
		{"an address that was one of version 4", http.MethodGet, url + "/status", "", []func(*http.Request){with("Host", "[::ffff:10.1.2.3]:9090")}, http.StatusMisdirectedRequest},
		{"a loopback address that was one of version 4", http.MethodGet, url + "/status", "", []func(*http.Request){with("Host", "[::ffff:127.0.0.1]:9090")}, http.StatusOK},
		{"a loopback address without a port", http.MethodGet, url + "/status", "", []func(*http.Request){with("Host", "[::1]")}, http.StatusOK},
		{"localhost", http.MethodGet, url + "/status", "", []func(*http.Request){with("Host", "localhost:9090")}, http.StatusOK},
		{"the token", http.MethodPost, restart, "", []func(*http.Request){authorized}, http.StatusNoContent},
		{"the scheme in small letters", http.MethodPatch, url + "/apps/orders", `{}`, []func(*http.Request){with("Authorization", "bearer "+token)}, http.StatusNoContent},
		{"the token as a password", http.MethodPost, restart, "", []func(*http.Request){func(r *http.Request) { r.SetBasicAuth("me", token) }}, http.StatusNoContent},
		{"drained", http.MethodPost, url + "/apps/orders/instances/1/drain", "", []func(*http.Request){authorized}, http.StatusNoContent},
		{"no such app", http.MethodPost, url + "/apps/nobody/instances/0/restart", "", []func(*http.Request){authorized}, http.StatusNotFound},
		{"no such instance", http.MethodPost, url + "/apps/orders/instances/7/restart", "", []func(*http.Request){authorized}, http.StatusConflict},
		{"no number", http.MethodPost, url + "/apps/orders/instances/x/restart", "", []func(*http.Request){authorized}, http.StatusNotFound},
		{"limits", http.MethodPatch, url + "/apps/orders", `{"workers": 5, "queue": 7}`, []func(*http.Request){authorized}, http.StatusNoContent},
		{"nonsense", http.MethodPatch, url + "/apps/orders", `{"workers": "many"}`, []func(*http.Request){authorized}, http.StatusBadRequest},
		{"unknown limits", http.MethodPatch, url + "/apps/orders", `{"walkers": 5}`, []func(*http.Request){authorized}, http.StatusBadRequest},
		{"impossible limits", http.MethodPatch, url + "/apps/orders", `{"workers": -5}`, []func(*http.Request){authorized}, http.StatusConflict},
		{"absurd limits", http.MethodPatch, url + "/apps/orders", `{"instances": 1000000000}`, []func(*http.Request){authorized}, http.StatusConflict},
		{"two wishes", http.MethodPatch, url + "/apps/orders", `{"workers": 6}{"workers": 8}`, []func(*http.Request){authorized}, http.StatusBadRequest},
		{"limits of nobody", http.MethodPatch, url + "/apps/nobody", `{}`, []func(*http.Request){authorized}, http.StatusNotFound},
		{"too much", http.MethodPatch, url + "/apps/orders", `{"workers": 1` + strings.Repeat(" ", 5000) + "}", []func(*http.Request){authorized}, http.StatusBadRequest},
		{"no level to set", http.MethodPut, url + "/level", `{"level": "debug", "for": "1m"}`, []func(*http.Request){authorized}, http.StatusNotFound},
		{"by GET", http.MethodGet, restart, "", []func(*http.Request){authorized}, http.StatusNotFound},
	} {
		if status, text := do(t, test.method, test.url, test.body, test.change...); status != test.status {
			t.Errorf("%s: got %d %s, want %d", test.name, status, text, test.status)
		}
	}
	orders := rt.Status()[1]
	if orders.Workers != 5 || orders.Queue != 7 || orders.Instances != 2 || orders.PerInstance[0].Generation != 3 || orders.PerInstance[1].State != "drained" {
		t.Errorf("got %d workers, a queue of %d, %d instances, generation %d", orders.Workers, orders.Queue, orders.Instances, orders.PerInstance[0].Generation)
	}
}

func TestAnUnknownLimitIsAnsweredWithThoseThatThereAre(t *testing.T) {
	_, url := started(t, admin.Options{Token: token})
	_, text := do(t, http.MethodPatch, url+"/apps/orders", `{"queueTimeout": "5s"}`, authorized)
	for _, want := range []string{`"queueTimeout"`, `"workers"`, `"queue"`, `"instances"`} {
		if !strings.Contains(text, want) {
			t.Errorf("got %q, want %s in it", text, want)
		}
	}
}

func TestTheReportShowsAtOnceWhatAnActionHasDone(t *testing.T) {
	_, url := started(t, admin.Options{Token: token})
	report := func() (r admin.Report) {
		if _, text := do(t, http.MethodGet, url+"/status", ""); json.Unmarshal([]byte(text), &r) != nil {
			t.Fatalf("got %s", text)
		}
		return r
	}
	report()
	do(t, http.MethodPatch, url+"/apps/orders", `{"workers": 5}`, authorized)
	do(t, http.MethodPost, url+"/apps/orders/instances/1/drain", "", authorized)
	if orders := report().Apps[1]; orders.Workers != 5 || orders.PerInstance[1].State != "drained" {
		t.Errorf("got %d workers, and an instance that is %s; want 5, and one that is drained", orders.Workers, orders.PerInstance[1].State)
	}
}

func TestWithoutATokenThereAreNoActions(t *testing.T) {
	_, url := started(t, admin.Options{})
	if status, _ := do(t, http.MethodPost, url+"/apps/orders/instances/0/restart", "", with("Authorization", "Bearer ")); status != http.StatusForbidden {
		t.Errorf("got %d, want 403", status)
	}
}

// TestWhatAProxyPassesOnIsFromElsewhere: it comes over a loopback address, but from anybody.
func TestWhatAProxyPassesOnIsFromElsewhere(t *testing.T) {
	_, url := started(t, admin.Options{Token: token, Hosts: []string{"ops.example"}})
	behind, err := neturl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(behind)
		r.SetXForwarded()
	}})
	defer proxy.Close()
	if status, _ := do(t, http.MethodGet, proxy.URL+"/status", ""); status != http.StatusUnauthorized {
		t.Errorf("without the token: got %d, want 401", status)
	}
	if status, _ := do(t, http.MethodGet, proxy.URL+"/status", "", authorized); status != http.StatusOK {
		t.Errorf("with the token: got %d, want 200", status)
	}
	for _, name := range []string{"Forwarded", "X-Real-IP", "Via"} {
		if status, _ := do(t, http.MethodGet, url+"/debug/pprof/heap", "", with("Host", "ops.example"), with(name, "192.0.2.1")); status != http.StatusUnauthorized {
			t.Errorf("%s: got %d, want 401", name, status)
		}
	}
}

// TestABrowserAsksForTheTokenButNotInThePlaceOfThePage: what has sent a token of its own asks for another itself.
func TestABrowserAsksForTheTokenButNotInThePlaceOfThePage(t *testing.T) {
	h := admin.Handler(watt.New(watt.App{Name: "app", Handler: http.NotFoundHandler()}), admin.Options{Token: token, Hosts: []string{"ops.example"}})
	for given, challenge := range map[string]string{"": `Basic realm="watt"`, "Basic bWU6bm8=": `Basic realm="watt"`, "Bearer no": "", "bearer no": ""} {
		rec := answerTo(t, h, "/status", with("Authorization", given))
		if got := rec.header.Get("WWW-Authenticate"); rec.status != http.StatusUnauthorized || got != challenge {
			t.Errorf("%q: got %d and %q, want 401 and %q", given, rec.status, got, challenge)
		}
	}
}

func TestFromElsewhereThereMustBeAToken(t *testing.T) {
	for _, addr := range []string{":9090", "0.0.0.0:9090", "[::]:9090", "192.0.2.1:9090", "ops.example:9090"} {
		rt := watt.New(watt.App{Name: "app", Handler: http.NotFoundHandler()})
		rt.Admin = &http.Server{Addr: addr, Handler: admin.Handler(rt, admin.Options{})}
		if err := rt.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "admin.Options.Token") {
			t.Errorf("%s: got %v", addr, err)
		}
	}
	h := admin.Handler(watt.New(watt.App{Name: "app", Handler: http.NotFoundHandler()}), admin.Options{Token: token, Hosts: []string{"ops.example"}})
	for _, test := range []struct {
		path   string
		change func(*http.Request)
		status int
	}{
		{"/status", func(*http.Request) {}, http.StatusUnauthorized},
		{"/metrics", func(*http.Request) {}, http.StatusUnauthorized},
		{"/healthz", func(*http.Request) {}, http.StatusOK},
		{"/readyz", func(*http.Request) {}, http.StatusServiceUnavailable},
		{"/status", authorized, http.StatusOK},
	} {
		if rec := answerTo(t, h, test.path, test.change); rec.status != test.status {
			t.Errorf("%s: got %d, want %d", test.path, rec.status, test.status)
		}
	}
}

// answerTo asks a handler that is served at an address which others reach: it is not one of this machine alone.
func answerTo(t *testing.T, h http.Handler, path string, change func(*http.Request)) *recorder {
	t.Helper()
	elsewhere := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9090}
	ctx := context.WithValue(t.Context(), http.LocalAddrContextKey, net.Addr(elsewhere))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://ops.example:9090"+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	change(req)
	rec := &recorder{header: make(http.Header)}
	h.ServeHTTP(rec, req)
	return rec
}

type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return len(p), nil
}

func (r *recorder) WriteHeader(status int) { r.status = status }

// events reads the first events of a stream that has says is what is waited for.
func events(t *testing.T, url string, has func(data string) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		if data, ok := strings.CutPrefix(in.Text(), "data: "); ok && has(data) {
			return
		}
	}
	t.Fatalf("%s has ended with %v", url, in.Err())
}

func TestTheReportComesEverySecond(t *testing.T) {
	rt, url := started(t, admin.Options{})
	seen := 0
	events(t, url+"/events", func(data string) bool {
		var r struct{ Apps []struct{ Now admin.Figures } }
		if err := json.Unmarshal([]byte(data), &r); err != nil {
			t.Fatal(err)
		}
		if seen++; seen < 2 {
			for range 10 {
				do(t, http.MethodGet, "http://"+rt.Status()[0].Addr+"/", "")
			}
			return false
		}
		return r.Apps[1].Now.Requests > 0 && r.Apps[1].Now.Calls["gateway"] > 0 && r.Apps[1].Now.P99 > 0
	})
}

func TestLogsShowWhatAnAppSays(t *testing.T) {
	logs := new(admin.Logs)
	rt, url := started(t, admin.Options{Logs: logs}, watt.App{Name: "noisy", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			env.Logger.Debug("too much")
			env.Logger.Warn("listen to me", zap.Int("times", 3), zap.Float64("nothing", math.NaN()), zap.String("app", "another"))
		}), nil
	}})
	call := func() {
		resp, err := rt.Env().Get(t.Context(), "http://noisy.watt.local/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	call()
	seen := 0
	events(t, url+"/logs?app=noisy", func(data string) bool {
		if strings.Contains(data, "too much") {
			t.Error("a line below the level is there")
		}
		if !strings.Contains(data, "listen to me") || !strings.Contains(data, `"times":3`) || !strings.Contains(data, `"App":"noisy"`) {
			return false
		}
		if seen++; seen == 1 {
			call() // one was there, one comes
		}
		return seen == 2
	})
}

// bomb is a value that cannot be encoded.
type bomb struct{}

func (bomb) MarshalJSON() ([]byte, error) { panic("on purpose") }

func TestAFieldThatCannotBeEncodedSaysWhy(t *testing.T) {
	logs := new(admin.Logs)
	_, url := started(t, admin.Options{Logs: logs})
	round := map[string]any{}
	round["self"] = round
	zap.New(logs).Info("odd", zap.Any("round", round), zap.Any("bomb", bomb{}), zap.Complex128("root", 1i), zap.Float64("nothing", math.NaN()), zap.Float64("half", 0.5))
	events(t, url+"/logs", func(data string) bool {
		var line admin.Line
		if err := json.Unmarshal([]byte(data), &line); err != nil {
			t.Fatal(err)
		}
		for name, has := range map[string]string{"round": `"json: unsupported value: encountered a cycle via map[string]interface {}"`, "bomb": `"panic while encoding a admin_test.bomb"`, "root": `"(0+1i)"`, "nothing": `"NaN"`, "half": `0.5`} {
			if got := string(line.Fields[name]); line.Text == "odd" && got != has {
				t.Errorf("%s: got %s, want %s", name, got, has)
			}
		}
		return line.Text == "odd"
	})
}

func TestLogsShowWhatInstancesOfOtherProcessesWrite(t *testing.T) {
	logs := new(admin.Logs)
	_, url := started(t, admin.Options{Logs: logs})
	write := func() {
		logs.Output("press", 0, "it presses")
		logs.Output("mill", 1, "it grinds <b>")
	}
	write()
	seen := 0
	events(t, url+"/logs?app=mill", func(data string) bool {
		if !strings.Contains(data, `"App":"mill"`) || !strings.Contains(data, "it grinds") || !strings.Contains(data, `"instance":1`) {
			t.Errorf("got %s", data)
		}
		if seen++; seen == 1 {
			write() // one was there, one comes
		}
		return seen == 2
	})
}

func TestLogsKeepTheLastThousandLines(t *testing.T) {
	logs := new(admin.Logs)
	_, url := started(t, admin.Options{Logs: logs})
	const wrote = 5000
	for i := range wrote {
		logs.Output("mill", 0, "line "+strconv.Itoa(i)+".")
	}
	seen := 0
	events(t, url+"/logs?app=mill", func(data string) bool {
		seen++
		return strings.Contains(data, "line "+strconv.Itoa(wrote-1)+".")
	})
	if seen < 900 || seen > 1000 {
		t.Errorf("got %d lines, want a thousand at most, and not many less", seen)
	}
}

// TestLongLinesOfTheLogTakeTheirShareOfTheMemory: somebody may log whole bodies of requests.
func TestLongLinesOfTheLogTakeTheirShareOfTheMemory(t *testing.T) {
	logs := new(admin.Logs)
	_, url := started(t, admin.Options{Logs: logs})
	log, body := zap.New(logs), strings.Repeat("long", 1<<17)
	for range 40 {
		log.Info(body)
		log.Info("a body", zap.String("body", body))
		logs.Output("mill", 0, body)
	}
	log.Info("the last", zap.String("body", body))
	length := 0
	events(t, url+"/logs", func(data string) bool {
		length += len(data)
		return strings.Contains(data, "the last")
	})
	if length < 4<<20 || length > 10<<20 {
		t.Errorf("%d bytes are kept, want 8 MiB or somewhat less", length)
	}
}

func TestAQuietLogGoesOnOverHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := new(admin.Logs)
		rt := watt.New(watt.App{Name: "idle", Handler: http.NotFoundHandler()})
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		ln := pipe.Listen(new(pipe.Buffers), "127.0.0.1:9090")
		server := &http.Server{Handler: admin.Handler(rt, admin.Options{Logs: logs}), Protocols: &protocols, WriteTimeout: time.Second}
		var serving sync.WaitGroup
		serving.Go(func() { server.Serve(ln) })
		defer serving.Wait()
		defer server.Close()
		transport := &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return ln.Dial(ctx, "127.0.0.1:1", nil)
		}}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Get("http://127.0.0.1:9090/logs")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewReader(resp.Body)
		for _, text := range []string{"first", "second"} {
			time.Sleep(time.Minute)
			zap.New(logs).Info(text)
			line, err := lines.ReadString('\n')
			if err != nil || !strings.Contains(line, text) {
				t.Fatalf("after a pause: got %q, %v, want %q in it", line, err, text)
			}
			lines.ReadString('\n') // an empty one
		}
	})
}

func TestAStallIsWrittenDown(t *testing.T) {
	dir := t.TempDir()
	rt, url := started(t, admin.Options{FlightRecorder: true, FlightDir: dir}, watt.App{
		Name: "slow", Listen: "127.0.0.1:0", Workers: 1, Queue: 8, QueueTimeout: time.Minute,
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }),
	})
	if status, text := do(t, http.MethodGet, url+"/debug/flight", ""); status != http.StatusOK || !strings.HasPrefix(text, "go 1.") {
		t.Fatalf("got %d %.20q on demand", status, text)
	}
	body, w := io.Pipe()
	var stuck sync.WaitGroup
	for range 3 { // one is served, two wait
		stuck.Go(func() {
			if resp, err := http.Post("http://"+rt.Status()[0].Addr, "text/plain", body); err == nil {
				resp.Body.Close()
			}
		})
	}
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) > 0 {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("nothing is written")
		}
	}
	w.Close()
	stuck.Wait()
}

func TestTheLevelComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		level := zap.NewAtomicLevelAt(zap.WarnLevel)
		rt := watt.New(watt.App{Name: "app", Handler: http.NotFoundHandler()})
		rt.Level = &level
		h := admin.Handler(rt, admin.Options{Token: token})
		set := func(body string) int {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://localhost/level", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			authorized(req)
			rec := &recorder{header: make(http.Header)}
			h.ServeHTTP(rec, req)
			return rec.status
		}
		for _, body := range []string{`{}`, `{"level": "debug"}`, `{"for": "1m"}`, `{"level": "loud", "for": "1m"}`, `{"level": "", "for": "1m"}`, `{"level": "debug", "for": "25h"}`, `{"level": "debug", "for": "-1m"}`} {
			if status := set(body); status != http.StatusBadRequest {
				t.Errorf("%s: got %d", body, status)
			}
		}
		if status := set(`{"level": "info", "for": "1m"}`); status != http.StatusNoContent || level.Level() != zap.InfoLevel {
			t.Fatalf("got %d and level %v", status, level.Level())
		}
		time.Sleep(50 * time.Second)
		set(`{"level": "debug", "for": "1m"}`) // goes on from there, and not back to info
		time.Sleep(50 * time.Second)
		if level.Level() != zap.DebugLevel {
			t.Errorf("got %v before the time", level.Level())
		}
		time.Sleep(11 * time.Second)
		if level.Level() != zap.WarnLevel {
			t.Errorf("got %v after it", level.Level())
		}
	})
}

// loopback is an address of this machine.
type loopback struct{}

func (loopback) Network() string { return "tcp" }
func (loopback) String() string  { return "127.0.0.1:1" }

// fetched asks without a network.
func fetched[T any](t *testing.T, h http.Handler, path string) (answer T) {
	t.Helper()
	rec := httptest.NewRecorder()
	ctx := context.WithValue(t.Context(), http.LocalAddrContextKey, net.Addr(loopback{}))
	h.ServeHTTP(rec, httptest.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1"+path, http.NoBody))
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
		t.Fatal(err, rec.Body)
	}
	return answer
}

func TestWhoWaitsForAnAppThatHangsIsNotToBlame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		rt := watt.New(
			watt.App{Name: "gateway", Profile: watt.Entrypoint, Workers: 4, Queue: 4, QueueTimeout: time.Second, Timeout: -1, Calls: []string{"store"}, New: passOn("store")},
			watt.App{Name: "store", Profile: watt.IOBound, Workers: 8, Timeout: -1, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang })},
		)
		watttest.Start(t, rt)
		h := admin.Handler(rt, admin.Options{})
		fetched[admin.Report](t, h, "/status")
		var calls sync.WaitGroup
		call := func() {
			if resp, err := rt.Env().Get(t.Context(), "http://gateway.watt.local/"); err == nil {
				resp.Body.Close()
			}
		}
		for range 4 {
			calls.Go(call)
		}
		time.Sleep(15 * time.Second)
		for range 4 { // and others come, in vain
			calls.Go(call)
		}
		time.Sleep(5 * time.Second)
		r := fetched[admin.Report](t, h, "/status")
		if gateway, store := r.Apps[0].Now.Saturation, r.Apps[1].Now.Saturation; gateway != 1 || store != 0.5 {
			t.Errorf("got a saturation of %v and %v, want 1 and 0.5", gateway, store)
		}
		var kinds []string
		for _, a := range r.Advice {
			kinds = append(kinds, a.App+": "+a.Kind)
			if !strings.Contains(a.Text, "wait 1s (p99)") || !strings.Contains(a.Text, "for store") {
				t.Errorf("got %q", a.Text)
			}
		}
		if len(kinds) != 1 || kinds[0] != "gateway: downstream" {
			t.Errorf("got %q", kinds)
		}
		close(hang)
		calls.Wait()
	})
}

func TestItRemembersFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(watt.App{Name: "app", Handler: http.NotFoundHandler()})
		h := admin.Handler(rt, admin.Options{})
		rt.Listen = func(context.Context, string, string) (net.Listener, error) { return make(nobody), nil }
		rt.Admin = &http.Server{Addr: "127.0.0.1:1", Handler: h}
		watttest.Start(t, rt)
		time.Sleep(time.Minute)
		if got := len(fetched[[]admin.Point](t, h, "/history")); got < 12 {
			t.Errorf("got %d points of a minute in which nobody asked", got)
		}
		time.Sleep(20 * time.Minute)
		all := fetched[[]admin.Point](t, h, "/history")
		if age := time.Since(all[0].Time); len(all) > 180 || age < 14*time.Minute || age > 16*time.Minute {
			t.Errorf("after 20 minutes: got %d points, the first of %v ago; want those of 15 minutes", len(all), age)
		}
	})
}

// nobody is a listener that nobody comes to.
type nobody chan struct{}

func (n nobody) Accept() (net.Conn, error) { <-n; return nil, net.ErrClosed }
func (n nobody) Close() error              { defer func() { _ = recover() }(); close(n); return nil }
func (nobody) Addr() net.Addr              { return loopback{} }

func TestWhatDoesNotStartIsNotLookedAtForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(watt.App{Name: "neither a handler nor a valid name"})
		rt.Admin = &http.Server{Addr: "127.0.0.1:1", Handler: admin.Handler(rt, admin.Options{FlightRecorder: true, CPUShares: true})}
		if rt.Start(t.Context()) == nil {
			t.Fatal("it starts")
		}
		gone := weak.Make(rt)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for range 10 {
			runtime.GC()
		}
		if gone.Value() != nil {
			t.Error("it is still looked at")
		}
	})
}

// TestTheReportCountsNoProcessorsThatAreNotThere: in a container of one processor GOMAXPROCS is 2.
func TestTheReportCountsNoProcessorsThatAreNotThere(t *testing.T) {
	there := runtime.NumCPU()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(there + 1))
	h := admin.Handler(watt.New(watt.App{Name: "io", Handler: http.NotFoundHandler()}), admin.Options{})
	if r := fetched[admin.Report](t, h, "/status"); r.Processors <= 0 || r.Processors > float64(there) {
		t.Errorf("got %v processors of %d", r.Processors, there)
	}
}

func TestTheReportTellsThePeakAndWhatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan struct{})
		rt := watt.New(
			watt.App{Name: "io", Profile: watt.IOBound, Workers: 10, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(5 * time.Second) })},
			watt.App{Name: "loop", MaxRestarts: -1, Serve: func(ctx context.Context, _ *watt.Env, _ net.Listener) error {
				select {
				case <-ends:
					return errors.New("on purpose")
				case <-ctx.Done():
					return nil
				}
			}},
		)
		watttest.Start(t, rt)
		h := admin.Handler(rt, admin.Options{})
		look := func() admin.Report { return fetched[admin.Report](t, h, "/status") }
		look()
		if resp, err := rt.Env().Get(t.Context(), "http://io.watt.local/"); err == nil {
			resp.Body.Close()
		}
		for range 3 {
			ends <- struct{}{}
		}
		synctest.Wait()
		if err := rt.Restart("loop", 0); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		if r := look(); r.Apps[0].Peak != 0 || r.Apps[1].Ended[0] != 3 {
			t.Errorf("got a peak of %v and %v ends", r.Apps[0].Peak, r.Apps[1].Ended)
		}
		time.Sleep(14*time.Minute + 50*time.Second)
		r := look()
		if r.Apps[1].Ended[0] != 0 || r.Apps[0].Peak < 0.05 || r.Apps[0].Peak > 0.1 {
			t.Errorf("later: got a peak of %v and %v ends", r.Apps[0].Peak, r.Apps[1].Ended)
		}
		if err := rt.Update("io", func(a *watt.App) { a.Workers = 9 }); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second) // the peak is still in the charts
		if r := look(); r.Apps[0].Peak != 0 {
			t.Errorf("after a change: got a peak of %v", r.Apps[0].Peak)
		}
	})
}

func TestTheReportTellsWhatTheLastResizeDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Second) })
		rt := watt.New(watt.App{Name: "io", Workers: 1, Handler: slow}, watt.App{Name: "other", Workers: 1, Handler: slow})
		watttest.Start(t, rt)
		h := admin.Handler(rt, admin.Options{})
		report := func() admin.Report { return fetched[admin.Report](t, h, "/status") }
		look := func() admin.App { return report().Apps[0] }
		look()
		keepCalling(t, rt, "io", 4, 0)
		keepCalling(t, rt, "other", 1, 0)
		time.Sleep(30*time.Second + 500*time.Millisecond)
		if err := rt.Update("io", func(a *watt.App) { a.Workers = 2 }); err != nil {
			t.Error(err)
		}
		time.Sleep(600 * time.Millisecond) // it was seen, a moment ago
		for _, a := range report().Apps {
			if a.Now.Utilisation < 0.7 {
				t.Errorf("at once: %s is busy %v of its time", a.Name, a.Now.Utilisation)
			}
		}
		time.Sleep(4 * time.Second)
		if got := look(); got.Before != nil || got.Now.Requests < 1.5 {
			t.Errorf("soon: got %v requests a second, and %+v before; want those since then, and none before", got.Now.Requests, got.Before)
		}
		time.Sleep(10 * time.Second)
		got := look()
		if got.Before == nil || got.BeforeWorkers != 1 || got.Before.Requests > 1.3 || got.Now.Requests < 1.7 {
			t.Errorf("later: got %v requests a second, and with %d workers %+v", got.Now.Requests, got.BeforeWorkers, got.Before)
		}
		time.Sleep(15 * time.Minute)
		if got := look(); got.Before != nil {
			t.Errorf("after the time of the charts: got %+v", got.Before)
		}
	})
}

// TestWhatWasAMomentAgoIsNoMeasure: an action is looked at when it has ended, perhaps milliseconds after the look before.
func TestWhatWasAMomentAgoIsNoMeasure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(100 * time.Millisecond) })
		rt := watt.New(watt.App{Name: "app", Workers: 1, Handler: busy})
		watttest.Start(t, rt)
		h := admin.Handler(rt, admin.Options{Token: token})
		look := func() admin.App { return fetched[admin.Report](t, h, "/status").Apps[0] }
		resize := func(workers string) { acted(t, h, http.MethodPatch, "/apps/app", `{"workers": `+workers+`}`) }
		keepCalling(t, rt, "app", 1, 0) // ten requests a second
		tenASecond := func(when string, f *admin.Figures) {
			if f == nil || f.Requests < 9 || f.Requests > 11 {
				t.Errorf("%s: got %+v, want 10 requests a second", when, f)
			}
		}
		time.Sleep(98 * time.Millisecond)
		look()
		time.Sleep(5 * time.Millisecond) // in which a request has ended
		resize("2")
		if got := look(); got.Now.Requests != 0 {
			t.Errorf("at first: got %v requests a second", got.Now.Requests)
		}
		time.Sleep(30*time.Second - 3*time.Millisecond)
		if got := look(); got.Before != nil {
			t.Errorf("later: got %+v of what was not seen for long enough", got.Before)
		}
		time.Sleep(time.Millisecond)
		resize("3")
		for _, workers := range []string{"4", "5"} {
			time.Sleep(5 * time.Millisecond)
			resize(workers)
			now := look().Now
			tenASecond("with "+workers+" workers", &now)
		}
		time.Sleep(11 * time.Second)
		got := look()
		if tenASecond("before", got.Before); got.BeforeWorkers != 2 {
			t.Errorf("got %d workers before, want those that there were for some time", got.BeforeWorkers)
		}
	})
}

// TestWhatIsDoneSaysWhatHadToBeCut: of such an action the runtime returns an error, as of one that was refused.
func TestWhatIsDoneSaysWhatHadToBeCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(watt.App{
			Name: "app", Workers: 1, Instances: 2, Timeout: -1, DrainTimeout: time.Second,
			Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		})
		watttest.Start(t, rt)
		h := admin.Handler(rt, admin.Options{Token: token})
		var calls sync.WaitGroup
		defer calls.Wait()
		for range 2 {
			calls.Go(func() {
				if resp, err := rt.Env().Get(t.Context(), "http://app.watt.local/"); err == nil {
					resp.Body.Close()
				}
			})
		}
		synctest.Wait()
		for _, action := range [][3]string{
			{http.MethodPost, "/apps/app/instances/0/drain", ""},
			{http.MethodPatch, "/apps/app", `{"queue": 7, "instances": 1}`},
		} {
			rec := acted(t, h, action[0], action[1], action[2])
			if rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), "1 request or connection was cut") {
				t.Errorf("%s: got %d %s", action[1], rec.Code, rec.Body)
			}
		}
		if s := rt.Status()[0]; s.Queue != 7 || len(s.PerInstance) != 1 || s.PerInstance[0].State != "drained" {
			t.Errorf("got a queue of %d and %+v", s.Queue, s.PerInstance)
		}
	})
}

// keepCalling has some call an app until the test ends, each again when it was answered and has paused.
func keepCalling(t *testing.T, rt *watt.Runtime, app string, callers int, pause time.Duration) {
	t.Helper()
	var calling sync.WaitGroup
	for range callers {
		calling.Go(func() {
			for t.Context().Err() == nil {
				if resp, err := rt.Env().Get(t.Context(), "http://"+app+".watt.local/"); err == nil {
					resp.Body.Close()
				}
				time.Sleep(pause)
			}
		})
	}
	t.Cleanup(calling.Wait)
}

// acted has something done without a network.
func acted(t *testing.T, h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1"+path, strings.NewReader(body))
	authorized(req)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	if rec.Code > 299 {
		t.Errorf("%s: got %d %s", path, rec.Code, rec.Body)
	}
	return rec
}
