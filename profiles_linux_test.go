package watt_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// profileOf asks a runtime for a profile.
func profileOf(t *testing.T, rt *watt.Runtime, path string) (status int, body string) {
	t.Helper()
	recorder := httptest.NewRecorder()
	h := http.StripPrefix("/debug/pprof", rt.Profiles())
	h.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/debug/pprof"+path, http.NoBody))
	return recorder.Code, recorder.Body.String()
}

func TestProfilesOfThisProcessAndOfOthers(t *testing.T) {
	rt := pair()
	top := watttest.Start(t, rt)
	conn := dialPair(t, top, "1")
	reading(t, conn)
	soon(t, "a busy worker", func() bool { return statusOf(t, rt, "pair").Busy == 1 })
	for _, test := range []struct {
		path   string
		status int
		has    string
	}{
		{"/", http.StatusOK, "\ngoroutine\n"},
		{"/goroutine?debug=1", http.StatusOK, "goroutine profile: "},
		{"/heap?gc=1", http.StatusOK, "\x1f\x8b"},
		{"/trace?seconds=1", http.StatusOK, "go 1."},
		{"/nothing", http.StatusNotFound, ""},
		{"/heap?debug=x", http.StatusBadRequest, ""},
		{"/profile?seconds=0", http.StatusBadRequest, ""},
		{"/profile?seconds=1000", http.StatusBadRequest, ""},
		{"/pair/1/", http.StatusOK, "\ngoroutine\n"},
		{"/pair/1", http.StatusOK, "\ngoroutine\n"},
		{"/pair/1/goroutine?debug=1", http.StatusOK, `"app":"pair", "instance":"1"`},
		{"/pair/1/profile?seconds=1", http.StatusOK, "\x1f\x8b"},
		{"/pair/1/nothing", http.StatusNotFound, ""},
		{"/pair/1/../0/heap", http.StatusNotFound, ""},
		{"/pair/2/heap", http.StatusNotFound, ""},
		{"/pair/-1/heap", http.StatusNotFound, ""},
		{"/pair/x/heap", http.StatusNotFound, ""},
		{"/gate/0/heap", http.StatusNotFound, "no process of its own"},
		{"/nobody/0/heap", http.StatusNotFound, ""},
	} {
		if test.path == "/pair/1/../0/heap" { // ServeMux redirects to the clean path
			test.status = http.StatusTemporaryRedirect
		}
		status, body := profileOf(t, rt, test.path)
		if status != test.status || !strings.Contains(body, test.has) {
			t.Errorf("%s: got %d %.300q, want %d and %q in it", test.path, status, body, test.status, test.has)
		}
	}
	io.WriteString(conn, "x")
	answered(t, conn)
}

func TestAProfileMayTakeLongerThanTheServersWriteTimeout(t *testing.T) {
	rt := pair()
	watttest.Start(t, rt)
	server := httptest.NewUnstartedServer(rt.Profiles())
	server.Config.WriteTimeout = 100 * time.Millisecond
	server.Start()
	defer server.Close()
	for _, path := range []string{"/trace?seconds=1", "/pair/1/trace?seconds=1"} {
		resp, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || len(body) == 0 {
			t.Errorf("%s: got %d, %d bytes, %v", path, resp.StatusCode, len(body), err)
		}
	}
}

func TestThereIsOneCPUProfileAtATime(t *testing.T) {
	rt := watt.New(watt.App{Name: "idle", Handler: http.NotFoundHandler()})
	ctx, leave := context.WithCancel(t.Context())
	first := make(chan int, 1)
	go func() {
		recorder := httptest.NewRecorder()
		for recorder.Code = http.StatusConflict; recorder.Code == http.StatusConflict; { // those below may be first
			recorder = httptest.NewRecorder()
			rt.Profiles().ServeHTTP(recorder, httptest.NewRequestWithContext(ctx, http.MethodGet, "/profile?seconds=60", http.NoBody))
		}
		first <- recorder.Code
	}()
	soon(t, "the first to record", func() bool {
		if pprof.StartCPUProfile(io.Discard) != nil {
			return true
		}
		pprof.StopCPUProfile()
		return false
	})
	if status, _ := profileOf(t, rt, "/profile?seconds=1"); status != http.StatusConflict {
		t.Errorf("got %d beside another, want 409", status)
	}
	leave() // and it ends with its client
	select {
	case status := <-first:
		if status != http.StatusOK {
			t.Errorf("got %d", status)
		}
	case <-time.After(10 * time.Second):
		t.Error("a profile goes on without its client")
	}
}
