package pyramid_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

// home is a running topology with a composition at http://home.watt.local/home/{id}.
type home struct {
	*watttest.Topology
	rt   *watt.Runtime
	logs *observer.ObservedLogs
}

// newHome starts apps and, in front of them, an app that composes parts.
func newHome(t *testing.T, parts pyramid.Parts, apps ...watt.App) *home {
	t.Helper()
	return startHome(t, homeApp(parts), apps...)
}

func startHome(t *testing.T, entry watt.App, apps ...watt.App) *home {
	t.Helper()
	for _, a := range apps {
		entry.Calls = append(entry.Calls, a.Name)
	}
	h := &home{rt: watt.New(append(apps, entry)...)}
	core, logs := observer.New(zap.DebugLevel)
	h.rt.Logger, h.logs = zap.New(core), logs
	h.Topology = watttest.Start(t, h.rt)
	return h
}

func homeApp(parts pyramid.Parts) watt.App {
	return watt.App{Name: "home", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		r := chi.NewRouter()
		r.Handle("/home/{id}", pyramid.Compose(env, parts))
		return r, nil
	}}
}

// reply is a whole answer.
type reply struct {
	status int
	header http.Header
	body   string
	err    error
}

// ask sends a request with pairs of header names and values to the composition.
func (h *home) ask(ctx context.Context, method, path string, headers ...string) reply {
	req, err := http.NewRequestWithContext(ctx, method, "http://home.watt.local"+path, http.NoBody)
	if err != nil {
		return reply{err: err}
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := h.rt.Env().Client.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(body), err}
}

func (h *home) get(t *testing.T) reply {
	t.Helper()
	return h.ask(t.Context(), http.MethodGet, "/home/7")
}

// wantAnswer fails the test unless r has status 200 and these X-Watt-Partial and body.
func wantAnswer(t *testing.T, r reply, partial, body string) {
	t.Helper()
	if r.err != nil || r.status != http.StatusOK || r.header.Get("X-Watt-Partial") != partial || r.body != body {
		t.Errorf("got %d, partial %q, %s, error %v\nwant partial %q, %s",
			r.status, r.header.Get("X-Watt-Partial"), r.body, r.err, partial, body)
	}
}

// wantProblem fails the test unless r is a problem document that names app.
func wantProblem(t *testing.T, r reply, status int, app string) {
	t.Helper()
	var problem struct {
		Status int
		App    string
	}
	err := json.Unmarshal([]byte(r.body), &problem)
	if r.err != nil || err != nil || r.status != status || problem.Status != status || problem.App != app {
		t.Errorf("got %d %s, errors %v, %v; want %d and app %q", r.status, r.body, r.err, err, status, app)
	}
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("got Content-Type %q", got)
	}
}

// telling is an app that answers everything with body.
func telling(name, body string) watt.App {
	return handling(name, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
}

func handling(name string, h http.HandlerFunc) watt.App { return watt.App{Name: name, Handler: h} }

func TestPartsComeInTheOrderOfTheirKeysByteForByte(t *testing.T) {
	const odd = " {\"z\":1.0, \"a\" : 12345678901234567890,\"z\":\"<\\u00e4\"}\n"
	h := newHome(t, pyramid.Parts{
		"b":    {App: "odd", Path: "/"},
		"a":    {App: "list", Path: "/"},
		`"c"<`: {Func: func(*http.Request) (any, error) { return json.RawMessage("[ 1 ]"), nil }},
		"d":    {Func: func(*http.Request) (any, error) { return map[string]int{"x": 1}, nil }},
	}, telling("odd", odd), telling("list", "[]"))
	want := `{"\"c\"\u003c":[ 1 ],"a":[],"b":` + odd + `,"d":{"x":1}}`
	for range 20 {
		r := h.get(t)
		wantAnswer(t, r, "", want)
		if r.header.Get("Content-Type") != "application/json" || r.header.Get("Content-Length") != strconv.Itoa(len(want)) {
			t.Fatalf("got headers %v", r.header)
		}
	}
}

func TestALongAnswerArrivesWhole(t *testing.T) {
	long := `"` + strings.Repeat("x", 300<<10) + `"`
	chunked := handling("chunked", func(w http.ResponseWriter, _ *http.Request) {
		for _, piece := range []string{long[:1000], long[1000:100_000], long[100_000:]} {
			io.WriteString(w, piece)
			http.NewResponseController(w).Flush()
		}
	})
	sized := handling("sized", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(long)))
		io.WriteString(w, long)
	})
	h := newHome(t, pyramid.Parts{"a": {App: "chunked", Path: "/"}, "b": {App: "sized", Path: "/"}}, chunked, sized)
	wantAnswer(t, h.get(t), "", `{"a":`+long+`,"b":`+long+`}`)
}

// TestNoAnswerHasAPartOfAnother asks for many answers at once, whose parts are read into memory that others had before.
func TestNoAnswerHasAPartOfAnother(t *testing.T) {
	long := func(id string) string { return `"` + strings.Repeat(id, 1<<(id[0]-'0')) + `"` } // 5 KiB at most
	h := newHome(t, pyramid.Parts{
		"a": {App: "echo", Path: "/{id}"},
		"b": {App: "echo", Path: "/{id}", Coalesce: true},
	}, handling("echo", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, long(strings.TrimPrefix(r.URL.Path, "/")))
	}))
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			for n := range 100 {
				id := strconv.Itoa((i+n)%10) + "123456789"
				wantAnswer(t, h.ask(t.Context(), http.MethodGet, "/home/"+id), "", `{"a":`+long(id)+`,"b":`+long(id)+`}`)
			}
		})
	}
	clients.Wait()
}

func TestHeadIsAnsweredWithTheLengthAlone(t *testing.T) {
	h := newHome(t, pyramid.Parts{"a": {App: "a", Path: "/"}}, telling("a", "[1,2]"))
	r := h.ask(t.Context(), http.MethodHead, "/home/7")
	wantAnswer(t, r, "", "")
	if got := r.header.Get("Content-Length"); got != strconv.Itoa(len(`{"a":[1,2]}`)) {
		t.Errorf("got Content-Length %q", got)
	}
}

func TestAppsAreCalledWithGETAndWithoutABody(t *testing.T) {
	a := handling("a", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, `"%s %d %s"`, r.Method, len(body), r.Header.Get("Content-Type"))
	})
	h := newHome(t, pyramid.Parts{
		"a": {App: "a", Path: "/"},
		"f": {Func: func(r *http.Request) (any, error) {
			body, err := io.ReadAll(r.Body)
			return fmt.Sprint(r.Method, string(body), r.ContentLength, r.TransferEncoding), err
		}},
	}, a)
	resp, err := h.rt.Env().Client.Post("http://home.watt.local/home/7", "text/plain", io.MultiReader(strings.NewReader("hello"))) // of unknown length
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != `{"a":"GET 0 ","f":"POST0 []"}` || err != nil {
		t.Errorf("got %s, error %v", body, err)
	}
}

func TestNoContentIsNull(t *testing.T) {
	nothing := handling("nothing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	h := newHome(t, pyramid.Parts{
		"a": {App: "nothing", Path: "/"},
		"b": {Func: func(*http.Request) (any, error) { return nil, nil }}, //nolint:nilnil // null is a value
		"c": {Func: func(*http.Request) (any, error) { return json.RawMessage(nil), nil }},
	}, nothing)
	wantAnswer(t, h.get(t), "", `{"a":null,"b":null,"c":null}`)
}

func TestPartsRunAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := handling("slow", func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Second)
			io.WriteString(w, "1")
		})
		part := pyramid.Part{App: "slow", Path: "/"}
		h := newHome(t, pyramid.Parts{"a": part, "b": part, "c": part, "d": {Func: func(*http.Request) (any, error) {
			time.Sleep(time.Second)
			return 2, nil
		}}}, slow)
		began := time.Now()
		wantAnswer(t, h.get(t), "", `{"a":1,"b":1,"c":1,"d":2}`)
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v, want 1s", took)
		}
	})
}

func TestAFuncHasARequestOfItsOwn(t *testing.T) {
	left := make(chan string, 1)
	resume := make(chan struct{})
	h := newHome(t, pyramid.Parts{
		"now": {Func: func(r *http.Request) (any, error) {
			r.Header.Set("X-Mine", "1")
			r.URL.Path = "/elsewhere"
			r.SetPathValue("id", "8")
			return r.Context().Value(chi.RouteCtxKey) != nil, nil
		}},
		"late": {Optional: true, Timeout: time.Millisecond, Func: func(r *http.Request) (any, error) {
			<-resume
			left <- r.Header.Get("X-Mine") + r.URL.Path + r.PathValue("id") + chi.URLParam(r, "id")
			return 1, nil
		}},
	})
	wantAnswer(t, h.get(t), "late;reason=timeout", `{"now":true}`)
	for range 10 { // other requests use chi's context again
		h.ask(t.Context(), http.MethodGet, "/nowhere/9")
	}
	close(resume)
	if got := <-left; got != "/home/777" {
		t.Errorf("got %q, want %q", got, "/home/777")
	}
}

func TestCompositionsCanBeNested(t *testing.T) {
	inner := watt.App{Name: "inner", Calls: []string{"leaf"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return pyramid.Compose(env, pyramid.Parts{"leaf": {App: "leaf", Path: "/"}}), nil
	}}
	leaf := telling("leaf", "1")
	entry := homeApp(pyramid.Parts{"inner": {App: "inner", Path: "/"}})
	h := startHome(t, entry, inner, leaf)
	wantAnswer(t, h.get(t), "", `{"inner":{"leaf":1}}`)
}

func TestTheEndOfAnInstanceWaitsForPartsThatWereLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done atomic.Bool
		entry := homeApp(pyramid.Parts{"slow": {Optional: true, Timeout: time.Second, Func: func(*http.Request) (any, error) {
			time.Sleep(8 * time.Second)
			done.Store(true)
			return 1, nil
		}}})
		rt := watt.New(entry)
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		h := &home{rt: rt}
		wantAnswer(t, h.get(t), "slow;reason=timeout", `{}`)
		if err := rt.Shutdown(t.Context()); err != nil || !done.Load() {
			t.Errorf("got error %v, part done %v", err, done.Load())
		}
	})
}
