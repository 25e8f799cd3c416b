package pyramid_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

// target is an app that answers with the target of the request.
func target() watt.App {
	return handling("a", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(r.URL.EscapedPath() + "?" + r.URL.RawQuery)
	})
}

// routers are the ways to a composition; each matches /home/{id} and /deep/{a}/{b}.
func routers(compose http.Handler) map[string]http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/home/{id}", compose)
	mux.Handle("/deep/{a}/{b}", compose)
	outer := http.NewServeMux()
	stripped := http.NewServeMux()
	stripped.Handle("/{id}", compose)
	outer.Handle("/home/", http.StripPrefix("/home", stripped))
	outer.Handle("/deep/", mux)
	r := chi.NewRouter()
	r.Handle("/home/{id}", compose)
	r.Handle("/deep/{a}/{b}", compose)
	parent := chi.NewRouter()
	parent.Route("/home", func(r chi.Router) { r.Handle("/{id}", compose) })
	parent.Route("/deep/{a}", func(r chi.Router) { r.Handle("/{b}", compose) })
	around := http.NewServeMux()
	around.Handle("/", parent)
	inside := chi.NewRouter()
	inside.Mount("/", mux)
	return map[string]http.Handler{
		"ServeMux": mux, "StripPrefix": outer, "chi": r, "chi in chi in ServeMux": around, "ServeMux in chi": inside,
	}
}

// through calls path by way of each router, and returns the statuses and answers.
func through(t *testing.T, part pyramid.Part, path string) map[string]reply {
	t.Helper()
	all := make(map[string]reply)
	var compose http.Handler
	for router := range routers(http.NotFoundHandler()) {
		entry := watt.App{Name: "home", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			compose = pyramid.Compose(env, pyramid.Parts{"p": part})
			return routers(compose)[router], nil
		}, Calls: []string{"a"}}
		h := &home{rt: watt.New(entry, target())}
		watttest.Start(t, h.rt)
		all[router] = h.ask(t.Context(), http.MethodGet, path)
	}
	return all
}

func TestParametersAreEscapedOnce(t *testing.T) {
	for name, c := range map[string]struct{ template, path, want string }{
		"nothing":                   {"/x", "/home/7", "/x?"},
		"the root":                  {"/", "/home/7", "/?"},
		"in the path":               {"/users/{id}", "/home/7", "/users/7?"},
		"in a segment":              {"/users/u-{id}.json/", "/home/7", "/users/u-7.json/?"},
		"in the query":              {"/?user={id}&x=1", "/home/7", "/?user=7&x=1"},
		"two":                       {"/{b}/{a}", "/deep/1/2", "/2/1?"},
		"a space":                   {"/{id}?q={id}", "/home/a%20b", "/a%20b?q=a+b"},
		"an escaped slash":          {"/{id}?q={id}", "/home/a%2Fb", "/a%2Fb?q=a%2Fb"},
		"an escaped percent":        {"/{id}?q={id}", "/home/50%25", "/50%25?q=50%25"},
		"percent and slash":         {"/{id}?q={id}", "/home/a%2F50%2525", "/a%2F50%2525?q=a%2F50%2525"},
		"what looks escaped":        {"/{id}?q={id}", "/home/%252e", "/%252e?q=%252e"},
		"separators":                {"/{id}?q={id}", "/home/a%3Fb=c&d;e%23f", "/a%3Fb=c&d%3Be%23f?q=a%3Fb%3Dc%26d%3Be%23f"},
		"plus":                      {"/{id}?q={id}", "/home/a+b", "/a+b?q=a%2Bb"},
		"UTF-8":                     {"/ü/{id}", "/home/%C3%A4", "/%C3%BC/%C3%A4?"},
		"literal space":             {"/a b/{id}", "/home/7", "/a%20b/7?"},
		"literal slash":             {"/a%2Fb/{id}", "/home/7", "/a%2Fb/7?"},
		"dots within":               {"/{id}", "/home/a..b", "/a..b?"},
		"three dots":                {"/{id}", "/home/...", "/...?"},
		"of the query":              {"/{id}?page={page}", "/home/7?page=a%26b&page=2&other=3", "/7?page=a%26b"},
		"of the query, in the path": {"/{lang}/{id}", "/home/7?lang=de%2F", "/de%2F/7?"},
		"of both":                   {"/?a={id}", "/home/7?id=8", "/?a=7"},
		"empty in the query":        {"/?a={q}", "/home/7?q=", "/?a="},
		"query of the template":     {"/?a=%20&b", "/home/7?c=1", "/?a=%20&b"},
		"an empty query":            {"/?", "/home/7?c=1", "/?"},
	} {
		t.Run(name, func(t *testing.T) {
			want, _ := json.Marshal(c.want)
			for router, got := range through(t, pyramid.Part{App: "a", Path: c.template}, c.path) {
				if got.status != 200 || got.body != `{"p":`+string(want)+"\n}" {
					t.Errorf("%s: got %d %s, want %s", router, got.status, got.body, want)
				}
			}
		})
	}
}

func TestTheInnermostRoutersParameterCounts(t *testing.T) {
	entry := watt.App{Name: "home", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		inner := http.NewServeMux()
		inner.Handle("/home/{org}/{id}", pyramid.Compose(env, pyramid.Parts{"p": {App: "a", Path: "/{id}/{org}"}}))
		r := chi.NewRouter()
		r.Mount("/home/{id}", inner)
		return r, nil
	}}
	h := startHome(t, entry, target())
	wantAnswer(t, h.ask(t.Context(), http.MethodGet, "/home/1/a%2Fb%2525"), "", "{\"p\":\"/a%2Fb%2525/1?\"\n}")
}

// bare asks a composition that sits behind no router which would clean the path.
func bare(t *testing.T, template, id string) reply {
	t.Helper()
	entry := watt.App{Name: "home", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		compose := pyramid.Compose(env, pyramid.Parts{"p": {App: "a", Path: template}})
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Pattern = "/{id}"
			r.SetPathValue("id", id)
			compose(w, r)
		}), nil
	}}
	return startHome(t, entry, target()).get(t)
}

func TestAValueCannotChangeThePathsShape(t *testing.T) {
	for _, c := range [][2]string{
		{"/users/{id}", ".."},
		{"/users/{id}", "."},
		{"/users/{id}", ""},
		{"/users/{id}/x", ""},
		{"/users/.{id}", "."},
		{"/users/{id}{id}", "."},
		{"/users/%2E{id}", "."},
		{"/users/{id}", "a/../../b"},
		{"/users/{id}", "../b"},
		{"/users/{id}", "a/."},
		{"/users/{id}", `..\b`},
		{"/users/{id}", `a/..\b`},
		{"/users/{id}", `a\..`},
	} {
		wantProblem(t, bare(t, c[0], c[1]), 400, "")
	}
	for _, c := range [][3]string{{"/u-{id}", "", "/u-?"}, {"/{id}", `a\b`, "/a%5Cb?"}, {"/?u={id}", "..", "/?u=.."}, {"/?u={id}", "", "/?u="}, {"/{id}", "a//b", "/a%2F%2Fb?"}} {
		if r := bare(t, c[0], c[1]); r.status != 200 || !strings.Contains(r.body, c[2]) {
			t.Errorf("%s with %q: got %d %s", c[0], c[1], r.status, r.body)
		}
	}
}

func TestDotsInARequestsPathDoNotReachTheParts(t *testing.T) {
	for _, path := range []string{"/home/%2e%2e", "/home/%2e", "/home/..%2Fadmin", "/home/a%2F..%2Fb", "/home/..%5Cadmin"} {
		for router, r := range through(t, pyramid.Part{App: "a", Path: "/users/{id}"}, path) {
			if r.err == nil && r.status < 300 {
				t.Errorf("%s through %s: got %d %s", path, router, r.status, r.body)
			}
		}
	}
}

func TestAParameterThatTheRouteDoesNotHaveIsLogged(t *testing.T) {
	h := newHome(t, pyramid.Parts{"p": {App: "a", Path: "/{user}", Optional: true}}, target())
	wantProblem(t, h.get(t), 500, "")
	lines := h.logs.FilterMessage("request failed").All()
	if len(lines) != 1 {
		t.Fatalf("got %v", lines)
	}
	if text, _ := lines[0].ContextMap()["error"].(string); !strings.Contains(text, `part "p"`) || !strings.Contains(text, `parameter "user"`) {
		t.Errorf("got %q", text)
	}
}

func TestAParameterThatTheQueryDoesNotHaveIsTheClientsMistake(t *testing.T) {
	h := newHome(t, pyramid.Parts{"p": {App: "a", Path: "/?page={page}", Optional: true}}, target())
	wantProblem(t, h.get(t), 400, "")
	if n := h.logs.FilterMessage("request failed").Len(); n != 0 {
		t.Errorf("got %d lines in the log", n)
	}
}

func TestNothingIsCalledIfAPathCannotBeFilledIn(t *testing.T) {
	called := make(chan struct{}, 1)
	h := newHome(t, pyramid.Parts{
		"a": {App: "a", Path: "/"}, "b": {App: "a", Path: "/?x={x}"},
		"c": {Func: func(*http.Request) (any, error) { called <- struct{}{}; return 1, nil }},
	}, handling("a", func(w http.ResponseWriter, _ *http.Request) { called <- struct{}{}; io.WriteString(w, "1") }))
	wantProblem(t, h.get(t), 400, "")
	if len(called) != 0 {
		t.Error("a part was started")
	}
}
