package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/watt"
)

// shop is a shop that runs as main runs it, on a port of its own.
type shop struct {
	t    *testing.T
	url  string
	http *http.Client
	stop func() error // does what Ctrl-C does, and returns what run returns
}

func startShop(t *testing.T, rt *watt.Runtime) *shop {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, rt, w, false)
		_ = w.CloseWithError(err)
		done <- err
	}()
	transport := &http.Transport{}
	s := &shop{t: t, http: &http.Client{Transport: transport, Timeout: time.Minute}}
	s.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("run does not return")
		}
	})
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		transport.CloseIdleConnections()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	_, rest, _ := strings.Cut(line, "http://")
	host, _, _ := strings.Cut(rest, " ")
	s.url = "http://" + host
	return s
}

// newTestShop is newShop with its data in a new directory.
func newTestShop(t *testing.T) *watt.Runtime {
	t.Helper()
	return newShop(config{addr: "127.0.0.1:0", data: t.TempDir()})
}

// answer is an answer that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (s *shop) do(req *http.Request) answer {
	s.t.Helper()
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

func (s *shop) get(path string) answer {
	s.t.Helper()
	return s.do(s.request(http.MethodGet, path, http.NoBody))
}

func (s *shop) post(path string, body io.Reader) answer {
	s.t.Helper()
	return s.do(s.request(http.MethodPost, path, body))
}

func (s *shop) request(method, path string, body io.Reader) *http.Request {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	return req
}

// decode decodes the body of an answer that must be JSON.
func decode[T any](t *testing.T, a answer) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	if !strings.HasSuffix(a.header.Get("Content-Type"), "json") {
		t.Errorf("JSON with Content-Type %q", a.header.Get("Content-Type"))
	}
	return v
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := startShop(t, newTestShop(t))
	for _, test := range []struct {
		path   string
		status int
		body   string // "": whatever
	}{
		{"/users/1", http.StatusOK, `{"id":1,"name":"Ada"}`},
		{"/users/99", http.StatusNotFound, ""},
		{"/users/x", http.StatusNotFound, ""},
		{"/users/-1", http.StatusNotFound, ""},
		{"/users/99999999999999999999", http.StatusNotFound, ""},
		{"/users/1%2F..%2F2", http.StatusBadRequest, ""},
		{"/users", http.StatusNotFound, ""},
		{"/orders?user=1", http.StatusOK, `[{"id":1,"item":"tea","cents":350},{"id":2,"item":"engine, analytical","cents":1700000}]`},
		{"/orders/?user=3", http.StatusOK, `[]`},
		{"/orders?user=99", http.StatusOK, `[]`},
		{"/orders?user=x", http.StatusBadRequest, ""},
		{"/orders?user=1%26user=2", http.StatusBadRequest, ""},
		{"/orders", http.StatusBadRequest, ""},
		{"/home/3", http.StatusOK, `{"orders":[],"pictures":[],"user":{"id":3,"name":"Edsger"}}`},
		{"/home/99", http.StatusNotFound, ""},
		{"/home/x", http.StatusNotFound, ""},
		{"/pictures", http.StatusMethodNotAllowed, ""},
		{"/pictures/1", http.StatusNotFound, ""},
		{"/pictures/1/64", http.StatusNotFound, ""},
		{"/pictures/x/64", http.StatusNotFound, ""},
		{"/pictures/1/x", http.StatusNotFound, ""},
		{"/pictures?user=1", http.StatusMethodNotAllowed, ""},
		{"/", http.StatusNotFound, ""},
	} {
		got := s.get(test.path)
		if body := strings.ReplaceAll(string(got.body), "\n", ""); got.status != test.status || test.body != "" && body != test.body {
			t.Errorf("%s: got %d %s, want %d %s", test.path, got.status, body, test.status, test.body)
		}
	}
}

func TestDataSurvivesARestart(t *testing.T) {
	t.Parallel()
	c := config{addr: "127.0.0.1:0", data: t.TempDir() + "/a directory?with=odd&name%41/below"}
	first := startShop(t, newShop(c))
	saved := first.upload("?user=2", jpegOf(t, 300, 200))
	before := first.get(saved.Thumbnails[0].URL)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}

	second := startShop(t, newShop(c))
	if after := second.get(saved.Thumbnails[0].URL); after.status != http.StatusOK || !bytes.Equal(after.body, before.body) {
		t.Errorf("got %d and %d bytes, want 200 and the same %d bytes", after.status, len(after.body), len(before.body))
	}
	home := decode[struct {
		Orders   []any
		Pictures []picture
	}](t, second.get("/home/2"))
	if len(home.Orders) != 3 || len(home.Pictures) != 1 || home.Pictures[0].ID != saved.ID {
		t.Errorf("got %+v, want three orders and picture %d", home, saved.ID)
	}
	if next := second.upload("", jpegOf(t, 10, 10)); next.ID <= saved.ID {
		t.Errorf("got id %d after %d", next.ID, saved.ID)
	}
}

// TestOverload fills the only worker of resize with an upload that does not end.
func TestOverload(t *testing.T) {
	t.Parallel()
	rt := newTestShop(t)
	if err := rt.Update("resize", func(a *watt.App) { a.Workers, a.Queue = 1, -1 }); err != nil {
		t.Fatal(err)
	}
	s := startShop(t, rt)
	finish := s.blockedUpload(rt)

	got := s.post("/pictures", bytes.NewReader(jpegOf(t, 10, 10)))
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("got %d with Retry-After %q, want 503 with one", got.status, got.header.Get("Retry-After"))
	}
	if got := s.get("/home/1"); got.status != http.StatusOK {
		t.Errorf("/home/1: got %d beside the overload, want 200", got.status)
	}
	if got := finish(); got.status != http.StatusCreated {
		t.Errorf("the first upload: got %d %s, want 201", got.status, got.body)
	}
}

// TestCtrlC ends the shop with an upload in progress, which is finished.
func TestCtrlC(t *testing.T) {
	t.Parallel()
	rt := newTestShop(t)
	s := startShop(t, rt)
	finish := s.blockedUpload(rt)

	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	within(t, 10*time.Second, func() bool { return rt.Ready() != nil })
	if got := finish(); got.status != http.StatusCreated {
		t.Errorf("the upload: got %d %s, want 201", got.status, got.body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

// TestCtrlCAtOnce ends the shop before it has started.
func TestCtrlCAtOnce(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, newTestShop(t), t.Output(), false); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

// blockedUpload sends a part of a picture, waits until a worker of resize has it, and returns what
// sends the rest.
func (s *shop) blockedUpload(rt *watt.Runtime) (finish func() answer) {
	s.t.Helper()
	body, w := io.Pipe()
	s.t.Cleanup(func() { _ = w.Close() })
	picture := jpegOf(s.t, 100, 100)
	req := s.request(http.MethodPost, "/pictures", body)
	answers := make(chan answer, 1)
	go func() {
		defer close(answers)
		resp, err := s.http.Do(req)
		if err != nil {
			s.t.Error(err)
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		answers <- answer{resp.StatusCode, resp.Header, text}
	}()
	if _, err := w.Write(picture[:10]); err != nil {
		s.t.Fatal(err)
	}
	within(s.t, 10*time.Second, func() bool {
		for _, app := range rt.Status() {
			if app.Name == "resize" {
				return app.Busy == 1
			}
		}
		return false
	})
	return func() answer {
		_, _ = w.Write(picture[10:])
		_ = w.Close()
		return <-answers
	}
}

// within waits until what is asked for holds.
func within(t *testing.T, limit time.Duration, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(limit); !holds(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v", limit)
		}
	}
}
