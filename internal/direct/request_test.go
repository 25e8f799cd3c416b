package direct_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/direct"
	"github.com/org/watt/internal/roundtrip"
)

// echo answers with the request's body and why that ended, once it has.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	n, after := r.Body.Read(make([]byte, 1))
	fmt.Fprintf(w, "%d %v %s %v %d %v", r.ContentLength, r.TransferEncoding, body, err, n, after)
}

func TestBodiesArriveWithWhatIsKnownOfThem(t *testing.T) {
	for _, size := range []int{1, 5, 2048, 100 << 10, 1 << 20} {
		content := text(size)
		known := fmt.Sprintf("%d [] %s <nil> 0 EOF", size, content)
		for name, test := range map[string]struct {
			body   io.Reader
			length int64
			want   string
		}{
			"in memory":          {strings.NewReader(content), 0, known},
			"stream":             {track(strings.NewReader(content)), int64(size), known},
			"one byte at a time": {track(iotest.OneByteReader(strings.NewReader(content))), int64(size), known},
			"end with the data":  {track(iotest.DataErrReader(strings.NewReader(content))), int64(size), known},
			"unknown":            {track(strings.NewReader(content)), -1, fmt.Sprintf("-1 [chunked] %s <nil> 0 EOF", content)},
			"zero, for unknown":  {track(strings.NewReader(content)), -2, fmt.Sprintf("-1 [chunked] %s <nil> 0 EOF", content)},
		} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				req := request(t, t.Context(), http.MethodPost, test.body)
				if test.length != 0 {
					req.ContentLength = max(test.length, -1)
				}
				if test.length == -2 {
					req.ContentLength = 0
				}
				wantBody(t, answer(t, req, echo).Body, test.want, nil)
				if tracked, ok := test.body.(*trackedBody); ok {
					tracked.closedOnce(t)
				}
			})
		}
	}
}

func TestAnEmptyStreamIsABody(t *testing.T) {
	req, body := post(t, strings.NewReader(""), -1)
	wantBody(t, answer(t, req, echo).Body, "-1 [chunked]  <nil> 0 EOF", nil)
	body.closedOnce(t)
}

func TestABodyOfAnotherLengthThanAnnouncedFailsTheCall(t *testing.T) {
	for name, test := range map[string]struct {
		body   string
		length int64
		want   string
	}{
		"short":           {"hello", 6, "http: ContentLength=6 with Body length 5"},
		"empty":           {"", 1, "http: ContentLength=1 with Body length 0"},
		"long":            {"hello", 4, "http: ContentLength=4 with Body length 5"},
		"much too short":  {text(100 << 10), 1 << 20, "http: ContentLength=1048576 with Body length 102400"},
		"somewhat longer": {text(1 << 20), 100 << 10, "http: ContentLength=102400 with Body length 102401"},
	} {
		for kind, wrap := range map[string]func(io.Reader) io.ReadCloser{
			"in memory": io.NopCloser,
			"stream":    func(r io.Reader) io.ReadCloser { return track(r) },
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					req := request(t, t.Context(), http.MethodPost, nil)
					req.Body, req.ContentLength = wrap(strings.NewReader(test.body)), test.length
					var got error
					c := newCallee(func(_ http.ResponseWriter, r *http.Request) {
						_, got = io.Copy(io.Discard, r.Body)
						<-r.Context().Done()
					})
					if _, err := c.roundTrip(req, time.Time{}); err == nil || err.Error() != test.want {
						t.Errorf("got error %v, want %q", err, test.want)
					}
					<-c.returned
					if int64(len(test.body)) < test.length && !errors.Is(got, io.ErrUnexpectedEOF) {
						t.Errorf("the handler got error %v, want %v", got, io.ErrUnexpectedEOF)
					}
					if c.told.Load() == 0 {
						t.Error("the callee was not told")
					}
					if tracked, ok := req.Body.(*trackedBody); ok {
						tracked.closedOnce(t)
					}
				})
			})
		}
	}
}

func TestABodyThatCannotBeReadSaysSo(t *testing.T) {
	for _, length := range []int64{-1, 1 << 20} {
		for _, after := range []int{0, 10, 100 << 10} {
			for name, begins := range map[string]bool{"before the answer": false, "in the answer": true} {
				t.Run(fmt.Sprint(name, length, after), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						req, body := post(t, io.MultiReader(strings.NewReader(text(after)), iotest.ErrReader(errBody)), length)
						var got error
						c := newCallee(func(w http.ResponseWriter, r *http.Request) {
							if begins {
								flush(w)
								synctest.Wait() // until the caller reads
							}
							_, got = io.Copy(io.Discard, r.Body)
							<-r.Context().Done()
						})
						resp, err := c.roundTrip(req, time.Time{})
						if begins {
							if err != nil {
								t.Fatal(err)
							}
							err = readAll(resp)
							resp.Body.Close()
						}
						if met, is := errors.AsType[*roundtrip.BodyError](err); !is || met.Err != errBody { //nolint:errorlint // bare
							t.Errorf("got error %v, want the body's", err)
						}
						<-c.returned
						if !errors.Is(got, io.ErrUnexpectedEOF) {
							t.Errorf("the handler got error %v, want %v", got, io.ErrUnexpectedEOF)
						}
						body.closedOnce(t)
					})
				})
			}
		}
	}
}

func TestAnAnswerMayComeWhileTheBodyIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		req, body := post(t, r, -1)
		c := newCallee(func(w http.ResponseWriter, r *http.Request) {
			flush(w)
			p := make([]byte, 10)
			for {
				n, err := r.Body.Read(p)
				if err != nil {
					fmt.Fprint(w, err)
					return
				}
				w.Write(p[:n])
				flush(w)
			}
		})
		resp, err := c.roundTrip(req, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			word := fmt.Sprintf("word %d", i)
			io.WriteString(w, word)
			got := make([]byte, len(word))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != word {
				t.Fatalf("got %q, %v, want %q", got, err, word)
			}
		}
		w.Close()
		wantBody(t, resp.Body, "EOF", nil)
		body.closedOnce(t)
	})
}

func TestABodyThatTheHandlerDoesNotReadIsNotRead(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"does nothing":   func(http.ResponseWriter, *http.Request) {},
		"answers":        func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text(100<<10)) },
		"closes":         func(_ http.ResponseWriter, r *http.Request) { r.Body.Close() },
		"closes twice":   func(_ http.ResponseWriter, r *http.Request) { r.Body.Close(); r.Body.Close() },
		"reads no bytes": func(_ http.ResponseWriter, r *http.Request) { _ = r.ContentLength },
	} {
		for _, length := range []int64{-1, 5} {
			t.Run(fmt.Sprint(name, length), func(t *testing.T) {
				req, body := post(t, strings.NewReader("hello"), length)
				io.Copy(io.Discard, answer(t, req, handler).Body)
				body.closedOnce(t)
				if got := body.reads.Load(); got != 0 {
					t.Errorf("the body was read %d times", got)
				}
			})
		}
	}
}

func TestAHandlerThatClosesTheBodyMayStillAnswer(t *testing.T) {
	for _, length := range []int64{-1, 100} {
		for _, wait := range []bool{false, true} {
			t.Run(fmt.Sprint(length, wait), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r, w := io.Pipe()
					req, body := post(t, r, length)
					go io.WriteString(w, "some")
					c := newCallee(func(w http.ResponseWriter, r *http.Request) {
						if _, err := io.ReadFull(r.Body, make([]byte, 4)); err != nil {
							t.Error(err)
						}
						if err := r.Body.Close(); err != nil {
							t.Error(err)
						}
						if wait {
							synctest.Wait() // until everybody has heard of it
						}
						_, err := r.Body.Read(make([]byte, 1))
						fmt.Fprint(w, err)
					})
					resp, err := c.roundTrip(req, time.Time{})
					if err != nil {
						t.Fatalf("got error %v, want the answer", err)
					}
					wantBody(t, resp.Body, http.ErrBodyReadAfterClose.Error(), nil)
					resp.Body.Close()
					if got := c.told.Load(); got != 0 {
						t.Errorf("the callee was told %d times", got)
					}
					body.closedOnce(t)
				})
			})
		}
	}
}

func TestClosingTheBodyEndsAReadOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := io.Pipe()
		req, body := post(t, r, -1)
		c := newCallee(func(_ http.ResponseWriter, r *http.Request) {
			ended := make(chan error)
			go func() {
				_, err := r.Body.Read(make([]byte, 1))
				ended <- err
			}()
			synctest.Wait()
			r.Body.Close()
			if err := <-ended; !errors.Is(err, http.ErrBodyReadAfterClose) {
				t.Errorf("got error %v, want %v", err, http.ErrBodyReadAfterClose)
			}
		})
		resp, err := c.roundTrip(req, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		body.closedOnce(t)
	})
}

func TestAHandlerThatReturnsEarlyLetsGoOfABodyThatDoesNotCome(t *testing.T) {
	for _, read := range []int64{0, 4} {
		t.Run(strconv.FormatInt(read, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := io.Pipe()
				req, body := post(t, r, -1)
				go io.WriteString(w, "some")
				c := newCallee(func(w http.ResponseWriter, r *http.Request) {
					io.CopyN(io.Discard, r.Body, read)
					io.WriteString(w, "enough")
				})
				resp, err := c.roundTrip(req, time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				wantBody(t, resp.Body, "enough", nil)
				body.closedOnce(t)
			})
		})
	}
}

func TestABodyThatCannotBeClosedDoesNotHoldTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		req := request(t, t.Context(), http.MethodPost, &slowBody{r, make(chan struct{}, 1)})
		c := newCallee(func(_ http.ResponseWriter, r *http.Request) {
			go r.Body.Read(make([]byte, 1))
			synctest.Wait()
		})
		resp, err := c.roundTrip(req, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		<-c.returned
		w.Close()
	})
}

// slowBody is a body as an [http.Server] hands it to handlers: its Close waits for a Read in progress.
type slowBody struct {
	io.Reader
	turn chan struct{} // a mutex that bubbles take for blocked
}

func (b *slowBody) Read(p []byte) (int, error) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	return b.Reader.Read(p)
}

func (b *slowBody) Close() error {
	b.turn <- struct{}{}
	<-b.turn
	return nil
}

func TestTheUserAgentIsAsOnAWire(t *testing.T) {
	for name, test := range map[string]struct{ sent, want []string }{
		"none":         {nil, []string{"Go-http-client/1.1"}},
		"one":          {[]string{"me"}, []string{"me"}},
		"two":          {[]string{"me", "you"}, []string{"me"}},
		"empty":        {[]string{""}, nil},
		"switched off": {[]string{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			req := request(t, t.Context(), http.MethodGet, nil)
			if test.sent != nil {
				req.Header["User-Agent"] = test.sent
			}
			answer(t, req, func(_ http.ResponseWriter, r *http.Request) {
				if got := r.Header["User-Agent"]; !slices.Equal(got, test.want) {
					t.Errorf("got %q, want %q", got, test.want)
				}
			})
		})
	}
}

func TestAChunkedBodyIsTakenLikeAnyOfUnknownLength(t *testing.T) {
	req := request(t, t.Context(), http.MethodPost, io.NopCloser(strings.NewReader("x")))
	req.ContentLength, req.TransferEncoding = -1, []string{"chunked"}
	if !direct.Takes(req) {
		t.Error("got no")
	}
	if req.ContentLength = 1; direct.Takes(req) {
		t.Error("got yes to one that says its length, too")
	}
}

func TestWhatNeedsAConnectionIsNotTaken(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"an upgrade":           func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"a Connection header":  func(r *http.Request) { r.Header.Set("Connection", "close") },
		"close":                func(r *http.Request) { r.Close = true },
		"CONNECT":              func(r *http.Request) { r.Method = http.MethodConnect },
		"gRPC":                 func(r *http.Request) { r.Header.Set("Content-Type", "application/grpc+proto") },
		"gRPC, capitalized":    func(r *http.Request) { r.Header.Set("Content-Type", "Application/GRPC") },
		"trailers":             func(r *http.Request) { r.Trailer = http.Header{"X-T": nil} },
		"a transfer encoding":  func(r *http.Request) { r.TransferEncoding = []string{"chunked"} },
		"no headers":           func(r *http.Request) { r.Header = nil },
		"a length and no body": func(r *http.Request) { r.ContentLength = 5 },
		"a body to be sized":   func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("x")) },
		"a long path":          func(r *http.Request) { r.URL.Path = "/" + text(65<<10) },
		"no target":            func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/a", "%2Fa" },
		"a long query":         func(r *http.Request) { r.URL.RawQuery = text(65 << 10) },
		"a long host":          func(r *http.Request) { r.Host = text(65 << 10) },
		"many headers":         func(r *http.Request) { r.Header.Set("X-Long", text(65<<10)) },
		"an invalid header":    func(r *http.Request) { r.Header.Set("X-A", "a\nb") },
	} {
		req := request(t, t.Context(), http.MethodGet, nil)
		if !direct.Takes(req) {
			t.Fatal("got no to a plain request")
		}
		if change(req); direct.Takes(req) {
			t.Errorf("%s: got yes", name)
		}
	}
}
