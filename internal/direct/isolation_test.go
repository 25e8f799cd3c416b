package direct_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// clone copies h with room behind its values, as append may leave it.
func clone(h http.Header) http.Header {
	out := make(http.Header)
	for name, values := range h {
		out[name] = append(make([]string, 0, 8), values...)
	}
	return out
}

func same(a, b http.Header) bool {
	return maps.EqualFunc(a, b, slices.Equal)
}

func TestWhatTheHandlerDoesToTheRequestIsItsOwnAffair(t *testing.T) {
	req := request(t, t.Context(), http.MethodPost, strings.NewReader("hello"))
	req.Header = clone(http.Header{"X-Many": {"a", "b"}, "X-One": {"1"}, "User-Agent": {"me"}})
	before, url := req.Header.Clone(), *req.URL
	resp := answer(t, req, func(_ http.ResponseWriter, r *http.Request) {
		r.Header["X-Many"][0] = "changed"
		r.Header.Add("X-Many", "more")
		r.Header.Add("User-Agent", "more")
		r.Header.Set("X-New", "1")
		r.Header.Del("X-One")
		r.URL.Path, r.Host, r.Method, r.ContentLength, r.Body = "/changed", "changed", "PUT", 1, nil
	})
	wantBody(t, resp.Body, "", nil)
	if !same(req.Header, before) {
		t.Errorf("got headers %v, want %v", req.Header, before)
	}
	if got := req.Header["X-Many"][:3][2]; got != "" {
		t.Errorf("got %q behind the caller's values", got)
	}
	if *req.URL != url || req.Host != "callee.test" || req.Method != http.MethodPost || req.ContentLength != 5 || req.Body == nil {
		t.Errorf("got %+v of the caller's request", req)
	}
	if resp.Request != req {
		t.Error("the answer's request is not the caller's")
	}
}

func TestWhatTheCallerDoesToTheRequestAfterTheAnswerIsItsOwnAffair(t *testing.T) {
	changed := make(chan struct{})
	req := request(t, t.Context(), http.MethodGet, nil)
	req.Header = clone(http.Header{"X-Many": {"a", "b"}})
	resp := answer(t, req, func(w http.ResponseWriter, r *http.Request) {
		kept := r.Header["X-Many"]
		flush(w)
		<-changed
		io.WriteString(w, strings.Join(kept, "")+strings.Join(r.Header["X-Many"], "")+r.URL.Path+r.Host+r.Method)
	})
	req.Header["X-Many"][0] = "changed"
	req.Header.Add("X-Many", "more")
	req.URL.Path, req.Host, req.Method = "/changed", "changed", "PUT"
	close(changed)
	wantBody(t, resp.Body, "abab/callee.testGET", nil)
}

func TestHeadersOfTheHandlerDoNotReachTheCallerOnceTheyAreWritten(t *testing.T) {
	for name, test := range map[string]struct {
		flush bool
		write string
	}{"whole": {}, "whole with bytes": {write: "some"}, "flushed": {flush: true}, "streamed": {write: text(10 << 10)}} {
		t.Run(name, func(t *testing.T) {
			gate, done := make(chan struct{}), make(chan struct{})
			values := append(make([]string, 0, 8), "a", "b")
			change := func(h http.Header) {
				values[0], values = "changed", append(values, "more")
				h.Set("X-New", "1")
				h.Add("X-Many", "more")
				h.Del("X-One")
			}
			resp := get(t, func(w http.ResponseWriter, _ *http.Request) {
				h := w.Header()
				h["X-Many"], h["X-One"], h["Content-Type"] = values, []string{"1"}, []string{"text/plain"}
				w.WriteHeader(http.StatusOK)
				change(h)
				if test.flush {
					flush(w)
				}
				io.WriteString(w, test.write)
				go func() {
					defer close(done)
					<-gate
					values[0] = "again"
					change(h)
				}()
			})
			wantBody(t, resp.Body, test.write, nil) // and with that the handler has returned
			close(gate)
			for _, want := range [][]string{{"X-Many", "a", "b"}, {"X-One", "1"}, {"X-New"}} {
				if got := resp.Header[want[0]]; !slices.Equal(got, want[1:]) {
					t.Errorf("got %s: %q, want %q", want[0], got, want[1:])
				}
			}
			<-done
			if got := resp.Header["X-Many"]; !slices.Equal(got, []string{"a", "b"}) {
				t.Errorf("got X-Many: %q after the handler, want what was written", got)
			}
		})
	}
}

func TestWhatTheCallerDoesToTheAnswerIsItsOwnAffair(t *testing.T) {
	shared := clone(http.Header{"X-Many": {"a", "b"}, "X-One": {"1"}, "Content-Type": {"text/plain"}, "X-Trailer": {"t"}})
	before := shared.Clone()
	for range 2 {
		resp := get(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Trailer"] = []string{"X-Trailer"}
			maps.Copy(w.Header(), shared)
			flush(w)
		})
		wantBody(t, resp.Body, "", nil)
		if got := resp.Trailer["X-Trailer"]; !slices.Equal(got, []string{"t"}) {
			t.Errorf("got the trailer %q", got)
		}
		for _, h := range []http.Header{resp.Header, resp.Trailer} {
			for name := range h {
				h[name][0] = "changed"
				h.Add(name, "more")
			}
		}
	}
	if !same(shared, before) {
		t.Errorf("got %v, want %v", shared, before)
	}
	if got := shared["X-Many"][:3][2]; got != "" {
		t.Errorf("got %q behind the handler's values", got)
	}
}

func TestValuesOfOneMessageDoNotGrowIntoEachOther(t *testing.T) {
	name := func(i int) string { return "X-" + strconv.Itoa(i) }
	twenty := func(h http.Header) {
		for i := range 20 {
			h[name(i)] = []string{"a"}
		}
	}
	grow := func(h http.Header) {
		for i := range 20 {
			h.Add(name(i), "mine")
		}
		for i := range 20 {
			if got := h[name(i)]; !slices.Equal(got, []string{"a", "mine"}) {
				t.Errorf("got %q", got)
			}
		}
	}
	req := request(t, t.Context(), http.MethodGet, nil)
	twenty(req.Header)
	resp := answer(t, req, func(w http.ResponseWriter, r *http.Request) {
		grow(r.Header)
		twenty(w.Header())
	})
	grow(resp.Header)
}

// The race detector must find nothing to say about what a handler leaves behind.
func TestWhatIsWrittenAfterTheHandlerReachesNobody(t *testing.T) {
	for name, size := range map[string]int{"nothing before": 0, "a whole answer": 100, "a streamed one": 10 << 10} {
		t.Run(name, func(t *testing.T) {
			gate, done := make(chan struct{}), make(chan struct{})
			resp := get(t, func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, text(size))
				go func() {
					defer close(done)
					<-gate
					for _, size := range []int{0, 1, 2048, 10 << 10} {
						if n, err := w.Write([]byte(text(size))); n != 0 || err == nil {
							t.Errorf("got %d and no error from a Write of %d bytes", n, size)
						}
						if n, err := io.WriteString(w, text(size)); n != 0 || err == nil {
							t.Errorf("got %d and no error from a WriteString of %d bytes", n, size)
						}
					}
					if n, err := io.Copy(w, strings.NewReader("more")); n != 0 || err == nil {
						t.Errorf("got %d and no error from ReadFrom", n)
					}
					if flush(w) == nil {
						t.Error("got no error from Flush")
					}
					w.WriteHeader(http.StatusEarlyHints)
					w.WriteHeader(http.StatusTeapot)
				}()
			})
			if size > 2048 { // its end comes after the handler's
				wantBody(t, resp.Body, text(size), nil)
			}
			close(gate)
			<-done
			if size <= 2048 {
				wantBody(t, resp.Body, text(size), nil)
			}
			if resp.StatusCode != http.StatusOK {
				t.Errorf("got status %d", resp.StatusCode)
			}
		})
	}
}

func TestAGoroutineThatNeverCeasesToWriteDoesNotSpoilTheAnswer(t *testing.T) {
	for name, size := range map[string]int{"whole": 0, "streamed": 10 << 10} {
		t.Run(name, func(t *testing.T) {
			ceased := make(chan struct{})
			resp := get(t, func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, text(size))
				go func() {
					defer close(ceased)
					p := []byte("x")
					for {
						if _, err := w.Write(p); err != nil {
							return
						}
					}
				}()
			})
			got, err := io.ReadAll(resp.Body)
			if err != nil || strings.Trim(strings.TrimPrefix(string(got), text(size)), "x") != "" {
				t.Errorf("got %d bytes, %.100q, %v", len(got), got, err)
			}
			<-ceased
		})
	}
}

func TestAHandlerMayReuseItsBuffer(t *testing.T) {
	for _, size := range []int{1, 100, 2048, 2049, 5000, 100 << 10} {
		resp := get(t, func(w http.ResponseWriter, _ *http.Request) {
			p := make([]byte, size)
			for i := range 20 {
				for j := range p {
					p[j] = 'a' + byte(i)
				}
				if n, err := w.Write(p); n != size || err != nil {
					t.Errorf("got %d, %v", n, err)
				}
			}
			clear(p)
		})
		var want strings.Builder
		for i := range 20 {
			want.WriteString(strings.Repeat(string(rune('a'+i)), size))
		}
		wantBody(t, resp.Body, want.String(), nil)
	}
}

// A caller owns its bytes again once it has closed the answer; with -race, each touch after that is seen.
func TestAnswersGiveTheCallerItsBytesBack(t *testing.T) {
	for range 50 {
		content := bytes.Repeat([]byte("x"), 8<<10)
		ceased := make(chan error, 1)
		resp := answer(t, request(t, t.Context(), http.MethodPost, bytes.NewReader(content)), func(_ http.ResponseWriter, r *http.Request) {
			begun := make(chan struct{})
			go func() {
				p := make([]byte, 1)
				_, err := r.Body.Read(p)
				close(begun)
				for err == nil {
					_, err = r.Body.Read(p)
				}
				ceased <- err
			}()
			<-begun
		})
		resp.Body.Close()
		for i := range content {
			content[i] = 'y'
		}
		if err := <-ceased; err != io.EOF && !errors.Is(err, http.ErrBodyReadAfterClose) { //nolint:errorlint // Read returns it bare
			t.Fatalf("got error %v", err)
		}
	}
}

func TestTheRequestCannotBeReadAfterTheHandler(t *testing.T) {
	for name, body := range map[string]io.Reader{"in memory": strings.NewReader(text(100)), "stream": io.MultiReader(strings.NewReader(text(100)))} {
		for _, before := range []int64{0, 10, 100} {
			t.Run(name+" after "+strconv.FormatInt(before, 10), func(t *testing.T) {
				req := request(t, t.Context(), http.MethodPost, body)
				if req.ContentLength == 0 {
					req.ContentLength = -1
				}
				var kept io.ReadCloser
				c := newCallee(func(_ http.ResponseWriter, r *http.Request) {
					kept = r.Body
					io.CopyN(io.Discard, r.Body, before)
				})
				tracked := track(req.Body)
				if name == "stream" {
					req.Body = tracked
				}
				resp, err := c.roundTrip(req, time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if n, err := kept.Read(make([]byte, 10)); n != 0 || !errors.Is(err, http.ErrBodyReadAfterClose) {
					t.Errorf("got %d, %v, want %v", n, err, http.ErrBodyReadAfterClose)
				}
				kept.Close()
				if name == "stream" {
					tracked.closedOnce(t)
				}
			})
		}
	}
}
