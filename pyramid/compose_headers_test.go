package pyramid_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

// seen asks a composition in an app that listens, and returns the headers that its part was called with.
// The request comes from outside, or from another app.
func seen(t *testing.T, fromMesh bool, headers ...string) http.Header {
	t.Helper()
	got := make(chan http.Header, 1)
	entry := homeApp(pyramid.Parts{"a": {App: "a", Path: "/"}})
	entry.Listen = "127.0.0.1:0"
	between := watt.App{Name: "between", Calls: []string{"home"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://home.watt.local/home/7", http.NoBody)
			req.Header = r.Header.Clone()
			_, err := watt.JSON[any](env.Client.Do(req))
			if err != nil {
				watt.WriteError(w, err)
			}
		}), nil
	}}
	entry.Calls = []string{"a"}
	rt := watt.New(entry, between, handling("a", func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header
		io.WriteString(w, "1")
	}))
	h := watttest.Start(t, rt)
	url, client := h.URL("home")+"/home/7", http.DefaultClient
	if fromMesh {
		url, client = "http://between.watt.local/", rt.Env().Client
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header[headers[i]] = append(req.Header[headers[i]], headers[i+1]) // as it is written
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("got %s", resp.Status)
	}
	return <-got
}

var sent = []string{
	"Authorization", "Bearer x", "Cookie", "a=b", "Accept-Language", "de", "User-Agent", "test", "X-Own", "1", "X-Own", "2",
	"X-Request-Id", "r1", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	"Accept", "text/html", "Accept-Encoding", "br", "Range", "bytes=0-1", "If-None-Match", `"x"`, "If-Modified-Since", "x",
	"Content-Type", "text/plain", "Content-Language", "de", "Te", "trailers", "Keep-Alive", "x", "Proxy-Authorization", "x",
	"Upgrade", "websocket", "Connection", "Upgrade, X-Hop", "X-Hop", "1",
	"Forwarded", "for=1.2.3.4", "X-Forwarded-For", "1.2.3.4", "X-Forwarded-Host", "evil", "X-Real-Ip", "1.2.3.4",
	"X_Forwarded_For", "1.2.3.4", "X_forwarded-Proto", "https", "Content_Type", "x", "X-Watt-User", "7",
}

func wantHeaders(t *testing.T, got http.Header, want ...string) {
	t.Helper()
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, slices.Sorted(slices.Values(want))) {
		t.Errorf("got %q", names)
	}
}

func TestStrangersHeadersThatConcernThePartsArePassedOn(t *testing.T) {
	got := seen(t, false, sent...)
	wantHeaders(t, got, "Authorization", "Cookie", "Accept-Language", "User-Agent", "X-Own", "X-Request-Id", "Traceparent", "Accept",
		"X-Hop") // the door lets strangers name nothing in Connection
	if got.Get("Accept") != "application/json" || strings.Join(got["X-Own"], ",") != "1,2" || got.Get("Authorization") != "Bearer x" {
		t.Errorf("got %v", got)
	}
}

func TestTheMeshesWordIsPassedOn(t *testing.T) {
	got := seen(t, true, "X-Forwarded-For", "1.2.3.4", "Forwarded", "for=1.2.3.4", "X-Real-Ip", "1.2.3.4", "X-Watt-User", "7",
		"Connection", "X-Hop", "X-Hop", "1", "Range", "bytes=0-1", "Content-Language", "de", "Http2-Settings", "x", "Expect", "100-continue")
	wantHeaders(t, got, "Accept", "User-Agent", "X-Forwarded-For", "Forwarded", "X-Real-Ip", "X-Watt-User")
}

func TestIdentityThatAMiddlewareSetsIsPassedInward(t *testing.T) {
	entry := watt.App{Name: "home", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		compose := pyramid.Compose(env, pyramid.Parts{"a": {App: "a", Path: "/"}})
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("X-Watt-User", "7")
			compose(w, r)
		}), nil
	}}
	h := startHome(t, entry, handling("a", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(r.Header["X-Watt-User"])
	}))
	wantAnswer(t, h.get(t), "", "{\"a\":[\"7\"]\n}")
}

func TestAPartCannotChangeWhatAnotherIsSent(t *testing.T) {
	meddling := handling("a", func(w http.ResponseWriter, r *http.Request) {
		before := len(r.Header["X-Mine"])
		r.Header.Add("X-Mine", "1")
		json.NewEncoder(w).Encode(before)
	})
	part := pyramid.Part{App: "a", Path: "/"}
	h := newHome(t, pyramid.Parts{"a": part, "b": part, "c": part}, meddling)
	for range 10 {
		wantAnswer(t, h.get(t), "", "{\"a\":0\n,\"b\":0\n,\"c\":0\n}")
	}
}
