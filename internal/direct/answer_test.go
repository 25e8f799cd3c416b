package direct_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"
)

func TestShortAnswersSayTheirLength(t *testing.T) {
	for _, size := range []int{0, 1, 100, 2047, 2048, 2049, 4096, 100 << 10} {
		for name, handler := range map[string]http.HandlerFunc{
			"at once":            func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(text(size))) },
			"as a string":        func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text(size)) },
			"copied":             func(w http.ResponseWriter, _ *http.Request) { io.Copy(w, strings.NewReader(text(size))) },
			"one byte at a time": func(w http.ResponseWriter, _ *http.Request) { writeBytes(w, size) },
		} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				resp := get(t, handler)
				length, said := int64(size), []string{strconv.Itoa(size)}
				var coding []string
				if size > 2048 {
					length, said, coding = -1, nil, []string{"chunked"}
				}
				if resp.ContentLength != length || !slices.Equal(resp.Header["Content-Length"], said) || !slices.Equal(resp.TransferEncoding, coding) {
					t.Errorf("got length %d, %q, %q, want %d, %q, %q", resp.ContentLength, resp.Header["Content-Length"], resp.TransferEncoding, length, said, coding)
				}
				wantBody(t, resp.Body, text(size), nil)
			})
		}
	}
}

func writeBytes(w http.ResponseWriter, size int) {
	for _, c := range []byte(text(size)) {
		w.Write([]byte{c})
	}
}

func TestFlushedBytesArriveBeforeTheHandlerReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := make(chan string)
		c := newCallee(func(w http.ResponseWriter, _ *http.Request) {
			for word := range next {
				io.WriteString(w, word)
				if err := flush(w); err != nil {
					t.Error(err)
				}
			}
			io.WriteString(w, "held back")
		})
		go func() { next <- "" }()
		resp, err := c.roundTrip(request(t, t.Context(), http.MethodGet, nil), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if resp.ContentLength != -1 {
			t.Errorf("got length %d of a flushed answer", resp.ContentLength)
		}
		for _, word := range []string{"a", "bc", text(2048), text(60 << 10)} {
			next <- word
			got := make([]byte, len(word))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != word {
				t.Fatalf("got %.100q, %v, want %.100q", got, err, word)
			}
		}
		close(next)
		wantBody(t, resp.Body, "held back", nil)
	})
}

func TestALongAnswerWaitsForItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		written := 0
		c := newCallee(func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				n, _ := io.WriteString(w, text(10<<10))
				written += n
			}
		})
		resp, err := c.roundTrip(request(t, t.Context(), http.MethodGet, nil), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if written == 0 || written > 80<<10 {
			t.Errorf("the handler could write %d bytes that nobody has read", written)
		}
		wantBody(t, resp.Body, text(1000<<10), nil)
	})
}

func TestTrailersFollowTheBody(t *testing.T) {
	announce := func(h http.Header) { h["Trailer"] = []string{"X-A, x-b", "X-Forgotten, Range"} }
	set := func(h http.Header) { h.Set("X-A", "1"); h["X-B"] = []string{"2", "3"}; h.Set("Range", "1") }
	mark := func(h http.Header) { h.Set(http.TrailerPrefix+"X-Marked", "4") }
	nothing := func(http.Header) {}
	announced := http.Header{"X-A": nil, "X-B": nil, "X-Forgotten": nil, "Range": nil}
	all := http.Header{"X-A": {"1"}, "X-B": {"2", "3"}, "X-Forgotten": nil, "Range": nil}
	for name, test := range map[string]struct {
		before, after func(http.Header)
		content       string
		flush         bool
		early, late   http.Header
	}{
		"whole":                         {announce, set, "body", false, announced, all},
		"without bytes":                 {announce, set, "", false, announced, all},
		"flushed":                       {announce, set, "body", true, announced, all},
		"long":                          {announce, set, text(100 << 10), false, announced, all},
		"marked, whole":                 {mark, nothing, "body", false, nil, http.Header{"X-Marked": {"4"}}},
		"marked, flushed":               {mark, nothing, "body", true, nil, http.Header{"X-Marked": {"4"}}},
		"marked after bytes, flushed":   {nothing, mark, "body", true, nil, http.Header{"X-Marked": {"4"}}},
		"marked after bytes, long":      {nothing, mark, text(100 << 10), false, nil, http.Header{"X-Marked": {"4"}}},
		"marked after bytes, whole":     {nothing, mark, "body", false, nil, nil},
		"announced and marked":          {announce, func(h http.Header) { set(h); mark(h) }, "body", true, announced, http.Header{"X-A": {"1"}, "X-B": {"2", "3"}, "X-Forgotten": nil, "Range": nil, "X-Marked": {"4"}}},
		"none":                          {nothing, set, "body", true, nil, nil},
		"announced with a known length": {func(h http.Header) { announce(h); h.Set("Content-Length", "4") }, set, "body", true, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			resp := get(t, func(w http.ResponseWriter, _ *http.Request) {
				test.before(w.Header())
				io.WriteString(w, test.content)
				if test.flush {
					flush(w)
				}
				test.after(w.Header())
			})
			if !same(resp.Trailer, test.early) || len(resp.Trailer) != len(test.early) {
				t.Errorf("got %v before the body, want %v", resp.Trailer, test.early)
			}
			wantBody(t, resp.Body, test.content, nil)
			if !same(resp.Trailer, test.late) {
				t.Errorf("got %v after the body, want %v", resp.Trailer, test.late)
			}
		})
	}
}

func TestTrailersThatWouldChangeTheBodyFailTheCall(t *testing.T) {
	for _, name := range []string{"Content-Length", "transfer-encoding", "X-A, Trailer"} {
		resp, err := ask(t, request(t, t.Context(), http.MethodGet, nil), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", name)
			io.WriteString(w, "body")
		})
		if err == nil || !strings.Contains(err.Error(), "bad trailer key") {
			t.Errorf("%s: got %v, %v", name, resp, err)
		}
	}
}

// As with net/http's server: the handler has named the length, so that it is not for the server to say.
func TestALengthThatIsNoneIsLeftOut(t *testing.T) {
	for _, length := range []string{"many", "-1"} {
		resp := get(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", length)
			io.WriteString(w, "body")
		})
		if got := resp.Header["Content-Length"]; got != nil || resp.ContentLength != -1 {
			t.Errorf("got lengths %q and %d, want none", got, resp.ContentLength)
		}
		wantBody(t, resp.Body, "body", nil)
	}
}

// On a wire nobody could tell the end of such an answer from its being cut off. Here everybody can.
func TestAnAnswerWithoutChunksHasNoTrailersButAnEnd(t *testing.T) {
	for _, err := range []error{nil, io.ErrUnexpectedEOF} {
		resp := get(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Transfer-Encoding", "identity")
			w.Header().Set(http.TrailerPrefix+"X-A", "1")
			writeBytes(w, 10)
			flush(w)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
		})
		wantBody(t, resp.Body, text(10), err)
		if resp.ContentLength != -1 || resp.TransferEncoding != nil || resp.Trailer != nil {
			t.Errorf("got length %d, coding %q, trailers %v", resp.ContentLength, resp.TransferEncoding, resp.Trailer)
		}
	}
}

func TestChunksMakeALengthALimitAndNothingMore(t *testing.T) {
	for method, want := range map[string]string{http.MethodGet: "hello", http.MethodHead: ""} {
		resp := answer(t, request(t, t.Context(), method, nil), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Transfer-Encoding", "chunked")
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hello")
			flush(w)
			if n, err := io.WriteString(w, "!"); n != 0 || !errors.Is(err, http.ErrContentLength) {
				t.Errorf("got %d, %v, want %v", n, err, http.ErrContentLength)
			}
		})
		if got := resp.Header["Content-Length"]; got != nil || resp.ContentLength != -1 {
			t.Errorf("%s: got lengths %q and %d", method, got, resp.ContentLength)
		}
		wantBody(t, resp.Body, want, nil)
	}
}

func TestAnAnswerToHEADHasNoBody(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		length  int64
	}{
		"nothing":   {func(http.ResponseWriter, *http.Request) {}, -1},
		"a little":  {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "body") }, 4},
		"much":      {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text(1<<20)) }, -1},
		"flushed":   {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "body"); flush(w); writeBytes(w, 10) }, -1},
		"a length":  {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "100") }, 100},
		"no status": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, -1},
	} {
		t.Run(name, func(t *testing.T) {
			resp := answer(t, request(t, t.Context(), http.MethodHead, nil), test.handler)
			if resp.ContentLength != test.length {
				t.Errorf("got length %d, want %d", resp.ContentLength, test.length)
			}
			wantBody(t, resp.Body, "", nil)
		})
	}
}

func TestStatusesWithoutABodyHaveNone(t *testing.T) {
	for _, status := range []int{http.StatusNoContent, http.StatusNotModified} {
		resp := get(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Etag", `"1"`)
			w.Header().Set("Content-Length", "4")
			w.WriteHeader(status)
			if n, err := io.WriteString(w, "body"); n != 0 || !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("got %d, %v, want %v", n, err, http.ErrBodyNotAllowed)
			}
		})
		if resp.StatusCode != status || resp.ContentLength != 0 || resp.Header["Content-Length"] != nil || resp.Header.Get("Etag") != `"1"` {
			t.Errorf("got %+v", resp)
		}
		wantBody(t, resp.Body, "", nil)
	}
}

func TestAnAnnouncedLengthIsKept(t *testing.T) {
	for name, test := range map[string]struct {
		announced string
		write     []int
		want      int
		err       error // the caller's
		refused   error // of the last Write
	}{
		"exact":            {"10", []int{10}, 10, nil, nil},
		"exact, in parts":  {"10", []int{5, 5}, 10, nil, nil},
		"nothing":          {"0", nil, 0, nil, nil},
		"too few":          {"10", []int{5}, 5, io.ErrUnexpectedEOF, nil},
		"none":             {"10", nil, 0, io.ErrUnexpectedEOF, nil},
		"too many":         {"10", []int{11}, 0, io.ErrUnexpectedEOF, http.ErrContentLength},
		"too many at last": {"10", []int{10, 1}, 10, nil, http.ErrContentLength},
		"long":             {"100000", []int{50000, 50000}, 100000, nil, nil},
		"long, too few":    {"100000", []int{50000}, 50000, io.ErrUnexpectedEOF, nil},
		"long, too many":   {"100000", []int{50000, 50001}, 50000, io.ErrUnexpectedEOF, http.ErrContentLength},
	} {
		for _, flushes := range []bool{false, true} {
			t.Run(fmt.Sprint(name, flushes), func(t *testing.T) {
				resp := get(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Length", test.announced)
					var err error
					for _, size := range test.write {
						_, err = io.WriteString(w, text(size))
						if flushes {
							flush(w)
						}
					}
					if !errors.Is(err, test.refused) {
						t.Errorf("got error %v from Write, want %v", err, test.refused)
					}
				})
				if got := strconv.FormatInt(resp.ContentLength, 10); got != test.announced {
					t.Errorf("got length %s, want %s", got, test.announced)
				}
				var want strings.Builder
				for _, size := range test.write {
					want.WriteString(text(size))
				}
				wantBody(t, resp.Body, want.String()[:test.want], test.err)
			})
		}
	}
}

func TestTheHeadersOfAnAnswerAreBounded(t *testing.T) {
	hints := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</a>")
			for range n {
				w.WriteHeader(http.StatusEarlyHints)
			}
		}
	}
	long := func(size int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Long", text(size)) }
	}
	seen := &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { return nil }}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		trace   *httptrace.ClientTrace
		fails   bool
	}{
		"1 MiB":                      {long(1<<20 - 10), nil, false},
		"more than 1 MiB":            {long(1 << 20), nil, true},
		"13,000 hints":               {hints(13_000), nil, false},
		"14,000 hints":               {hints(14_000), nil, true},
		"14,000 hints that are seen": {hints(14_000), seen, false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if test.trace != nil {
				ctx = httptrace.WithClientTrace(ctx, test.trace)
			}
			_, err := ask(t, request(t, ctx, http.MethodGet, nil), test.handler)
			if fails := err != nil && strings.Contains(err.Error(), "headers exceed"); fails != test.fails || err != nil && !fails {
				t.Errorf("got error %v", err)
			}
		})
	}
}

func TestNothingHoldsAnAnswerThatIsOver(t *testing.T) {
	req := request(t, t.Context(), http.MethodGet, nil)
	gone := func() weak.Pointer[http.Response] {
		c := newCallee(func(w http.ResponseWriter, _ *http.Request) { flush(w) })
		resp, err := c.roundTrip(req, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		wantBody(t, resp.Body, "", nil)
		<-c.returned
		return weak.Make(resp)
	}()
	for began := time.Now(); gone.Value() != nil; runtime.GC() {
		if time.Since(began) > 5*time.Second {
			t.Fatal("the context of the request still holds it")
		}
	}
}
