package pyramid_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// swallow is the app users, which reads what it gets.
func swallow() watt.App {
	return handling("users", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "1")
	})
}

func TestRequestSizeIsToldWhileTheClientSends(t *testing.T) {
	f := startFront(t, behind(middleware.RequestSize(1000)), swallow())
	resp, body := f.raw(t, "POST /users/ HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("a", 2000))
	wantNotice(t, resp, body, http.StatusRequestEntityTooLarge, "")
	for _, path := range []string{"/users/", "/home/7"} { // the latter does not read it
		if resp := f.do(t, "POST", path, strings.NewReader(strings.Repeat("a", 1000))); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: got %s", path, resp.Status)
		}
	}
}

func TestAnUploadThatStallsIsAnsweredAtTheEndOfChisTimeout(t *testing.T) {
	f := startFront(t, behind(middleware.Timeout(50*time.Millisecond)), swallow())
	resp, body := f.raw(t, "POST /users/ HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegin")
	wantNotice(t, resp, body, http.StatusGatewayTimeout, "users")
}

func TestAComposedAnswerComesBeforeTheEndOfChisTimeout(t *testing.T) {
	f := startFront(t, behind(middleware.Timeout(100*time.Millisecond)), untilEnd("users", make(chan error, 1)))
	resp := f.do(t, "GET", "/home/7", nil)
	if got := all(t, resp); got != "{}" || resp.Header.Get("X-Watt-Partial") != "a;reason=timeout" {
		t.Errorf("got %s %s %v", resp.Status, got, resp.Header)
	}
}

func TestABodyThatNobodyReadsKeepsNoAnswerBack(t *testing.T) {
	t.Parallel()
	long := `"` + strings.Repeat("a", 10_000) + `"`
	for _, target := range []string{"GET /users/", "POST /home/7"} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			f := startFront(t, behind(middleware.NoCache), telling("users", long))
			conn := f.dial(t)
			io.WriteString(conn, target+" HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegin")
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := all(t, resp); !strings.Contains(got, long) || !resp.Close {
				t.Errorf("got %s and %d bytes, closed after them: %t", resp.Status, len(got), resp.Close)
			}
			soon(t, "an idle worker", func() bool { return f.statusOf(t, "gateway").Busy == 0 })
		})
	}
}

// transport is a transport of the user's own.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestWhoseMistakeABodyIsThatCannotBeRead(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		timeout time.Duration
		send    transport
		status  int
	}{
		"the client's": {time.Minute, func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			return nil, broken
		}, http.StatusBadRequest},
		"not once it was closed": {time.Minute, func(r *http.Request) (*http.Response, error) {
			_ = r.Body.Close()
			_, _ = io.Copy(io.Discard, r.Body)
			return nil, broken
		}, http.StatusBadGateway},
		"not when time was up": {50 * time.Millisecond, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			_, _ = io.Copy(io.Discard, r.Body)
			return nil, r.Context().Err()
		}, http.StatusGatewayTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFront(t, serving(func(env *watt.Env) http.Handler {
				p := pyramid.Proxy(env, "users")
				p.Transport = c.send
				return middleware.Timeout(c.timeout)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					r.Body = io.NopCloser(iotest.ErrReader(broken))
					p.ServeHTTP(w, r)
				}))
			}), swallow())
			resp := f.do(t, "POST", "/", strings.NewReader("a"))
			wantNotice(t, resp, all(t, resp), c.status, "users")
		})
	}
}

func TestARequestThatIsRefusedHasItsBodyClosed(t *testing.T) {
	h := newHome(t, pyramid.Parts{"a": {App: "users", Path: "/"}}, swallow())
	body := &closing{Reader: strings.NewReader("a")}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://users.watt.local/../secret", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := pyramid.Proxy(h.rt.Env(), "users").Transport.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	if call, ok := errors.AsType[*watt.CallError](err); !ok || call.Status != http.StatusBadRequest || !body.closed {
		t.Errorf("got %v, closed: %t", err, body.closed)
	}
}

// closing is a body that knows whether it was closed.
type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

func TestOfParametersWithOneNameTheInnermostCounts(t *testing.T) {
	h := startHome(t, watt.App{Name: "home", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		r := chi.NewRouter()
		r.Route("/o/{id}", func(r chi.Router) {
			r.Get("/i/{id}", pyramid.Compose(env, pyramid.Parts{"p": {App: "a", Path: "/{id}"}}))
		})
		return r, nil
	}}, target())
	wantAnswer(t, h.ask(t.Context(), http.MethodGet, "/o/c%2Fd/i/a%2Fb"), "", "{\"p\":\"/a%2Fb?\"\n}")
}

func TestFunctionsMayHandTheirRequestToRouters(t *testing.T) {
	routed := func(param string) pyramid.Part {
		r := chi.NewRouter()
		r.Get("/home/{"+param+"}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, chi.URLParam(r, param)) })
		return pyramid.Part{Func: func(own *http.Request) (any, error) {
			w := httptest.NewRecorder()
			r.ServeHTTP(w, own)
			return json.RawMessage(w.Body.Bytes()), nil
		}}
	}
	h := newHome(t, pyramid.Parts{"a": routed("a"), "b": routed("b"), "c": routed("c")})
	for range 20 {
		wantAnswer(t, h.get(t), "", `{"a":7,"b":7,"c":7}`)
	}
}

func TestAValueThatChiHasDecodedIsNotDecodedAgain(t *testing.T) {
	h := startHome(t, watt.App{Name: "home", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		compose := pyramid.Compose(env, pyramid.Parts{"p": {App: "a", Path: "/{id}"}})
		r := chi.NewRouter()
		r.Use(middleware.StripSlashes)
		r.Get("/home/{x}/{id}", compose)
		r.Route("/o/{id}", func(r chi.Router) { r.Get("/i", compose) })
		return r, nil
	}}, target())
	for path, want := range map[string]string{
		"/home/%41/%2541/": "/%2541?", "/home/%41/%2541": "/%2541?", "/o/%2541%41/i/": "/%2541A?", "/o/%2541%41/i": "/%2541A?",
	} {
		if got := h.ask(t.Context(), http.MethodGet, path); got.body != fmt.Sprintf("{\"p\":%q\n}", want) {
			t.Errorf("%s: got %d %s, want %s", path, got.status, got.body, want)
		}
	}
}

func TestALongComposedAnswerSaysItsLength(t *testing.T) {
	long := `"` + strings.Repeat("a", 100_000) + `"`
	f := startFront(t, behind(middleware.NoCache), telling("users", long))
	resp := f.do(t, "GET", "/home/7", nil)
	if got := all(t, resp); resp.ContentLength != int64(len(got)) || len(got) < len(long) {
		t.Errorf("got length %d, and %d bytes", resp.ContentLength, len(got))
	}
}
