package openapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
	"github.com/org/watt/openapi"
	"github.com/org/watt/watttest"
)

// small is a document with one path.
func small() string { return api("3.1.0", `"paths":{"/x":{}}`) }

// handling is an app with a handler.
func handling(name string, h http.HandlerFunc) watt.App { return watt.App{Name: name, Handler: h} }

// front starts a gateway over apps, all of which have documents, in a bubble or not.
func front(t *testing.T, d openapi.Document, apps ...watt.App) (*watttest.Topology, *observer.ObservedLogs) {
	t.Helper()
	for _, app := range apps {
		d.Apps = append(d.Apps, openapi.App{Name: app.Name})
	}
	rt := watt.New(gateway(d, apps...)...)
	core, logs := observer.New(zapcore.WarnLevel)
	rt.Logger = zap.New(core)
	return watttest.Start(t, rt), logs
}

func TestItIsAnsweredAsAFileIs(t *testing.T) {
	rt := watt.New(gateway(openapi.Document{Title: "The <API>", Version: "2", Description: "All.", Apps: []openapi.App{{Name: "a"}}},
		serving("a", small()))...)
	watttest.Start(t, rt)
	do := func(method, match string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://gateway.watt.local/openapi.json", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("If-None-Match", match)
		resp, err := rt.Env().Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	first := do(http.MethodGet, "")
	body, err := io.ReadAll(first.Body)
	want := `{"openapi":"3.1.0","info":{"description":"All.","title":"The \u003cAPI\u003e","version":"2"},` +
		`"tags":[{"description":"Title","name":"a"}],"paths":{"/a/x":{}}}`
	if string(body) != want || err != nil {
		t.Errorf("got %s and %v, want %s", body, err, want)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"} {
		if got := first.Header.Get(name); got != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
	tag := first.Header.Get("ETag")
	if again := do(http.MethodGet, tag); tag == "" || again.StatusCode != http.StatusNotModified {
		t.Errorf("got %s for the ETag %q, want 304", again.Status, tag)
	}
	if head := do(http.MethodHead, ""); head.StatusCode != http.StatusOK || head.ContentLength != int64(len(body)) {
		t.Errorf("HEAD: got %s with length %d, want 200 with %d", head.Status, head.ContentLength, len(body))
	}
	if post := do(http.MethodPost, ""); post.StatusCode != http.StatusMethodNotAllowed || post.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: got %s, Allow %q; want 405", post.Status, post.Header.Get("Allow"))
	}
}

func TestManyRequestsAskAnAppOnceUntilTheDocumentIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		top, _ := front(t, openapi.Document{}, handling("a", func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Second)
			fmt.Fprint(w, api("3.1.0", fmt.Sprintf(`"paths":{"/%d":{}}`, asked.Add(1))))
		}))
		all := func(want string) {
			var requests sync.WaitGroup
			for range 50 {
				requests.Go(func() {
					if _, body := top.Get("http://gateway.watt.local/"); !strings.Contains(body, want) {
						t.Errorf("got %s, want %s", body, want)
					}
				})
			}
			requests.Wait()
		}
		all(`"/a/1"`)
		time.Sleep(59 * time.Second)
		all(`"/a/1"`)
		time.Sleep(2 * time.Second)
		go top.Get("http://gateway.watt.local/") // which waits for the next one
		synctest.Wait()
		began := time.Now()
		all(`"/a/1"`)
		if took := time.Since(began); took != 0 {
			t.Errorf("with one at hand it took %v, want no time", took)
		}
		time.Sleep(2 * time.Second)
		all(`"/a/2"`)
		if got := asked.Load(); got != 2 {
			t.Errorf("got %d calls, want 2", got)
		}
	})
}

func TestAClientThatGoesAwayDoesNotTakeTheDocumentAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		rt := watt.New(gateway(openapi.Document{Apps: []openapi.App{{Name: "a"}}}, handling("a", func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			select {
			case <-time.After(2 * time.Second):
				_, _ = io.WriteString(w, small())
			case <-r.Context().Done():
			}
		}))...)
		top := watttest.Start(t, rt)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if resp, err := rt.Env().Get(ctx, "http://gateway.watt.local/"); err == nil {
			resp.Body.Close()
			t.Errorf("got %s within a second, want none", resp.Status)
		}
		if doc := ask(t, top); doc.missing() != "" || doc.at("/paths/~1a~1x") != "{}" {
			t.Errorf("got %v, want all of it", doc)
		}
		if took := time.Since(began); took != 2*time.Second || asked.Load() != 1 {
			t.Errorf("it took %v and %d calls, want 2s and one", took, asked.Load())
		}
	})
}

func TestAnAppThatIsAwayIsMissingUntilItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var state atomic.Value
		state.Store("hangs")
		top, logs := front(t, openapi.Document{MaxAge: time.Second}, serving("a", small()), handling("b", func(w http.ResponseWriter, r *http.Request) {
			switch state.Load() {
			case "hangs":
				<-r.Context().Done()
			case "breaks off":
				_, _ = io.WriteString(w, small()[:20])
				panic(http.ErrAbortHandler)
			case "fails":
				http.Error(w, "secret", http.StatusInternalServerError)
			case "has none":
				http.NotFound(w, r)
			case "sends elsewhere":
				http.Redirect(w, r, "http://a.watt.local/openapi.json", http.StatusFound)
			case "does not end":
				for r.Context().Err() == nil {
					_, _ = io.WriteString(w, strings.Repeat(" ", 100000))
				}
			default:
				_, _ = io.WriteString(w, small())
			}
		}), serving("c", small()))
		for _, test := range [][2]string{
			{"hangs", "b: no-answer"},
			{"breaks off", "b: no-answer"},
			{"fails", "b: no-document"},
			{"has none", "b: no-document"},
			{"sends elsewhere", "b: no-document"},
			{"does not end", "b: too-large"},
			{"is back", ""},
		} {
			state.Store(test[0])
			began := time.Now()
			doc := ask(t, top)
			if took, want := time.Since(began), 5*time.Second; test[0] == "hangs" && took != want {
				t.Errorf("it took %v, want %v", took, want)
			}
			if got := doc.missing(); got != test[1] {
				t.Errorf("%s: got %q, want %q", test[0], got, test[1])
			}
			if doc.at("/paths/~1a~1x") != "{}" || doc.at("/paths/~1c~1x") != "{}" {
				t.Errorf("%s: got %v without the others", test[0], doc)
			}
			time.Sleep(time.Second)
		}
		top.Fail("gateway", "b", watt.ErrUnavailable)
		if got := ask(t, top).missing(); got != "b: no-answer" {
			t.Errorf("got %q", got)
		}
		var got []string
		for _, line := range logs.FilterMessage("app is left out of the OpenAPI document").All() {
			got = append(got, fmt.Sprint(line.ContextMap()["callee"], " ", line.ContextMap()["reason"]))
		}
		if want := "b no-answer, b no-document, b too-large, b no-answer"; strings.Join(got, ", ") != want {
			t.Errorf("got the lines %q, want one for each change: %s", got, want)
		}
	})
}

func TestAnAppsPlaceCanBeToldAndSoCanADocument(t *testing.T) {
	own := []byte("openapi: 3.0.0\ninfo: {title: Own, version: '1'}\npaths: {/home: {}}")
	d := openapi.Document{Apps: []openapi.App{
		{Name: "a", Path: "/docs/api.yaml?full=1", Prefix: "/~v1/users/"},
		{Name: "own", Prefix: "/", Data: own},
	}}
	top := watttest.Start(t, watt.New(gateway(d, handling("a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.String() == "/docs/api.yaml?full=1" {
			_, _ = io.WriteString(w, api("3.1.0", `"paths":{"/x":{},"/y":{"$ref":"#/paths/~1x"}}`))
		}
	}))...))
	clear(own) // it may be changed afterwards
	ask(t, top).want(t, map[string]string{
		"/x-watt-missing": "",
		"/paths":          `{"/home":{},"/~v1/users/x":{},"/~v1/users/y":{"$ref":"#/paths/~1~0v1~1users~1x"}}`,
	})
}

// A proxy says for whom it asks. So an app can keep its document from strangers.
func TestAnAppIsNotAskedForAStranger(t *testing.T) {
	asked := make(chan http.Header, 1)
	apps := gateway(openapi.Document{Apps: []openapi.App{{Name: "a"}}}, handling("a", func(_ http.ResponseWriter, r *http.Request) { asked <- r.Header }))
	apps[0].Listen = "127.0.0.1:0"
	top := watttest.Start(t, watt.New(apps...))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, top.URL("gateway"), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"203.0.113.7"}, "Authorization": {"Bearer x"}}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for name := range <-asked {
		if strings.HasPrefix(name, "X-Forwarded-") || name == "Authorization" {
			t.Errorf("it was told the client's %s", name)
		}
	}
}

func TestJSONIsWhatIsServed(t *testing.T) {
	rt := watt.New(serving("a", small()))
	watttest.Start(t, rt)
	h := openapi.New(rt.Env(), openapi.Document{Apps: []openapi.App{{Name: "a"}}})
	text, err := h.JSON(t.Context())
	if err != nil || valid(t, string(text)).at("/paths/~1a~1x") != "{}" {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestWhoWaitsForTheFirstDocumentWaitsAsLongAsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(handling("a", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		watttest.Start(t, rt)
		h := openapi.New(rt.Env(), openapi.Document{Apps: []openapi.App{{Name: "a"}}})
		first := make(chan string)
		go func() {
			text, err := h.JSON(t.Context())
			first <- fmt.Sprint(strings.Contains(string(text), `"no-answer"`), err)
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if text, err := h.JSON(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %s, %v; want a deadline exceeded", text, err)
		}
		if got, want := <-first, "true <nil>"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestMistakesAreErrorsOfTheStartAndComeTogether(t *testing.T) {
	apps := gateway(openapi.Document{MaxAge: -1, Apps: []openapi.App{
		{Name: "a", Path: "x"}, {Name: "a", Path: "/%", Prefix: "/{x}"}, {Name: "A", Prefix: "x"}, {Name: "b"}, {Name: "other"},
	}}, serving("a", small()))
	rt := watt.New(append(apps, serving("other", small()))...)
	err := rt.Start(t.Context())
	if err == nil {
		t.Fatal("got no error", rt.Shutdown(context.Background()))
	}
	for _, want := range []string{
		"openapi: New: ", "cannot be negative", "no such app", `add "other" to Calls`, `app "a" is there twice`,
		`"A" is not the name of an app`, `Path "x" is not a path`, `Path "/%" is not a path`, `Prefix "/{x}" is not a path`,
		`Prefix "x" is not a path`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q in it", err, want)
		}
	}
}

func TestNoAppsAndNoEnvAreMistakes(t *testing.T) {
	for want, env := range map[string]*watt.Env{"there are no apps": watt.New().Env(), "env is nil": nil} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
					t.Errorf("got %q, want %q in it", got, want)
				}
			}()
			openapi.New(env, openapi.Document{})
		}()
	}
}
