package direct_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// traced is what a caller's trace was told, and on which goroutine.
type traced struct {
	told       []string
	goroutines []string
	refuse     error // what Got1xxResponse returns
}

func (tr *traced) note(format string, args ...any) {
	tr.told = append(tr.told, fmt.Sprintf(format, args...))
	tr.goroutines = append(tr.goroutines, goroutine())
}

// goroutine returns what the runtime calls the current one.
func goroutine() string {
	stack := make([]byte, 64)
	return strings.Join(strings.Fields(string(stack[:runtime.Stack(stack, false)]))[:2], " ")
}

func (tr *traced) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got100Continue: func() { tr.note("continue") },
		Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
			tr.note("%d %v", status, map[string][]string(h))
			return tr.refuse
		},
	})
}

// want fails the test unless the caller was told just that, by itself.
func (tr *traced) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(tr.told, want) {
		t.Errorf("the trace was told %q, want %q", tr.told, want)
	}
	for _, got := range tr.goroutines {
		if want := goroutine(); got != want {
			t.Errorf("the trace was told by %s, want the caller's %s", got, want)
		}
	}
}

func TestInformationalAnswersComeInOrderOnTheCallersGoroutine(t *testing.T) {
	var tr traced
	resp := answer(t, request(t, tr.watch(t.Context()), http.MethodGet, nil), func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Link", "</a>")
		w.WriteHeader(http.StatusEarlyHints)
		h.Set("Link", "</b>")
		w.WriteHeader(http.StatusEarlyHints)
		h.Del("Link")
		w.WriteHeader(http.StatusProcessing)
		w.WriteHeader(199)
		io.WriteString(w, "done")
		w.WriteHeader(http.StatusEarlyHints)
	})
	wantBody(t, resp.Body, "done", nil)
	tr.want(t, "103 map[Link:[</a>]]", "103 map[Link:[</b>]]", "102 map[]", "199 map[]")
	if resp.StatusCode != http.StatusOK || resp.Header["Link"] != nil {
		t.Errorf("got status %d, %v", resp.StatusCode, resp.Header)
	}
}

func TestHeadersOfInformationalAnswersAreTheCallersOwn(t *testing.T) {
	shared := clone(http.Header{"Link": {"</a>"}})
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		h["Link"][0] = "changed"
		h.Add("Link", "more")
		h.Set("X-New", "1")
		return nil
	}})
	resp := answer(t, request(t, ctx, http.MethodGet, nil), func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Link"] = shared["Link"]
		w.WriteHeader(http.StatusEarlyHints)
	})
	if got := resp.Header["Link"]; !slices.Equal(got, []string{"</a>"}) || resp.Header["X-New"] != nil {
		t.Errorf("got %v", resp.Header)
	}
	if !same(shared, http.Header{"Link": {"</a>"}}) || shared["Link"][:2][1] != "" {
		t.Errorf("got %v of the handler's", shared)
	}
}

func TestAnInformationalAnswerSaysNothingOfTheBody(t *testing.T) {
	var tr traced
	resp := answer(t, request(t, tr.watch(t.Context()), http.MethodGet, nil), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "4")
		w.Header().Set("Transfer-Encoding", "identity")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Transfer-Encoding")
		io.WriteString(w, "body")
	})
	wantBody(t, resp.Body, "body", nil)
	tr.want(t, "103 map[]")
}

// watchAll is watch, and looks at the request's way too.
func (tr *traced) watchAll(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(tr.watch(ctx), &httptrace.ClientTrace{
		WroteHeaders:         func() { tr.note("headers") },
		WroteRequest:         func(info httptrace.WroteRequestInfo) { tr.note("request %v", info.Err) },
		GotFirstResponseByte: func() { tr.note("first byte") },
	})
}

func TestTheTraceHearsOfTheRequestAndOfTheAnswersBeginning(t *testing.T) {
	hinting := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusEarlyHints)
	}
	asking := func(req *http.Request) *http.Request { req.Header.Set("Expect", "100-continue"); return req }
	stream := func(r io.Reader, length int64) *http.Request { req, _ := post(t, r, length); return req }
	for name, test := range map[string]struct {
		req     *http.Request
		handler http.HandlerFunc
		want    []string
	}{
		"no body":        {request(t, t.Context(), http.MethodGet, nil), echo, []string{"headers", "request <nil>", "first byte"}},
		"hints":          {request(t, t.Context(), http.MethodGet, nil), hinting, []string{"headers", "request <nil>", "first byte", "103 map[]"}},
		"in memory":      {request(t, t.Context(), http.MethodPost, strings.NewReader("hello")), echo, []string{"headers", "request <nil>", "first byte"}},
		"known length":   {stream(strings.NewReader("hello"), 5), echo, []string{"headers", "request <nil>", "first byte"}},
		"unknown length": {stream(strings.NewReader("hello"), -1), echo, []string{"headers", "request <nil>", "first byte"}},
		"in memory, asked for": {
			asking(request(t, t.Context(), http.MethodPost, strings.NewReader("hello"))), echo,
			[]string{"headers", "first byte", "continue", "100 map[]", "request <nil>"},
		},
		"asked for":  {asking(stream(strings.NewReader("hello"), 5)), echo, []string{"headers", "first byte", "continue", "100 map[]", "request <nil>"}},
		"unread":     {stream(strings.NewReader("hello"), 5), func(http.ResponseWriter, *http.Request) {}, []string{"headers", "first byte"}},
		"a bad body": {stream(iotest.ErrReader(errBody), 5), echo, []string{"headers", "request " + errBody.Error()}},
	} {
		t.Run(name, func(t *testing.T) {
			var tr traced
			resp, err := ask(t, test.req.WithContext(tr.watchAll(t.Context())), test.handler)
			if err == nil {
				resp.Body.Close()
			}
			tr.want(t, test.want...)
		})
	}
}

func TestAnErrorOfTheTraceEndsTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, inform := range map[string]http.HandlerFunc{
			"103": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusEarlyHints) },
			"100": func(_ http.ResponseWriter, r *http.Request) { r.Body.Read(make([]byte, 1)) },
		} {
			tr := traced{refuse: errGivenUp}
			req, body := post(t, strings.NewReader("hello"), 5)
			req.Header.Set("Expect", "100-continue")
			c := newCallee(func(w http.ResponseWriter, r *http.Request) {
				inform(w, r)
				<-r.Context().Done()
				inform(w, r) // to nobody
			})
			if _, err := c.roundTrip(req.WithContext(tr.watch(t.Context())), time.Time{}); err != errGivenUp { //nolint:errorlint // bare
				t.Errorf("%s: got error %v, want the trace's", name, err)
			}
			<-c.returned
			body.closedOnce(t)
			if got := len(tr.told); got > 2 {
				t.Errorf("%s: the trace was told %q", name, tr.told)
			}
		}
	})
}

func TestABodyIsNotTouchedBeforeTheHandlerAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr traced
		req, body := post(t, strings.NewReader("hello"), 5)
		req.Header.Set("Expect", "100-Continue")
		c := newCallee(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			synctest.Wait()
			if got := body.reads.Load(); got != 0 {
				t.Errorf("the body was read %d times", got)
			}
			echo(w, r)
		})
		resp, err := c.roundTrip(req.WithContext(tr.watch(t.Context())), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		wantBody(t, resp.Body, "5 [] hello <nil> 0 EOF", nil)
		tr.want(t, "103 map[]", "continue", "100 map[]")
		body.closedOnce(t)
	})
}

func TestARefusedBodyIsNotRead(t *testing.T) {
	var tr traced
	req, body := post(t, strings.NewReader("hello"), 5)
	req.Header.Set("Expect", "100-continue")
	resp := answer(t, req.WithContext(tr.watch(t.Context())), func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusExpectationFailed)
	})
	body.closedOnce(t)
	tr.want(t)
	if got := body.reads.Load(); got != 0 || resp.StatusCode != http.StatusExpectationFailed {
		t.Errorf("got status %d, and the body was read %d times", resp.StatusCode, got)
	}
}

func TestProceedingIsSaidOnce(t *testing.T) {
	var tr traced
	req, _ := post(t, strings.NewReader("hello"), 5)
	req.Header.Set("Expect", "100-continue")
	resp := answer(t, req.WithContext(tr.watch(t.Context())), func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusContinue)
		echo(w, r)
	})
	wantBody(t, resp.Body, "5 [] hello <nil> 0 EOF", nil)
	tr.want(t, "continue", "100 map[]")
}

func TestProceedingIsNotSaidOnceTheAnswerHasBegun(t *testing.T) {
	var tr traced
	req, _ := post(t, strings.NewReader("hello"), 5)
	req.Header.Set("Expect", "100-continue")
	resp := answer(t, req.WithContext(tr.watch(t.Context())), func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		echo(w, r)
	})
	wantBody(t, resp.Body, "5 [] hello <nil> 0 EOF", nil)
	tr.want(t)
}

func TestProceedingIsNotSaidToThoseWhoDoNotWait(t *testing.T) {
	var tr traced
	answer(t, request(t, tr.watch(t.Context()), http.MethodGet, nil), func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusContinue)
	})
	tr.want(t, "100 map[]")
}

func TestWhoDoesNotExpectToBeAskedIsNot(t *testing.T) {
	var tr traced
	req, _ := post(t, strings.NewReader("hello"), 5)
	wantBody(t, answer(t, req.WithContext(tr.watch(t.Context())), echo).Body, "5 [] hello <nil> 0 EOF", nil)
	tr.want(t)
}

func TestExpectingWithoutATraceIsNoHindrance(t *testing.T) {
	for name, trace := range map[string]*httptrace.ClientTrace{"no trace": nil, "an empty trace": {}} {
		req, _ := post(t, strings.NewReader("hello"), 5)
		if trace != nil {
			req = req.WithContext(httptrace.WithClientTrace(t.Context(), trace))
		}
		req.Header.Set("Expect", "100-continue")
		t.Log(name)
		wantBody(t, answer(t, req, echo).Body, "5 [] hello <nil> 0 EOF", nil)
	}
}

func TestACallerThatDoesNotLookIsNotInformedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCallee(func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.WriteHeader(http.StatusEarlyHints)
			}
		})
		_, err := c.roundTrip(request(t, t.Context(), http.MethodGet, nil), time.Time{})
		if err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want one of too many headers", err)
		}
		<-c.returned
	})
}
