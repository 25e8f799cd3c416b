package watt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/org/watt"
)

func sayHello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }

// watchDNS makes every look-up and every call to the outside fail, and counts them.
func watchDNS(t *testing.T) *atomic.Int32 {
	t.Helper()
	var seen atomic.Int32
	fail := func(context.Context, string, string) (net.Conn, error) {
		seen.Add(1)
		return nil, errors.New("the test has no network")
	}
	resolver, transport := net.DefaultResolver, http.DefaultTransport
	t.Cleanup(func() { net.DefaultResolver, http.DefaultTransport = resolver, transport })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: fail}
	http.DefaultTransport = &http.Transport{DialContext: fail}
	return &seen
}

func TestNamesAreMatchedLowerCasedAndAnyPortIsIgnored(t *testing.T) {
	rt := start(t, app("users", sayHello))
	for _, host := range []string{
		"users.watt.local", "users.watt.local:80", "users.watt.local:65535", "USERS.Watt.Local", "Users.watt.local", "users.watt.local.",
		"Users.watt.local.:1",
	} {
		resp, err := rt.Env().Get(t.Context(), "http://"+host+"/")
		if got := read(t, resp, err); got != "hello" {
			t.Errorf("%s: got %q", host, got)
		}
		if name, mesh := watt.AppOf(host); name != "users" || !mesh {
			t.Errorf("AppOf(%q): got %q, %v", host, name, mesh)
		}
	}
	for _, host := range []string{"", "users", "watt.local", "users.watt.local.example.com", "userswatt.local", "[::1]:80"} {
		if name, mesh := watt.AppOf(host); name != "" || mesh {
			t.Errorf("AppOf(%q): got %q, %v of a host outside", host, name, mesh)
		}
	}
	for _, name := range []string{"users", "USERS", "users:80", "users.watt.local", "users.watt.local.:80"} {
		if err := rt.Env().Check(name); err != nil {
			t.Errorf("Check(%q): %v", name, err)
		}
		conn, err := rt.Env().Dial(t.Context(), name)
		if err != nil {
			t.Fatalf("Dial(%q): %v", name, err)
		}
		conn.Close()
	}
}

func TestAnUnknownNameFailsAtOnceAndNeverReachesDNS(t *testing.T) {
	seen := watchDNS(t)
	rt := start(t, app("users", sayHello))
	for _, host := range []string{
		"user.watt.local", "userss.watt.local", "a.users.watt.local", "USER.WATT.LOCAL.:80", ".watt.local", "user.watt.local..",
		"user。watt。local", "ｕser.watt.local", // what net/http would make of them
	} {
		_, err := rt.Env().Get(t.Context(), "http://"+host+"/")
		if !errors.Is(err, watt.ErrNoSuchApp) {
			t.Errorf("%s: got %v, want ErrNoSuchApp", host, err)
		}
	}
	if _, err := rt.Env().Get(t.Context(), "https://users.watt.local/"); err == nil {
		t.Error("https://users.watt.local worked")
	}
	if _, err := rt.Env().Dial(t.Context(), "user:80"); !errors.Is(err, watt.ErrNoSuchApp) {
		t.Errorf("Dial: got %v, want ErrNoSuchApp", err)
	}
	if n := seen.Load(); n != 0 {
		t.Errorf("%d calls for names of the mesh went out", n)
	}
	if _, err := rt.Env().Get(t.Context(), "http://users.watt.local.example/"); err == nil || seen.Load() == 0 {
		t.Error("a call to the outside was not noticed: this test is blind")
	}
}

func TestOtherHostsGoOutThroughAnOrdinaryTransport(t *testing.T) {
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Request-Id"), r.Header.Get("X-Watt-Timeout"), "outside")
	}))
	defer outside.Close()
	rt := start(t, calling("web", func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
		resp, err := env.Get(r.Context(), outside.URL)
		io.WriteString(w, read(t, resp, err))
	}))
	req := request(t.Context(), http.MethodGet, "http://web.watt.local/", nil)
	req.Header.Set("X-Request-Id", "7")
	resp, err := rt.Env().Client.Do(req)
	if got := read(t, resp, err); got != "outside" { // and strangers learn nothing
		t.Errorf("got %q", got)
	}
}

func TestATransportThatIsNotWrappedIsTheMeshAsItIs(t *testing.T) {
	rt := watt.New(app("users", sayHello), calling("web", func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
		resp, err := env.Get(r.Context(), "http://users.watt.local/")
		io.WriteString(w, read(t, resp, err))
	}, "users"))
	rt.Transport = func(string, http.RoundTripper) http.RoundTripper { return nil }
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer rt.Shutdown(context.Background())
	if r := get(t.Context(), rt, "web.watt.local/"); r.err != nil || r.body != "hello" {
		t.Errorf("got %+v", r)
	}
}

func TestAMeshClientDoesNotFollowARedirectFromTheOutsideIntoTheMesh(t *testing.T) {
	var outside *httptest.Server
	outside = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/in":
			http.Redirect(w, r, "http://USERS.watt.local:8080/secret", http.StatusTemporaryRedirect)
		case "/out":
			http.Redirect(w, r, outside.URL+"/end", http.StatusFound)
		default:
			io.WriteString(w, "end")
		}
	}))
	defer outside.Close()
	var secrets atomic.Int32
	rt := start(t, app("users", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/secret":
			secrets.Add(1)
		case "/mesh":
			http.Redirect(w, r, "/end", http.StatusFound)
		case "/end":
			io.WriteString(w, "end")
		default:
			http.Redirect(w, r, outside.URL+r.URL.Path, http.StatusFound)
		}
	}))
	for _, from := range []string{outside.URL, "http://users.watt.local"} { // the second by way of the outside
		resp, err := rt.Env().Get(t.Context(), from+"/in")
		if !errors.Is(err, watt.ErrNotAllowed) {
			t.Errorf("%s: got %v, want ErrNotAllowed", from, err)
		}
		if resp != nil {
			resp.Body.Close()
		}
	}
	if n := secrets.Load(); n != 0 {
		t.Errorf("%d redirects came in from the outside", n)
	}
	for _, url := range []string{outside.URL + "/out", "http://users.watt.local/mesh", "http://users.watt.local/out"} {
		resp, err := rt.Env().Get(t.Context(), url)
		if got := read(t, resp, err); got != "end" {
			t.Errorf("%s: got %q", url, got)
		}
	}
}

func TestAMeshClientFollowsNoMoreThanTenRedirects(t *testing.T) {
	var requests atomic.Int32
	rt := start(t, app("a", func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) < 20 {
			http.Redirect(w, r, "/", http.StatusFound)
		}
	}))
	if r := get(t.Context(), rt, "a.watt.local/"); r.err == nil || !strings.Contains(r.err.Error(), "10 redirects") || requests.Load() != 10 {
		t.Errorf("got %+v after %d requests", r, requests.Load())
	}
}

func TestCallsIsAnAllowListAndNilMeansNone(t *testing.T) {
	var envs [2]*watt.Env
	keep := func(i int) func(context.Context, *watt.Env) (http.Handler, error) {
		return func(_ context.Context, env *watt.Env) (http.Handler, error) {
			envs[i] = env
			return http.NotFoundHandler(), nil
		}
	}
	rt := start(t,
		watt.App{Name: "none", New: keep(0)},
		watt.App{Name: "some", New: keep(1), Calls: []string{"users"}},
		app("users", sayHello), app("orders", sayHello),
	)
	check := func(env *watt.Env, callee string, allowed bool) {
		t.Helper()
		resp, err := env.Get(t.Context(), "http://"+callee+".watt.local/")
		conn, dialErr := env.Dial(t.Context(), callee)
		for what, err := range map[string]error{"Get": err, "Dial": dialErr, "Check": env.Check(callee)} {
			if allowed != (err == nil) || !allowed && !errors.Is(err, watt.ErrNotAllowed) {
				t.Errorf("%s from %q to %s: %v", what, env.App, callee, err)
			}
			advice := fmt.Sprintf("add %q to Calls of app %q", callee, env.App)
			if callee == env.App { // which would be a circle
				advice = "no app calls itself"
			}
			if err != nil && !strings.Contains(err.Error(), advice) {
				t.Errorf("%q does not say %q", err, advice)
			}
		}
		if err == nil {
			resp.Body.Close()
		}
		if dialErr == nil {
			conn.Close()
		}
	}
	check(envs[0], "users", false)
	check(envs[0], "none", false)
	check(envs[1], "users", true)
	check(envs[1], "orders", false)
	for _, callee := range []string{"none", "some", "users", "orders"} {
		check(rt.Env(), callee, true) // main's Env may call all
	}
}

func TestTheCalleeLearnsTheCallerFromTheConnection(t *testing.T) {
	whoami := app("whoami", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%q", watt.Caller(r.Context())) })
	rt := start(t, whoami, calling("web", func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
		req := request(r.Context(), http.MethodGet, "http://whoami.watt.local/", nil)
		for _, name := range []string{"X-Watt-Caller", "X-Watt-App", "Caller", "From"} {
			req.Header.Set(name, "admin")
		}
		resp, err := env.Client.Do(req)
		io.WriteString(w, read(t, resp, err))
	}, "whoami"))
	for url, want := range map[string]string{"http://web.watt.local/": `"web"`, "http://whoami.watt.local/": `""`} {
		resp, err := rt.Env().Get(t.Context(), url)
		if got := read(t, resp, err); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
	}
}

type secretKey struct{}

func TestDeadlineCancellationAndNothingElseTravelByTheContext(t *testing.T) {
	type seen struct {
		deadline time.Time
		secret   any
	}
	got := make(chan seen, 1)
	rt := start(t,
		calling("a", func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
			resp, err := env.Get(r.Context(), "http://b.watt.local/")
			io.WriteString(w, read(t, resp, err))
		}, "b"),
		calling("b", func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
			resp, err := env.Get(r.Context(), "http://c.watt.local/")
			io.WriteString(w, read(t, resp, err))
		}, "c"),
		app("c", func(_ http.ResponseWriter, r *http.Request) {
			deadline, _ := r.Context().Deadline()
			got <- seen{deadline, r.Context().Value(secretKey{})}
		}),
	)
	want := time.Now().Add(time.Minute)
	ctx, cancel := context.WithDeadline(context.WithValue(t.Context(), secretKey{}, "mine"), want)
	defer cancel()
	resp, err := rt.Env().Get(ctx, "http://a.watt.local/")
	read(t, resp, err)
	if s := <-got; !s.deadline.Equal(want) || s.secret != nil {
		t.Errorf("got deadline %v, want %v; secret %v, want nil", s.deadline, want, s.secret)
	}
	resp, err = rt.Env().Get(t.Context(), "http://a.watt.local/")
	read(t, resp, err)
	if s := <-got; !s.deadline.IsZero() {
		t.Errorf("got deadline %v, want none", s.deadline)
	}
}

// How the deadline travels where it must be a header is no way for apps to set one.
func TestTheDeadlineIsTheContextsWhateverHeadersSay(t *testing.T) {
	got := make(chan string, 1)
	rt := start(t, app("a", func(_ http.ResponseWriter, r *http.Request) {
		_, limited := r.Context().Deadline()
		got <- fmt.Sprint(r.Header["X-Watt-Timeout"], limited)
	}))
	for _, method := range []string{http.MethodGet, "REPORT"} { // which needs a connection
		req := request(t.Context(), method, "http://a.watt.local/", http.NoBody)
		req.Header.Set("X-Watt-Timeout", "60000")
		resp, err := rt.Env().Client.Do(req)
		read(t, resp, err)
		if got, want := <-got, "[] false"; got != want {
			t.Errorf("%s: got %s, want %s", method, got, want)
		}
		if got := fmt.Sprint(req.Header); got != "map[X-Watt-Timeout:[60000]]" {
			t.Errorf("%s: the caller's own headers have become %s", method, got)
		}
	}
}

// blocked is an app that answers with its headers if asked for /headers, and waits for its context.
func blocked(began chan<- struct{}, cause chan<- error) watt.App {
	return app("blocked", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/headers" {
			http.NewResponseController(w).Flush()
		}
		began <- struct{}{}
		<-r.Context().Done()
		cause <- context.Cause(r.Context())
	})
}

func TestInProcessACancellationIsSeenWhateverOfTheBodyWasRead(t *testing.T) {
	began, cause := make(chan struct{}, 1), make(chan error, 1)
	rt := start(t, calling("middle", func(env *watt.Env, _ http.ResponseWriter, r *http.Request) {
		_, _ = env.Client.Do(request(r.Context(), http.MethodPost, "http://blocked.watt.local/", strings.NewReader("unread")))
	}, "blocked"), blocked(began, cause))
	large := strings.Repeat("x", 1<<20)
	for _, url := range []string{"http://blocked.watt.local/", "http://blocked.watt.local/headers", "http://middle.watt.local/"} {
		for _, body := range []string{"", "unread", large} {
			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error, 1)
			go func() {
				resp, err := rt.Env().Client.Do(request(ctx, http.MethodPost, url, strings.NewReader(body)))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				failed <- err
			}()
			within(t, began, "the callee")
			cancel()
			// middle may be faster with an answer of its own.
			if err := within(t, failed, "the caller's error"); !errors.Is(err, context.Canceled) && !strings.Contains(url, "middle") {
				t.Errorf("%s, body of %d: the caller got %v", url, len(body), err)
			}
			if err := within(t, cause, "the callee's cancellation"); !errors.Is(err, context.Canceled) {
				t.Errorf("%s, body of %d: the callee got %v", url, len(body), err)
			}
		}
	}
}

func TestClosingTheBodyEarlyCancelsTheCallee(t *testing.T) {
	began, cause := make(chan struct{}, 1), make(chan error, 1)
	rt := start(t, blocked(began, cause))
	resp, err := rt.Env().Get(t.Context(), "http://blocked.watt.local/headers")
	if err != nil {
		t.Fatal(err)
	}
	within(t, began, "the callee")
	resp.Body.Close()
	if err := within(t, cause, "the callee's cancellation"); !errors.Is(err, context.Canceled) {
		t.Errorf("the callee got %v", err)
	}
}

func TestClosingCancelEndsACallWithoutAContext(t *testing.T) {
	for _, url := range []string{"http://blocked.watt.local/", "http://blocked.watt.local/headers"} {
		for _, withTimer := range []bool{false, true} {
			began, cause := make(chan struct{}, 1), make(chan error, 1)
			rt := start(t, blocked(began, cause))
			req := request(context.Background(), http.MethodGet, url, nil)
			req.Close = withTimer // which needs a connection
			cancel := make(chan struct{})
			//lint:ignore SA1019 what it is about
			req.Cancel = cancel //nolint:staticcheck // likewise
			go func() { <-began; close(cancel) }()
			resp, err := rt.Env().Client.Do(req)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if _, ok := errors.AsType[*watt.CallError](err); !ok || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %v", url, err)
			}
			if err := within(t, cause, "the callee's cancellation"); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: the callee got %v", url, err)
			}
		}
	}
}

func TestACallWhoseCancelIsNeverClosedLeavesNoGoroutineBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails if there is one
		rt := start(t, app("a", sayHello))
		req := request(context.Background(), http.MethodGet, "http://a.watt.local/", nil)
		//lint:ignore SA1019 what it is about
		req.Cancel = make(chan struct{}) //nolint:staticcheck // likewise
		resp, err := rt.Env().Client.Do(req)
		if got := read(t, resp, err); got != "hello" {
			t.Errorf("got %q", got)
		}
	})
}

func TestHTTPClientTimeoutWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, cause := make(chan struct{}, 2), make(chan error, 2)
		rt := start(t, blocked(began, cause))
		client := *rt.Env().Client
		client.Timeout = 3 * time.Second
		at := time.Now()
		_, err := client.Get("http://blocked.watt.local/")
		var timeout interface{ Timeout() bool }
		if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(at) != client.Timeout {
			t.Errorf("got %v after %v", err, time.Since(at))
		}
		resp, err := client.Get("http://blocked.watt.local/headers")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("reading the body: got %v", err)
		}
		for range 2 {
			if err := <-cause; err == nil {
				t.Error("the callee was not cancelled")
			}
		}
	})
}

var travelling = []string{"Traceparent", "Tracestate", "Baggage", "X-Request-Id"}

func TestTraceAndRequestIDGoAlongByThemselvesWithTheContext(t *testing.T) {
	last := app("last", func(w http.ResponseWriter, r *http.Request) {
		for _, name := range travelling {
			fmt.Fprint(w, r.Header.Values(name))
		}
	})
	pass := func(to string) func(*watt.Env, http.ResponseWriter, *http.Request) {
		return func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
			req := request(r.Context(), http.MethodGet, "http://"+to+".watt.local/", nil)
			if r.URL.Path == "/new" {
				req = req.WithContext(t.Context())
			}
			if r.URL.Path == "/own" {
				req.Header.Set("Traceparent", "own")
				req.Header.Set("X-Request-Id", "own")
			}
			before := fmt.Sprint(req.Header)
			resp, err := env.Client.Do(req)
			io.WriteString(w, read(t, resp, err))
			if after := fmt.Sprint(req.Header); after != before {
				t.Errorf("the request's own headers were changed: %s, were %s", after, before)
			}
		}
	}
	rt := start(t, calling("first", pass("second"), "second"), calling("second", pass("last"), "last"), last)
	for path, want := range map[string]string{
		"/":    "[Traceparent][Tracestate][Baggage][X-Request-Id]",
		"/new": "[][][][]",
		"/own": "[own][][Baggage][own]", // the trace's two headers belong together
	} {
		req := request(t.Context(), http.MethodGet, "http://first.watt.local"+path, nil)
		for _, name := range travelling {
			req.Header.Set(name, name)
		}
		resp, err := rt.Env().Client.Do(req)
		if got := read(t, resp, err); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

func TestTheMeshServesAThousandCallersAtOnce(t *testing.T) {
	a := app("users", sayHello)
	a.Queue, a.QueueTimeout = 1000, patience
	rt := start(t, a)
	var calls sync.WaitGroup
	for range 1000 {
		calls.Go(func() {
			resp, err := rt.Env().Get(t.Context(), "http://users.watt.local/")
			if err != nil {
				t.Error(err)
				return
			}
			if body, err := io.ReadAll(resp.Body); string(body) != "hello" || err != nil {
				t.Errorf("got %q, %v", body, err)
			}
			resp.Body.Close()
		})
	}
	calls.Wait()
}

func TestCallsOfAServeAppShareConnections(t *testing.T) {
	rt := start(t, serving("users", sayHello))
	for i := range 10 {
		reused := false
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }})
		resp, err := rt.Env().Get(ctx, "http://users.watt.local/")
		read(t, resp, err)
		if reused != (i > 0) {
			t.Errorf("call %d: reused is %t", i, reused)
		}
	}
}

// closing is a body that counts how often it is closed.
type closing struct {
	io.Reader
	times atomic.Int32
}

func (c *closing) Close() error {
	c.times.Add(1)
	return nil
}

func TestTheBodyOfACallThatIsNotMadeIsClosed(t *testing.T) {
	began, cause := make(chan struct{}, 1), make(chan error, 1)
	busy := blocked(began, cause)
	busy.Workers, busy.Queue = 1, -1
	rt := start(t, busy)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	going(ctx, rt, "blocked.watt.local/")
	within(t, began, "the worker to be taken")
	for _, url := range []string{"http://blocked.watt.local/", "https://blocked.watt.local/", "http://nobody.watt.local/"} {
		body := &closing{Reader: strings.NewReader("unread")}
		resp, err := rt.Env().Client.Transport.RoundTrip(request(t.Context(), http.MethodPost, url, body))
		if _, ok := errors.AsType[*watt.CallError](err); !ok || body.times.Load() != 1 {
			t.Errorf("%s: got %v, %v, closed %d times", url, resp, err, body.times.Load())
		}
	}
}

func TestCONNECTIsNoCall(t *testing.T) {
	rt := start(t, app("a", sayHello), serving("b", sayHello))
	for _, name := range []string{"a", "b"} {
		body := &closing{Reader: strings.NewReader("unread")}
		resp, err := rt.Env().Client.Transport.RoundTrip(request(t.Context(), http.MethodConnect, "http://"+name+".watt.local/", body))
		if call, is := errors.AsType[*watt.CallError](err); !is || call.App != name || !errors.Is(err, errors.ErrUnsupported) || body.times.Load() != 1 {
			t.Errorf("%s: got %v, %v, closed %d times", name, resp, err, body.times.Load())
		}
	}
}

// A body that breaks off looks like a connection that does, and is none.
func TestABodyThatBreaksOffIsNoFaultOfTheCallee(t *testing.T) {
	t.Parallel()
	rt := start(t, serving("a", func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	body := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF))
	resp, err := rt.Env().Client.Do(request(t.Context(), http.MethodPost, "http://a.watt.local/", body))
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, watt.ErrInstanceDied) || errors.Is(err, watt.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestWhatABodyHasMetDoesNotSayThatTheCallHasNotStarted(t *testing.T) {
	t.Parallel()
	h := func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }
	elsewhere := httptest.NewServer(http.HandlerFunc(h))
	t.Cleanup(elsewhere.Close)
	var env *watt.Env
	start(t, caller(&env, "a", "b", "c"), serving("a", h), watt.App{Name: "b", URL: elsewhere.URL}, app("c", h))
	for _, name := range []string{"a", "b", "c"} {
		for _, met := range []error{
			&watt.CallError{App: "other", Err: watt.ErrOverloaded},
			&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
			io.ErrUnexpectedEOF,
		} {
			body := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(met))
			resp, err := env.Client.Do(request(t.Context(), http.MethodPost, "http://"+name+".watt.local/", body))
			if err == nil {
				resp.Body.Close()
			}
			wantCall(t, err, name, met, true)
			if errors.Is(err, watt.ErrUnavailable) || errors.Is(err, watt.ErrInstanceDied) {
				t.Errorf("got %v, as if it were the callee's fault", err)
			}
		}
	}
}

// unclosable is a body of which Close fails.
type unclosable struct {
	io.Reader
	err error
}

func (u unclosable) Close() error { return u.err }

// The error looks like that of a connection. What the app has not read by then it reads later.
func TestACallWhoseBodyCannotBeClosedIsSentOnce(t *testing.T) {
	for name, direct := range map[string]bool{"a handler": true, "Serve": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen atomic.Int32
				see := func(r *http.Request) {
					if n, _ := io.Copy(io.Discard, r.Body); n == r.ContentLength {
						seen.Add(1)
					}
				}
				a := app("a", func(_ http.ResponseWriter, r *http.Request) { see(r) })
				if !direct {
					a = speaking(func(conn net.Conn) {
						time.Sleep(time.Second)
						if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
							see(r)
						}
					}, nil)
				}
				var env *watt.Env
				start(t, caller(&env, "a"), a)
				req := request(t.Context(), http.MethodPost, "http://a.watt.local/pay", nil)
				req.ContentLength = 32 << 10
				req.GetBody = func() (io.ReadCloser, error) {
					return unclosable{strings.NewReader(strings.Repeat("x", 32<<10)), net.ErrClosed}, nil
				}
				req.Body, _ = req.GetBody()
				_, err := env.Client.Do(req)
				wantCall(t, err, "a", net.ErrClosed, true)
				if errors.Is(err, watt.ErrInstanceDied) {
					t.Errorf("got %v, as if it were the callee's fault", err)
				}
				time.Sleep(time.Minute)
				if got := seen.Load(); got > 1 {
					t.Errorf("the app has seen it %d times", got)
				}
			})
		})
	}
}

// errgroup ends the calls that are left with the error of what has failed first.
func TestWhyAWaitingCallIsGivenUpSaysNothingAboutItsCallee(t *testing.T) {
	var env *watt.Env
	a, busy := full()
	a.Queue = 1
	rt := start(t, caller(&env, "full"), a)
	occupy(t, rt, busy)
	waiting, giveUp := context.WithCancel(t.Context())
	waits := going(waiting, rt, "full.watt.local/")
	soon(t, "a call to wait", func() bool { return statusOf(t, rt, "full").Queued == 1 })
	shed := get(t.Context(), rt, "full.watt.local/").err
	giveUp()
	within(t, waits, "the end of the wait")
	causes := []struct{ cause, known error }{
		{shed, watt.ErrOverloaded},
		{&watt.CallError{App: "other", Err: watt.ErrOverloaded}, watt.ErrOverloaded},
		{&watt.CallError{App: "other", Err: context.DeadlineExceeded}, context.DeadlineExceeded},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, watt.ErrUnavailable},
		{several{io.EOF}, watt.ErrInstanceDied},
		{struct{ error }{several{io.EOF}}, watt.ErrInstanceDied}, // which looks as if it could be compared
	}
	for _, c := range causes {
		ctx, cancel := context.WithCancelCause(t.Context())
		called := make(chan error, 1)
		go func() {
			_, err := env.Client.Do(request(ctx, http.MethodGet, "http://full.watt.local/", nil))
			called <- err
		}()
		soon(t, "the call to wait", func() bool { return statusOf(t, rt, "full").Queued == 1 })
		cancel(c.cause)
		call := wantCall(t, within(t, called, "the error"), "full", context.Canceled, false)
		if call.RetryAfter != 0 || errors.Is(call, c.known) {
			t.Errorf("got %+v, want only the text of %v", call, c.cause)
		}
	}
	if got, want := callerOf(t, rt, "full", "caller").Errors, map[string]uint64{"canceled": uint64(len(causes))}; !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// The app reads the second request on the connection of the first, and is gone when the call looks for another.
func TestACallThatWasReadHasStartedThoughNoConnectionIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, watt.App{Name: "a", QueueTimeout: -1, Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
			defer context.AfterFunc(ctx, func() { ln.Close() })()
			conn, err := ln.Accept()
			if err != nil {
				return nil
			}
			defer conn.Close()
			requests := bufio.NewReader(conn)
			http.ReadRequest(requests)
			io.WriteString(conn, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
			http.ReadRequest(requests)
			ln.Close()
			return nil
		}})
		if r := get(t.Context(), rt, "a.watt.local/"); r.err != nil {
			t.Fatal(r.err)
		}
		err := get(t.Context(), rt, "a.watt.local/").err
		if call, ok := errors.AsType[*watt.CallError](err); !ok || !call.Started {
			t.Errorf("got %v, want that it has started", err)
		}
	})
}

// several is an error as validators return it.
type several []error

func (s several) Error() string { return fmt.Sprint([]error(s)) }

func TestWhyACallIsGivenUpDoesNotSayThatItHasNotStarted(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	h := func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(h))
	t.Cleanup(elsewhere.Close)
	var env *watt.Env
	rt := start(t, caller(&env, "a", "b", "c"), serving("a", h), watt.App{Name: "b", URL: elsewhere.URL}, app("c", h))
	causes := []error{
		&watt.CallError{App: "other", Err: watt.ErrInstanceDied, RetryAfter: time.Second},
		&watt.CallError{App: "other", Err: context.DeadlineExceeded},
		&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
		io.ErrUnexpectedEOF,
		several{io.EOF}, // which cannot be compared
	}
	for _, name := range []string{"a", "b", "c"} {
		for _, cause := range causes {
			ctx, cancel := context.WithCancelCause(t.Context())
			called := make(chan error, 1)
			go func() {
				_, err := env.Client.Do(request(ctx, http.MethodGet, "http://"+name+".watt.local/", nil))
				called <- err
			}()
			within(t, entered, "the request")
			cancel(cause)
			call := wantCall(t, within(t, called, "the error"), name, context.Canceled, true)
			if call.RetryAfter != 0 || !strings.Contains(call.Error(), cause.Error()) {
				t.Errorf("got %+v, want only the text of %v", call, cause)
			}
		}
		if got, want := callerOf(t, rt, name, "caller").Errors, map[string]uint64{"canceled": uint64(len(causes))}; !maps.Equal(got, want) {
			t.Errorf("%s: counted %v, want %v", name, got, want)
		}
	}
}

func TestTheConnectionOfADialThatIsShedIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		rt := start(t, watt.App{Name: "a", MaxConns: 1, Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
			defer context.AfterFunc(ctx, func() { ln.Close() })()
			for n := 1; ; n++ {
				conn, err := ln.Accept()
				if err != nil {
					return nil
				}
				go func() {
					defer conn.Close()
					_, err := io.Copy(io.Discard, conn)
					if n == 2 {
						ended <- err
					}
				}()
			}
		}})
		conn, err := rt.Env().Dial(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = rt.Env().Dial(t.Context(), "a")
		wantErr(t, err, watt.ErrOverloaded)
		if err := within(t, ended, "the end of the second"); err != nil {
			t.Error(err)
		}
	})
}

func TestAnEnvThatNoRuntimeHasMadeSaysSo(t *testing.T) {
	env := &watt.Env{}
	for what, call := range map[string]func() error{
		"Check":        func() error { return env.Check("users") },
		"CheckContext": func() error { return env.CheckContext(t.Context(), "users.watt.local") },
		"Dial":         func() error { _, err := env.Dial(t.Context(), "users:80"); return err },
		"Get":          func() error { _, err := env.Get(t.Context(), "http://users.watt.local/1"); return err },
	} {
		const want = "watt: call to users: no such app: no runtime has made this Env: start the app with watttest, or take Runtime.Env"
		err := func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("a panic: %v", p)
				}
			}()
			return call()
		}()
		var failed *watt.CallError
		if !errors.As(err, &failed) || !errors.Is(err, watt.ErrNoSuchApp) || failed.Error() != want {
			t.Errorf("%s: got %v, want %s", what, err, want)
		}
	}
	if _, err := (&watt.Env{Client: http.DefaultClient}).Get(t.Context(), "http://127.0.0.1:0/"); err == nil || errors.Is(err, watt.ErrNoSuchApp) {
		t.Errorf("an Env with a client of the test's: got %v", err)
	}
}
