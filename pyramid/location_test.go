package pyramid_test

import (
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// saying is the app users; it answers with the headers that the request's Say- headers name.
func saying() watt.App {
	return handling("users", func(w http.ResponseWriter, r *http.Request) {
		for _, h := range []string{"Location", "Content-Location", "Set-Cookie", "Link", "Refresh"} {
			if v := r.Header["Say-"+h]; v != nil {
				w.Header()[h] = v
			}
		}
		w.WriteHeader(http.StatusCreated)
	})
}

func TestReferencesToTheAppStandBelowThePrefixAgain(t *testing.T) {
	for name, router := range map[string]func(http.Handler) http.Handler{
		"mount": inRouters()["mount"], "mux": inRouters()["mux"], "stripped": inRouters()["stripped"], "cleaned": inRouters()["cleaned"],
	} {
		t.Run(name, func(t *testing.T) {
			f := startFront(t, serving(func(env *watt.Env) http.Handler { return router(pyramid.Proxy(env, "users")) }), saying())
			wantReferences(t, f, "/users")
		})
	}
	t.Run("ready gateway", func(t *testing.T) { wantReferences(t, newFront(t, saying()), "/users") })
	t.Run("in any spelling", func(t *testing.T) {
		f := newFront(t, saying())
		for target, want := range map[string]string{"http://a/%75sers/7": "/%75sers/8", "/users": "/users/8", "/users?/x": "/users/8"} {
			resp, _ := f.raw(t, "GET "+target+" HTTP/1.1\r\nHost: a\r\nSay-Location: /8\r\n\r\n")
			if got := resp.Header.Get("Location"); got != want {
				t.Errorf("%s: got %q, want %q", target, got, want)
			}
		}
	})
	t.Run("not clean", func(t *testing.T) {
		f := startFront(t, serving(func(env *watt.Env) http.Handler { return inRouters()["cleaned"](pyramid.Proxy(env, "users")) }), saying())
		resp, _ := f.raw(t, "GET //users//7 HTTP/1.1\r\nHost: a\r\nSay-Location: /8\r\n\r\n")
		if got := resp.Header.Get("Location"); got != "/users/8" {
			t.Errorf("got %q", got)
		}
	})
}

func TestThePrefixIsFoundInAPathThatAMiddlewareHasChanged(t *testing.T) {
	for name, changed := range map[string]struct {
		by      func(http.Handler) http.Handler
		targets []string
	}{
		"StripSlashes": {middleware.StripSlashes, []string{"/users/7/", "/users/a%2Fb/", "/users/"}},
		"CleanPath":    {middleware.CleanPath, []string{"/users/7/", "/users/a//7", "/users/x/../7", "/x/../users/7", "/users//"}},
	} {
		f := startFront(t, behind(changed.by), saying())
		for _, target := range changed.targets {
			resp, _ := f.raw(t, "GET "+target+" HTTP/1.1\r\nHost: a\r\nSay-Location: /8\r\nSay-Set-Cookie: a=1; Path=/\r\n\r\n")
			if h := resp.Header; h.Get("Location") != "/users/8" || h.Get("Set-Cookie") != "a=1; Path=/users" {
				t.Errorf("%s, %s: got %q, %q", name, target, h.Get("Location"), h.Get("Set-Cookie"))
			}
		}
	}
}

// wantReferences fails the test unless references are moved below prefix.
func wantReferences(t *testing.T, f *front, prefix string) {
	t.Helper()
	for given, want := range map[string]string{
		"/8":                                 prefix + "/8",
		"/":                                  prefix + "/",
		"/a%2Fb/../c?x=/y#/z":                prefix + "/a%2Fb/../c?x=/y#/z",
		"http://users.watt.local/8?x#y":      prefix + "/8?x#y",
		"HTTP://Users.Watt.Local:80/8":       prefix + "/8",
		"http://users.watt.local.":           prefix + "/",
		"http://users.watt.local?x":          prefix + "/?x",
		"//users.watt.local/8":               prefix + "/8",
		"http://users.watt.local//evil/8":    prefix + "/evil/8",
		"http://orders.watt.local/8":         "http://orders.watt.local/8",
		"https://users.watt.local/8":         prefix + "/8", // as an app has it that reads X-Forwarded-Proto alone
		"HTTPS://users.watt.local:443?x":     prefix + "/?x",
		"ftp://users.watt.local/8":           "ftp://users.watt.local/8",
		"http://users.watt.local.evil/8":     "http://users.watt.local.evil/8",
		"http://users.watt.local@evil/8":     "http://users.watt.local@evil/8",
		"http://evil\\users.watt.local/8":    "http://evil\\users.watt.local/8",
		"https://elsewhere.example/8":        "https://elsewhere.example/8",
		"//elsewhere.example/8":              "//elsewhere.example/8",
		"8":                                  "8",
		"../8":                               "../8",
		"?page=2":                            "?page=2",
		"#part":                              "#part",
		"":                                   "",
		"mailto:users@users.watt.local/8":    "mailto:users@users.watt.local/8",
		"http://[::1]/users.watt.local/%zz/": "http://[::1]/users.watt.local/%zz/",
	} {
		for _, path := range []string{"/users/7", "/users/", "/users/a%2Fb?c=/d"} {
			for _, header := range []string{"Location", "Content-Location"} {
				resp := f.do(t, "POST", path, nil, "Say-"+header, given)
				if got := resp.Header.Get(header); got != want {
					t.Errorf("%s: %s %q: got %q, want %q", path, header, given, got, want)
				}
			}
		}
	}
	resp := f.do(t, "GET", "/users/7", nil, "Say-Link", "</8>; rel=next", "Say-Refresh", "0; url=/8")
	if got := resp.Header; got.Get("Link") != "</8>; rel=next" || got.Get("Refresh") != "0; url=/8" {
		t.Errorf("got %v", got)
	}
}

func TestWithoutAStrippedPrefixOnlyTheAppsHostGoes(t *testing.T) {
	f := startFront(t, serving(func(env *watt.Env) http.Handler { return pyramid.Proxy(env, "users") }), saying())
	for given, want := range map[string]string{
		"/8":                                     "/8",
		"http://users.watt.local/8":              "/8",
		"http://users.watt.local//evil.example/": "/evil.example/", // and not another host
		`http://users.watt.local/\evil.example/`: "/evil.example/",
		`http://users.watt.local\\evil.example/`: "/evil.example/",
		"http://users.watt.local/\t/evil":        "/evil",
	} {
		if got := f.do(t, "GET", "/users/7", nil, "Say-Location", given).Header.Get("Location"); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
	for _, cookie := range []string{"a=1; Path=/x; Domain=a.example", "a=1; Path=/", "a=1; path=/x/"} {
		if got := f.do(t, "GET", "/", nil, "Say-Set-Cookie", cookie).Header.Get("Set-Cookie"); got != cookie {
			t.Errorf("%q: got %q", cookie, got)
		}
	}
}

func TestAPathThatWasReplacedHasNoPrefix(t *testing.T) {
	f := startFront(t, serving(func(env *watt.Env) http.Handler {
		proxy := pyramid.Proxy(env, "users")
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = "/other"
			proxy.ServeHTTP(w, r)
		})
	}), saying())
	if got := f.do(t, "GET", "/users/7", nil, "Say-Location", "/8").Header.Get("Location"); got != "/8" {
		t.Errorf("got %q", got)
	}
}

func TestCookiesOfAStrippedPrefixStayBelowIt(t *testing.T) {
	f := newFront(t, saying())
	for given, want := range map[string]string{
		"a=1":                                  "a=1",
		"a=1; Path=/":                          "a=1; Path=/users",
		"a=1; Path=/x":                         "a=1; Path=/users/x",
		"a=1; path = /x/ ;Secure":              "a=1; Path=/users/x;Secure",
		"a=1; Path=":                           "a=1; Path=",
		"a=1; Path=x":                          "a=1; Path=x",
		"a=/; HttpOnly; Path=/; SameSite=Lax":  "a=/; HttpOnly; Path=/users; SameSite=Lax",
		"a=1; Domain=users.watt.local; Secure": "a=1; Secure",
		"a=1; domain=.Watt.Local":              "a=1",
		"a=1; Domain=orders.watt.local.":       "a=1",
		"a=1; Domain=shop.example":             "a=1; Domain=shop.example",
		"a=1; Domain=mywatt.local":             "a=1; Domain=mywatt.local",
		"a=path=/":                             "a=path=/",
		`a="x; Path=/`:                         `a="x; Path=/users`,
		"__Host-a=1; Secure; Path=/":           "__Host-a=1; Secure; Path=/",
		"__host-a=1; Secure; Path=/":           "__host-a=1; Secure; Path=/",
		"__Secure-a=1; Secure; Path=/":         "__Secure-a=1; Secure; Path=/users",
		"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/": "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/users",
	} {
		resp := f.do(t, "GET", "/users/7", nil, "Say-Set-Cookie", given, "Say-Set-Cookie", "b=2; Path=/")
		if got := resp.Header["Set-Cookie"]; !slices.Equal(got, []string{want, "b=2; Path=/users"}) {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}

func TestAPrefixOfTheClientsChoiceCannotForgeAttributes(t *testing.T) {
	f := startFront(t, serving(func(env *watt.Env) http.Handler {
		r := chi.NewRouter()
		r.Mount("/{tenant}", pyramid.Proxy(env, "users"))
		return r
	}), saying())
	resp := f.do(t, "GET", "/a;Domain=evil.example/7", nil, "Say-Set-Cookie", "a=1; Path=/", "Say-Location", "/8")
	if got := resp.Header.Get("Set-Cookie"); got != "a=1; Path=/a%3BDomain=evil.example" {
		t.Errorf("got %q", got)
	}
	if got := resp.Header.Get("Location"); got != "/a;Domain=evil.example/8" {
		t.Errorf("got %q", got)
	}
}

func TestNothingElseOfAnAnswerChanges(t *testing.T) {
	f := newFront(t, handling("users", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("X-Frame-Options", "DENY")
		w.Header().Set("Server", "own")
		io.WriteString(w, `<a href="/8">not gzip</a>`)
	}))
	resp := f.do(t, "GET", "/users/7", nil)
	body := all(t, resp)
	for name, want := range map[string]string{
		"Content-Encoding": "gzip", "Content-Type": "text/html", "X-Frame-Options": "DENY", "Server": "own", "Content-Length": "25",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
	if body != `<a href="/8">not gzip</a>` {
		t.Errorf("got %q", body)
	}
}
