package pyramid_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"go.uber.org/zap"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// inRouters has the proxy of users in each kind of router, at /users.
func inRouters() map[string]func(proxy http.Handler) http.Handler {
	under := func(set func(chi.Router, http.Handler)) func(http.Handler) http.Handler {
		return func(proxy http.Handler) http.Handler {
			r := chi.NewRouter()
			set(r, proxy)
			return r
		}
	}
	return map[string]func(http.Handler) http.Handler{
		"mount":    under(func(r chi.Router, p http.Handler) { r.Mount("/users", p) }),
		"route":    under(func(r chi.Router, p http.Handler) { r.Route("/users", func(r chi.Router) { r.Handle("/*", p) }) }),
		"stripped": under(func(r chi.Router, p http.Handler) { r.Mount("/users", http.StripPrefix("/users", p)) }),
		"cleaned": under(func(r chi.Router, p http.Handler) {
			r.Use(middleware.CleanPath)
			r.Mount("/users", p)
		}),
		"handle": under(func(r chi.Router, p http.Handler) { r.Handle("/users/*", p) }),
		"mux": func(p http.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/users/", http.StripPrefix("/users", p))
			return mux
		},
		"mux, slash included": func(p http.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/users/", http.StripPrefix("/users/", p))
			return mux
		},
		"whole": func(p http.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/users/", p)
			return mux
		},
	}
}

func TestAPrefixIsStrippedUnderMountAndKeptUnderHandle(t *testing.T) {
	stripped := []string{"mount", "route", "stripped", "cleaned", "mux", "mux, slash included"}
	for name, router := range inRouters() {
		t.Run(name, func(t *testing.T) {
			var users recorder
			f := startFront(t, serving(func(env *watt.Env) http.Handler { return router(pyramid.Proxy(env, "users")) }), users.app("users"))
			prefix := "/users"
			if slices.Contains(stripped, name) {
				prefix = ""
			}
			for _, below := range []string{"/7", "/", "/a%2Fb/c%20d", "/a b?x=1;y=2&z=%zz", "/%C3%BC/", "/a;b=1,c/@:", "/a+b/%2B", "/100%25", "/100%25/%2F"} {
				f.raw(t, "GET /users"+strings.ReplaceAll(below, " ", "%20")+" HTTP/1.1\r\nHost: a\r\n\r\n")
				want := prefix + strings.ReplaceAll(below, " ", "%20")
				if name == "cleaned" && want != "/" { // as CleanPath has it
					want = strings.TrimSuffix(want, "/")
				}
				if got := users.one(t).target; got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
		})
	}
}

func TestWhatChiHasCleanedIsWhatIsPassedOn(t *testing.T) {
	var users recorder
	f := startFront(t, serving(func(env *watt.Env) http.Handler {
		return inRouters()["cleaned"](pyramid.Proxy(env, "users"))
	}), users.app("users"))
	for target, want := range map[string]string{"/x/../users//7": "/7", "//users/./a%2Fb": "/a%2Fb", "/users/x//a%2Fb": "/x/a%2Fb", "/users//": "/"} {
		f.raw(t, "GET "+target+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := users.one(t).target; got != want {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
	}
}

func TestWhatChiHasStrippedKeepsItsEscapes(t *testing.T) {
	var users recorder
	f := startFront(t, behind(middleware.StripSlashes), users.app("users"))
	for target, want := range map[string]string{
		"/users/7/": "/7", "/users/a%2Fb/": "/a%2Fb", "/users/%2541%2F/": "/%2541%2F", "/users/100%25%2F/": "/100%25%2F", "/users/%7e/%2F/": "/%7e/%2F",
		"/users/100%25/": "/100%25", "/users/a%2Fb": "/a%2Fb", "/users/": "/",
		"/home/7/": "/7", "/home/%2541%41/": "/%2541A", "/home/100%25%41/": "/100%25A", "/home/a%2Fb": "/a%2Fb", "/home/%2541%41": "/%2541A",
	} {
		f.raw(t, "GET "+target+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := users.one(t).target; got != want {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
	}
}

func TestWhatIsStrippedBelowAMountIsStrippedToo(t *testing.T) {
	var users recorder
	f := startFront(t, serving(func(env *watt.Env) http.Handler {
		r := chi.NewRouter()
		r.Mount("/api", http.StripPrefix("/api/users", pyramid.Proxy(env, "users")))
		return r
	}), users.app("users"))
	f.do(t, "GET", "/api/users/7", nil)
	if got := users.one(t).target; got != "/7" {
		t.Errorf("got %s", got)
	}
}

func TestMethodsBodiesAndHeadersPass(t *testing.T) {
	f := newFront(t, handling("echo", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PROPFIND" { // which is rare enough to come over a connection
			_ = http.NewResponseController(w).EnableFullDuplex()
		}
		w.Header()["X-Many"] = r.Header["X-Many"]
		w.Header().Set("X-Method", r.Method)
		w.Header().Set("Etag", `"1"`)
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.Copy(w, r.Body)
	}))
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
		var body string
		if method != "HEAD" {
			body = strings.Repeat(method, 10000)
		}
		resp := f.do(t, method, "/echo/", strings.NewReader(body), "X-Many", "1", "X-Many", "2, 3")
		if got := all(t, resp); resp.StatusCode != http.StatusTeapot || got != body || resp.Header.Get("X-Method") != method {
			t.Errorf("%s: got %s, %d bytes, want %d", method, resp.Status, len(got), len(body))
		}
		if got := resp.Header["X-Many"]; !slices.Equal(got, []string{"1", "2, 3"}) || resp.Header.Get("Etag") != `"1"` {
			t.Errorf("%s: got %v", method, resp.Header)
		}
	}
}

func TestRedirectsAreForTheClientToFollow(t *testing.T) {
	f := newFront(t, handling("a", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://elsewhere.example/x?y", http.StatusFound)
	}))
	resp := f.do(t, "GET", "/a", nil)
	if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || got != "https://elsewhere.example/x?y" {
		t.Errorf("got %s to %q", resp.Status, got)
	}
}

func TestFailedCallsAreAnsweredAsTheirErrorsSay(t *testing.T) {
	f := newFront(t, telling("users", "1"))
	for _, c := range []struct {
		err    error
		status int
	}{
		{watt.ErrUnavailable, 503},
		{watt.ErrOverloaded, 503},
		{watt.ErrNotAllowed, 403},
		{watt.ErrNoSuchApp, 502},
		{watt.ErrInstanceDied, 502},
		{context.DeadlineExceeded, 504},
		{errors.New("secret"), 502},
	} {
		f.Fail("gateway", "users", c.err)
		resp := f.do(t, "GET", "/users/7", nil)
		body := all(t, resp)
		wantNotice(t, resp, body, c.status, "users")
		if got := resp.Header.Get("Retry-After"); (got != "") != (c.status == 503) {
			t.Errorf("%v: got Retry-After %q", c.err, got)
		}
		if strings.Contains(body, "secret") {
			t.Errorf("strangers read %s", body)
		}
	}
	f.Fail("gateway", "users", nil)
	if got := all(t, f.do(t, "GET", "/users/7", nil)); got != "1" {
		t.Errorf("got %q", got)
	}
}

// foreign is a transport that knows nothing of the mesh's errors.
type foreign struct{}

func (foreign) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("broken") }

func TestErrorsOfTheUsersOwnTransportAre502(t *testing.T) {
	f := startFront(t, serving(func(env *watt.Env) http.Handler {
		p := pyramid.Proxy(env, "users")
		p.Transport = foreign{}
		return p
	}), telling("users", ""))
	resp := f.do(t, "GET", "/", nil)
	wantNotice(t, resp, all(t, resp), http.StatusBadGateway, "users")
}

func TestABodyThatIsTooLargeForARouteIs413(t *testing.T) {
	f := startFront(t, serving(func(env *watt.Env) http.Handler {
		return http.MaxBytesHandler(pyramid.Proxy(env, "users"), 1000)
	}), handling("users", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	resp := f.do(t, "POST", "/", strings.NewReader(strings.Repeat("a", 1001)))
	wantNotice(t, resp, all(t, resp), http.StatusRequestEntityTooLarge, "")
	if resp := f.do(t, "POST", "/", strings.NewReader(strings.Repeat("a", 1000))); resp.StatusCode != http.StatusOK {
		t.Errorf("got %s", resp.Status)
	}
	f.wantSilence(t, zap.WarnLevel)
}

func TestAClientThatBreaksOffItsRequestIsNoNews(t *testing.T) {
	failed := make(chan error, 1)
	f := newFront(t, handling("users", func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		failed <- err
	}))
	conn := f.dial(t)
	fmt.Fprintf(conn, "POST /users HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegin")
	conn.Close()
	if err := within(t, failed, "the app's error"); err == nil {
		t.Error("the app thinks that this was all")
	}
	soon(t, "the end of the request", func() bool { return f.statusOf(t, "gateway").Busy == 0 })
	f.wantSilence(t, zap.WarnLevel)
}

func TestAClientThatStallsUntilTheTimeoutIsToldSo(t *testing.T) {
	f := startFront(t, watt.App{Timeout: 50 * time.Millisecond}, handling("users", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	resp, body := f.raw(t, "POST /users HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegin")
	wantNotice(t, resp, body, http.StatusGatewayTimeout, "users")
}

func TestAMalformedBodyIsTheClientsMistake(t *testing.T) {
	f := newFront(t, handling("users", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	resp, body := f.raw(t, "POST /users HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
	wantNotice(t, resp, body, http.StatusBadRequest, "users")
	f.wantSilence(t, zap.WarnLevel)
}

func TestAnAppThatBreaksOffARequestIsNotTheClientsMistake(t *testing.T) {
	f := newFront(t,
		handling("http", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 1000))
			panic(http.ErrAbortHandler)
		}),
		nonsense("tcp", ""))
	for _, app := range []string{"http", "tcp"} {
		resp := f.do(t, "POST", "/"+app, &endless{t.Context()})
		wantNotice(t, resp, all(t, resp), http.StatusBadGateway, app)
	}
}

// endless is a body that goes on for as long as the test does.
type endless struct{ ctx context.Context }

func (b *endless) Read(p []byte) (int, error) { return len(p), b.ctx.Err() }

func TestAClientThatGoesEndsTheAppsContext(t *testing.T) {
	began, ended := make(chan struct{}), make(chan error, 1)
	wait := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			io.WriteString(w, "some")
			http.NewResponseController(w).Flush()
		}
		began <- struct{}{}
		<-r.Context().Done()
		ended <- context.Cause(r.Context())
	}
	for _, protocols := range []*http.Protocols{nil, h2c()} {
		f := startFront(t, watt.App{Protocols: both()}, handling("slow", wait))
		for _, path := range []string{"/slow/", "/slow/begun"} {
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				within(t, began, "the request")
				cancel()
			}()
			resp, err := client(t, protocols).Do(f.request(t, "GET", path, nil).WithContext(ctx))
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if got := within(t, ended, "the end of the app's context"); !errors.Is(got, context.Canceled) {
				t.Errorf("got %v", got)
			}
		}
		soon(t, "the end of the requests", func() bool { return f.statusOf(t, "gateway").Busy == 0 })
		f.wantSilence(t, zap.WarnLevel)
	}
}

// both is HTTP/1 and HTTP/2, neither encrypted.
func both() *http.Protocols {
	p := h2c()
	p.SetHTTP1(true)
	return p
}

func TestAnAppMayHaveAProxyWithoutBeingAnEntrypoint(t *testing.T) {
	var users recorder
	f := startFront(t, serving(func(env *watt.Env) http.Handler { return pyramid.Proxy(env, "middle") }),
		watt.App{Name: "middle", Calls: []string{"users"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return pyramid.Proxy(env, "users"), nil
		}}, users.app("users"))
	if got := all(t, f.do(t, "GET", "/7", nil)); got != "users" {
		t.Errorf("got %q", got)
	}
	h := users.one(t).header
	if got := h["X-Forwarded-For"]; !slices.Equal(got, []string{"127.0.0.1"}) {
		t.Errorf("got %v", got)
	}
	if got := h.Get("X-Forwarded-Host"); got != f.addr {
		t.Errorf("got %q, want %q", got, f.addr)
	}
}

func TestTheDeadlineOfTheEntrypointIsThatOfItsCalls(t *testing.T) {
	ended := make(chan error, 1)
	f := startFront(t, watt.App{Timeout: 50 * time.Millisecond}, handling("slow", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		ended <- context.Cause(r.Context())
	}))
	resp := f.do(t, "GET", "/slow", nil)
	wantNotice(t, resp, all(t, resp), http.StatusGatewayTimeout, "slow")
	if err := within(t, ended, "the end of the app's context"); err == nil {
		t.Error("it has not ended")
	}
}
