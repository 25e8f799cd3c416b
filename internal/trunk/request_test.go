package trunk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/roundtrip"
	"github.com/org/watt/internal/trunk"
)

func TestARequestArrivesAsItWasMade(t *testing.T) {
	calls := make(chan *incoming, 1)
	client, _ := serve(t, pair, func(c *incoming) {
		calls <- c
		whole(c, "")
	})
	for name, change := range map[string]func(*http.Request) *http.Request{
		"plain":     func(r *http.Request) *http.Request { return r },
		"of a host": func(r *http.Request) *http.Request { r.Host = "another:80"; return r },
		"with a target": func(r *http.Request) *http.Request {
			r.URL.Path, r.URL.RawQuery = "/a b/ö", "q=1&q=%20"
			return r
		},
		"with headers": func(r *http.Request) *http.Request {
			r.Header["A"], r.Header["B"], r.Header["C"] = []string{"1", "", "3"}, []string{"2"}, nil
			return r
		},
		"that is to name no agent": func(r *http.Request) *http.Request {
			r.Header["User-Agent"] = nil
			return r
		},
		"with a deadline": func(r *http.Request) *http.Request {
			ctx, cancel := context.WithTimeout(r.Context(), time.Hour)
			t.Cleanup(cancel)
			return r.WithContext(ctx)
		},
		"that wants to hear": func(r *http.Request) *http.Request {
			return r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(int, textproto.MIMEHeader) error { return nil },
			}))
		},
		"with a body":        func(*http.Request) *http.Request { return request(t, t.Context(), http.MethodPut, "content") },
		"with an empty body": func(r *http.Request) *http.Request { r.Body = io.NopCloser(strings.NewReader("")); return r },
		"with a long body": func(*http.Request) *http.Request {
			return request(t, t.Context(), http.MethodPost, strings.Repeat("x", 16<<10))
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := change(request(t, t.Context(), http.MethodGet, ""))
			if !trunk.Takes(req) {
				t.Fatal("a trunk does not take it")
			}
			want := describe(req, req.URL.RequestURI())
			var sent []byte
			if req.GetBody != nil {
				body, _ := req.GetBody()
				sent, _ = io.ReadAll(body)
			}
			deadline, _ := req.Context().Deadline()
			trace := httptrace.ContextClientTrace(req.Context())
			resp, err := client.RoundTrip(req, time.Time{})
			readAll(t, resp, err)
			got := <-calls
			var content []byte
			if got.Request.Body != nil {
				content, _ = io.ReadAll(got.Request.Body)
			}
			if got := describe(got.Request, got.Request.URL.RequestURI()); got != want {
				t.Errorf("got %s\nwant %s", got, want)
			}
			if string(content) != string(sent) || (req.Body != nil) != (got.Request.Body != nil) {
				t.Errorf("got a body of %d bytes, want %d", len(content), len(sent))
			}
			if off := got.Deadline.Sub(deadline).Abs(); off > time.Minute || got.Deadline.IsZero() != deadline.IsZero() {
				t.Errorf("got the deadline %v, want %v", got.Deadline, deadline)
			}
			if want := trace != nil; got.Informs != want {
				t.Errorf("Informs is %v, want %v", got.Informs, want)
			}
		})
	}
}

// describe describes what both sides of a request see of it.
func describe(r *http.Request, uri string) string {
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	h := maps.Clone(r.Header)
	maps.DeleteFunc(h, func(name string, values []string) bool { return len(values) == 0 && name != "User-Agent" })
	return fmt.Sprint(r.Method, " ", host, " ", uri, " ", h, " ", r.ContentLength)
}

// TestValuesOfOneMessageDoNotGrowIntoEachOther has both sides add to each header that has come.
func TestValuesOfOneMessageDoNotGrowIntoEachOther(t *testing.T) {
	const many = 20
	fill := func(h http.Header) {
		for i := range many {
			h["X-"+strconv.Itoa(i)] = []string{"a"}
		}
	}
	grow := func(h http.Header) {
		for i := range many {
			h.Add("X-"+strconv.Itoa(i), "mine")
		}
		for name, values := range h {
			if !slices.Equal(values, []string{"a", "mine"}) {
				t.Errorf("%s: got %q", name, values)
			}
		}
	}
	client, _ := serve(t, pair, func(c *incoming) {
		grow(c.Request.Header)
		resp := response()
		fill(resp.Header)
		c.Answer(resp, nil, true, nil)
	})
	req := request(t, t.Context(), http.MethodGet, "")
	fill(req.Header)
	resp, err := client.RoundTrip(req, time.Time{})
	readAll(t, resp, err)
	grow(resp.Header)
}

func TestATrunkTakesShortBodiesThatAreInMemory(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*http.Request)
		want   bool
	}{
		"none":              {func(r *http.Request) { r.Body, r.ContentLength = nil, 0 }, true},
		"short":             {func(*http.Request) {}, true},
		"too long":          {func(r *http.Request) { *r = *request(t, t.Context(), "POST", strings.Repeat("x", 16<<10+1)) }, false},
		"not in memory":     {func(r *http.Request) { r.Body = struct{ io.ReadCloser }{r.Body} }, false},
		"of another length": {func(r *http.Request) { r.ContentLength++ }, false},
		"missing":           {func(r *http.Request) { r.Body = nil }, false},
		"asked for":         {func(r *http.Request) { r.Header.Set("Expect", "100-continue") }, false},
	} {
		req := request(t, t.Context(), http.MethodPost, "content")
		test.change(req)
		if got := trunk.Takes(req); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// closing is a body that tells how often it was closed.
type closing struct {
	io.Reader
	closed int
}

func (c *closing) Close() error { c.closed++; return nil }

func TestTheBodyOfARequestIsClosedWhateverBecomesOfIt(t *testing.T) {
	client, _ := serve(t, pair, func(c *incoming) { whole(c, "") })
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx    context.Context
		client *trunk.Client
		length int64
	}{
		"it is answered":         {t.Context(), client, 7},
		"its context has ended":  {over, client, 7},
		"it cannot be read":      {t.Context(), client, 8},
		"there is no connection": {t.Context(), script(t, pair), 7},
	} {
		body := &closing{Reader: strings.NewReader("content")}
		req := request(t, test.ctx, http.MethodPost, "")
		req.Body, req.ContentLength = body, test.length
		if resp, err := test.client.RoundTrip(req, time.Time{}); err == nil {
			resp.Body.Close()
		}
		if body.closed != 1 {
			t.Errorf("%s: the body was closed %d times, want once", name, body.closed)
		}
	}
	if got := get(t, client); got != "" {
		t.Errorf("got %q afterwards", got)
	}
}

func TestTheCallerIsToldWhatItsTraceWantsToHear(t *testing.T) {
	client, _ := serve(t, pair, func(c *incoming) {
		for i := range 3 {
			c.Inform(http.StatusEarlyHints, http.Header{"Link": {strconv.Itoa(i)}})
		}
		whole(c, "answer")
	})
	var heard []string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		WroteHeaders: func() { heard = append(heard, "wrote") },
		WroteRequest: func(i httptrace.WroteRequestInfo) { heard = append(heard, fmt.Sprint("all ", i.Err)) },
		Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
			heard = append(heard, fmt.Sprint(status, h))
			return nil
		},
		GotFirstResponseByte: func() { heard = append(heard, "got") },
	})
	resp, err := client.RoundTrip(request(t, ctx, http.MethodGet, ""), time.Time{})
	if got := readAll(t, resp, err); got != "answer" {
		t.Errorf("got %q", got)
	}
	want := []string{"wrote", "all <nil>", "got", "103 map[Link:[0]]", "103 map[Link:[1]]", "103 map[Link:[2]]"}
	if !slices.Equal(heard, want) {
		t.Errorf("got %q\nwant %q", heard, want)
	}
}

func TestAnErrorOrAPanicOfTheTraceEndsTheCall(t *testing.T) {
	left := make(chan struct{}, 1)
	client, _ := serve(t, pair, func(c *incoming) {
		done := gone(c)
		c.Inform(http.StatusEarlyHints, http.Header{})
		<-done
		left <- struct{}{}
	})
	errTrace := errors.New("enough")
	for _, reason := range []any{nil, "a panic"} {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error {
				if reason != nil {
					panic(reason)
				}
				return errTrace
			},
		})
		func() {
			defer func() {
				if got := recover(); got != reason {
					t.Errorf("got panic %v, want %v", got, reason)
				}
			}()
			if _, err := client.RoundTrip(request(t, ctx, http.MethodGet, ""), time.Time{}); !errors.Is(err, errTrace) {
				t.Errorf("got error %v, want the trace's", err)
			}
		}()
		<-left
	}
}

func TestInformingIsBoundedByWhatNobodyHasHeard(t *testing.T) {
	const each = 64 << 10
	inform := func(c *incoming) {
		c.Inform(http.StatusEarlyHints, http.Header{"Link": {strings.Repeat("x", each)}})
	}
	t.Run("heard", func(t *testing.T) {
		heard := make(chan struct{})
		client, _ := serve(t, pair, func(c *incoming) {
			for range 4 * roundtrip.MaxHeader / each {
				inform(c)
				<-heard
			}
			whole(c, "answer")
		})
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error { heard <- struct{}{}; return nil },
		})
		resp, err := client.RoundTrip(request(t, ctx, http.MethodGet, ""), time.Time{})
		if got := readAll(t, resp, err); got != "answer" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("unheard", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, _ := serve(t, pipes, func(c *incoming) {
				for range 2 * roundtrip.MaxHeader / each {
					inform(c)
				}
				whole(c, "answer")
			})
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(int, textproto.MIMEHeader) error { time.Sleep(time.Hour); return nil },
			})
			if _, err := client.RoundTrip(request(t, ctx, http.MethodGet, ""), time.Time{}); !errors.Is(err, roundtrip.ErrHeaderTooLong) {
				t.Errorf("got error %v, want %v", err, roundtrip.ErrHeaderTooLong)
			}
		})
	})
}
