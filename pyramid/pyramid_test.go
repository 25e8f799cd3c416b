package pyramid_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

func TestTheEntrypointMayCallAllOthersAfterThoseItNames(t *testing.T) {
	got := pyramid.New(
		watt.App{Name: "gateway", Calls: []string{"mail", "b"}},
		watt.App{Name: "a", Calls: []string{"b"}}, watt.App{Name: "b"}, watt.App{Name: "c"},
	)
	var names []string
	for _, a := range got {
		names = append(names, a.Name)
	}
	if want := []string{"gateway", "a", "b", "c"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	if want := []string{"mail", "b", "a", "c"}; !slices.Equal(got[0].Calls, want) {
		t.Errorf("got Calls %v, want %v", got[0].Calls, want)
	}
	if want := []string{"b"}; !slices.Equal(got[1].Calls, want) || got[1].Profile != watt.Domain {
		t.Errorf("got %v, %v of an app behind", got[1].Calls, got[1].Profile)
	}
}

func TestNewDoesNotChangeItsArguments(t *testing.T) {
	calls := make([]string, 1, 8)
	calls[0] = "a"
	apps := []watt.App{{Name: "a"}, {Name: "b"}}
	got := pyramid.New(watt.App{Name: "gateway", Calls: calls}, apps...)
	got[1].Name = "changed"
	if apps[0].Name != "a" || calls[:2][1] != "" {
		t.Errorf("got %v, %v", apps[0].Name, calls[:2])
	}
}

func TestTheEntrypointHasItsProfileUnlessItHasAnother(t *testing.T) {
	for given, want := range map[watt.Profile]watt.Profile{0: watt.Entrypoint, watt.IOBound: watt.IOBound, watt.Entrypoint: watt.Entrypoint} {
		if got := pyramid.New(watt.App{Name: "gateway", Profile: given})[0].Profile; got != want {
			t.Errorf("got %v from %v, want %v", got, given, want)
		}
	}
}

func TestOnlyAnEntrypointThatRunsNothingBecomesAReadyGateway(t *testing.T) {
	for name, entry := range map[string]watt.App{
		"Handler": {Handler: http.NotFoundHandler()},
		"URL":     {URL: "http://localhost"},
		"Serve":   {Serve: garbage},
	} {
		if pyramid.New(entry)[0].New != nil {
			t.Errorf("with %s it got a New", name)
		}
	}
	if pyramid.New(watt.App{Name: "gateway"})[0].New == nil {
		t.Error("it got no New")
	}
}

func TestTheRuntimeReportsAllMistakesTogether(t *testing.T) {
	rt := watt.New(pyramid.New(watt.App{Name: "gateway", Workers: -7},
		handling("a", nil), telling("", ""), telling("b", ""), telling("b", ""), telling("gateway", ""))...)
	err := rt.Start(t.Context())
	if err == nil {
		t.Fatal("it started")
	}
	text := err.Error()
	for _, want := range []string{`"gateway"`, "Workers", `""`, `"b"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "Calls") {
		t.Errorf("consequences are reported too:\n%s", text)
	}
}

func TestTheReadyGatewayPassesEachAppOnBelowItsName(t *testing.T) {
	var users, orders recorder
	f := newFront(t, users.app("users"), orders.app("orders"))
	for target, want := range map[string]string{
		"/users":              "/",
		"/users/":             "/",
		"/users/7":            "/7",
		"/users/7/":           "/7/",
		"/users?q=1":          "/?q=1",
		"/users/7?":           "/7?",
		"/users/a/b?x=1&x=2":  "/a/b?x=1&x=2",
		"/users/a%2Fb%20c":    "/a%2Fb%20c",
		"/users/users":        "/users",
		"/%75sers/7":          "/7",
		"/users/%C3%BC?%":     "/%C3%BC?%",
		"/users/?a=1;b=2&c=%": "/?a=1;b=2&c=%",
		"/users/%252e%252e/a": "/%252e%252e/a",
		"/users/.well/..a/a.": "/.well/..a/a.",
	} {
		resp, body := f.raw(t, "GET "+target+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp.StatusCode != http.StatusOK || body != "users" {
			t.Errorf("%s: got %s %q", target, resp.Status, body)
		}
		if got := users.one(t).target; got != want {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
	}
	if got := all(t, f.do(t, "GET", "/orders/1", nil)); got != "orders" {
		t.Errorf("got %q", got)
	}
	if got := orders.one(t); got.target != "/1" || got.host != "orders.watt.local" {
		t.Errorf("got %v", got)
	}
}

func TestTheReadyGatewayKnowsNothingElse(t *testing.T) {
	var users recorder
	f := newFront(t, users.app("users"))
	for _, path := range []string{"/", "/user", "/userss", "/users%2F7", "/Users", "/gateway", "/users.watt.local/", "/%75ser%2573"} {
		resp, body := f.raw(t, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
		wantNotice(t, resp, body, http.StatusNotFound, "")
	}
	if got := users.take(); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestTheReadyGatewayRedirectsOddPathsToWhatTheyMean(t *testing.T) {
	var users, secret recorder
	f := newFront(t, users.app("users"), secret.app("secret"))
	for target, want := range map[string]string{
		"//users/7":            "/users/7",
		"/users//7":            "/users/7",
		"/users/./7?a=1;b":     "/users/7?a=1;b",
		"/users/../secret":     "/secret",
		"/users/..":            "/",
		"/../../users/7/":      "/users/7/",
		"//evil.example/..":    "/",
		"///evil.example/":     "/evil.example/",
		"/users/a%2Fb//c":      "/users/a%2Fb/c",
		"http://a//users/./%2": "",
	} {
		resp, _ := f.raw(t, "POST "+target+" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
		if want == "" { // it is no URL at all
			if resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: got %s", target, resp.Status)
			}
			continue
		}
		if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusTemporaryRedirect || got != want {
			t.Errorf("%s: got %s to %q, want %q", target, resp.Status, got, want)
		}
	}
	if u, s := users.take(), secret.take(); u != nil || s != nil {
		t.Errorf("passed on: %v, %v", u, s)
	}
}

func TestDotSegmentsInDisguiseAreNeverPassedOn(t *testing.T) {
	var users recorder
	own := serving(func(env *watt.Env) http.Handler { return pyramid.Proxy(env, "users") })
	measured := serving(func(env *watt.Env) http.Handler {
		p := pyramid.Proxy(env, "users")
		p.Transport = env.Client.Transport
		return p
	})
	for name, entry := range map[string]watt.App{"ready gateway": {}, "own router": own, "own transport": measured} {
		t.Run(name, func(t *testing.T) {
			f := startFront(t, entry, users.app("users"))
			for _, path := range []string{
				"/users/%2e%2e/secret", "/users/%2E./secret", "/users/a%2f..%2fsecret", "/users/a%2F%2e%2E%2fsecret",
				"/users/..%2fsecret", "/users/..%5csecret", "/users/%2e", "/users/%2e/7",
			} {
				resp, body := f.raw(t, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
				wantNotice(t, resp, body, http.StatusBadRequest, "users")
			}
			if got := users.take(); got != nil {
				t.Errorf("passed on: %v", got)
			}
			f.wantSilence(t, 0)
		})
	}
}

func TestTheEntrypointMayHaveSeveralInstances(t *testing.T) {
	f := startFront(t, watt.App{Instances: 3, Workers: 1}, watt.App{Name: "users", Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, watt.Caller(r.Context())) })})
	for i := range 3 {
		if err := f.rt.Restart("gateway", i); err != nil {
			t.Error(err)
		}
		if got := all(t, f.do(t, "GET", "/users", nil)); got != "gateway" {
			t.Errorf("got %q", got)
		}
	}
	if got := f.statusOf(t, "gateway").Instances; got != 3 {
		t.Errorf("got %d instances", got)
	}
}

func TestAppsBehindHaveNoPort(t *testing.T) {
	f := newFront(t, telling("users", "1"))
	if got := f.statusOf(t, "users").Addr; got != "" {
		t.Errorf("got %q", got)
	}
	resp, body := f.raw(t, "GET / HTTP/1.1\r\nHost: users.watt.local\r\n\r\n")
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("got %s %s", resp.Status, body)
	}
}

func TestProxyPanicsIfTheAppCanNeverBeCalled(t *testing.T) {
	mistake := func(app string, calls ...string) string {
		rt := watt.New(telling("users", ""), telling("orders", ""),
			watt.App{Name: "entry", Calls: calls, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
				return pyramid.Proxy(env, app), nil
			}})
		err := rt.Start(t.Context())
		if err == nil {
			_ = rt.Shutdown(t.Context())
			return ""
		}
		return err.Error()
	}
	for app, want := range map[string]string{
		"":                 `"" is not the name of an app`,
		"users.watt.local": `"users.watt.local" is not the name of an app`,
		"users:80":         `"users:80" is not the name of an app`,
		"Users":            `"Users" is not the name of an app`,
		"nobody":           "no such app",
		"orders":           `add "orders" to Calls of app "entry"`,
	} {
		if got := mistake(app, "users"); !strings.Contains(got, "pyramid: Proxy: ") || !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", app, got, want)
		}
	}
	if got := mistake("users", "users"); got != "" {
		t.Errorf("got %q", got)
	}
	defer func() {
		if got := recover(); got != "pyramid: Proxy: env is nil" {
			t.Errorf("got %v", got)
		}
	}()
	pyramid.Proxy(nil, "users")
}

func TestAnAppThatIsDownDoesNotKeepAProxyFromStarting(t *testing.T) {
	f := newFront(t, watt.App{
		Name: "users", Queue: -1, QueueTimeout: -1, Workers: 1,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}),
	})
	held, err := f.rt.Env().Get(t.Context(), "http://users.watt.local/") // now no further request can be taken
	if err != nil {
		t.Fatal(err)
	}
	defer held.Body.Close()
	if err := f.rt.Restart("gateway", 0); err != nil {
		t.Error(err)
	}
	resp := f.do(t, "GET", "/users", nil)
	wantNotice(t, resp, all(t, resp), http.StatusServiceUnavailable, "users")
	if got := resp.Header.Get("Retry-After"); got == "" {
		t.Error("there is no Retry-After")
	}
}
