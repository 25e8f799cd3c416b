package wire_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/roundtrip"
)

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// respond serves one connection: it reads requests with their bodies, and sends one answer after the
// other. After the last it reads on, until the other side closes.
func respond(answers ...string) func(net.Conn) {
	return func(conn net.Conn) {
		defer conn.Close()
		br := bufio.NewReader(conn)
		for _, answer := range answers {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			io.WriteString(conn, answer)
		}
		io.Copy(io.Discard, br)
	}
}

// hangUp is respond, and closes the connection when the next request is there.
func hangUp(answers ...string) func(net.Conn) {
	return func(conn net.Conn) {
		defer conn.Close()
		br := bufio.NewReader(conn)
		for _, answer := range append(answers, "") {
			if _, err := http.ReadRequest(br); err != nil {
				return
			}
			io.WriteString(conn, answer)
		}
	}
}

func TestAConnectionIsKeptOrNot(t *testing.T) {
	all := func(t *testing.T, resp *http.Response) { t.Helper(); io.ReadAll(resp.Body); resp.Body.Close() }
	some := func(t *testing.T, resp *http.Response) {
		t.Helper()
		resp.Body.Read(make([]byte, 1))
		resp.Body.Close()
	}
	for name, test := range map[string]struct {
		answer string
		use    func(*testing.T, *http.Response)
		change func(*http.Request)
		kept   bool
	}{
		"read to the end":           {ok, all, nil, true},
		"read to the end, unclosed": {ok, func(_ *testing.T, resp *http.Response) { io.ReadAll(resp.Body) }, nil, true},
		"no body":                   {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", func(*testing.T, *http.Response) {}, nil, true},
		"HEAD":                      {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", all, func(r *http.Request) { r.Method = "HEAD" }, true},
		"204":                       {"HTTP/1.1 204 No Content\r\n\r\n", all, nil, true},
		"304":                       {"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", all, nil, true},
		"chunks":                    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", all, nil, true},
		"trailers":                  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n", all, nil, true},
		"HTTP/1.0 that stays":       {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", all, nil, true},
		"after early hints":         {"HTTP/1.1 103 Early Hints\r\n\r\n" + ok, all, nil, true},
		"short body":                {ok, all, memory("hello"), true},
		"known body":                {ok, all, stream("hello", 5), true},
		"unknown body":              {ok, all, stream("hello", -1), true},
		"large body":                {ok, all, stream(text(1<<20), -1), true},
		"body of nothing":           {ok, all, stream("", -1), true},

		"closed unread":         {ok, func(_ *testing.T, resp *http.Response) { resp.Body.Close() }, nil, false},
		"closed half read":      {ok, some, nil, false},
		"chunks half read":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", some, nil, false},
		"not read":              {ok, func(t *testing.T, resp *http.Response) { t.Helper(); t.Cleanup(func() { resp.Body.Close() }) }, nil, false},
		"close":                 {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", all, nil, false},
		"close without body":    {"HTTP/1.1 204 OK\r\nConnection: close\r\n\r\n", all, nil, false},
		"closed by the request": {ok, all, func(r *http.Request) { r.Close = true }, false},
		"HTTP/1.0":              {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", all, nil, false},
		"one byte too many":     {ok + "!", all, nil, false},
		"two answers":           {ok + ok, all, nil, false},
		"two without body":      {"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", all, nil, false},
		"body of a HEAD":        {ok, all, func(r *http.Request) { r.Method = "HEAD" }, false},
		"malformed chunk":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nx\r\n", all, nil, false},
		"malformed trailer":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx\r\n\r\n", all, nil, false},
		"101 without upgrade":   {"HTTP/1.1 101 Odd\r\n\r\n", all, nil, false},
		"status below 100":      {"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok", all, nil, false},
		"an upgraded one":       {"HTTP/1.1 101 Odd\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", func(_ *testing.T, resp *http.Response) { resp.Body.Close() }, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool, n := script(t, respond(test.answer, ok), respond(ok))
				req := request(t, t.Context(), http.MethodPost, nil)
				if test.change != nil {
					test.change(req)
				}
				resp, err := pool.RoundTrip(req, time.Time{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				test.use(t, resp)
				synctest.Wait()
				if got := readBack(t, pool, request(t, t.Context(), http.MethodGet, nil)); got != "ok" {
					t.Errorf("got %q from the next request", got)
				}
				if got := n.dials() == 1; got != test.kept {
					t.Errorf("got %d dials", n.dials())
				}
			})
		})
	}
}

// The answer is there before the request is out. The rest has 50 ms.
func TestAnEarlyAnswerWaitsForTheRestOfTheRequest(t *testing.T) {
	for _, test := range []struct {
		after time.Duration // the rest of the body comes
		kept  bool
	}{{0, true}, {49 * time.Millisecond, true}, {51 * time.Millisecond, false}, {time.Hour, false}} {
		t.Run(test.after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				early := func(conn net.Conn) {
					defer conn.Close()
					br := bufio.NewReader(conn)
					req, _ := http.ReadRequest(br)
					io.WriteString(conn, ok)
					io.Copy(io.Discard, req.Body)
					http.ReadRequest(br)
					io.WriteString(conn, ok)
					io.Copy(io.Discard, br)
				}
				pool, n := script(t, early, respond(ok))
				r, w := io.Pipe()
				req := request(t, t.Context(), http.MethodPost, track(r))
				start := time.Now()
				if got := readBack(t, pool, req); got != "ok" || time.Since(start) != 0 {
					t.Fatalf("got %q after %v", got, time.Since(start))
				}
				defer time.AfterFunc(test.after, func() { w.Close() }).Stop()
				<-req.Body.(*trackedBody).done
				if got, want := time.Since(start), min(test.after, 50*time.Millisecond); got != want {
					t.Errorf("the body was closed after %v, want %v", got, want)
				}
				synctest.Wait()
				if got := n.open.Load() == 1; got != test.kept {
					t.Errorf("%d connections are open", n.open.Load())
				}
				readBack(t, pool, request(t, t.Context(), http.MethodGet, nil))
				if got := n.dials() == 1; got != test.kept {
					t.Errorf("got %d dials", n.dials())
				}
				if got := req.Body.(*trackedBody).closed.Load(); got != 1 {
					t.Errorf("the body was closed %d times", got)
				}
			})
		})
	}
}

func TestAnEarlyAnswerThatClosesDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := script(t, says(t, "HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"))
		r, _ := io.Pipe()
		req := request(t, t.Context(), http.MethodPost, track(r))
		start := time.Now()
		readBack(t, pool, req)
		clean(t, n, req)
		if got := time.Since(start); got != 0 {
			t.Errorf("it took %v", got)
		}
	})
}

func TestInformingIsBoundedUnlessSomebodyLooks(t *testing.T) {
	const hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	const hints = 2 * roundtrip.MaxHeader / len(hint)
	pool, _ := script(t, respond(strings.Repeat(hint, hints)+ok), respond(strings.Repeat(hint, hints)+ok))
	if resp, err := (lean{pool}).RoundTrip(request(t, t.Context(), http.MethodGet, nil)); !errors.Is(err, roundtrip.ErrHeaderTooLong) {
		t.Errorf("got %v, %v", resp, err)
	}
	seen := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		seen++
		return nil
	}})
	resp, err := (lean{pool}).RoundTrip(request(t, ctx, http.MethodGet, nil))
	if err != nil || seen != hints {
		t.Fatalf("saw %d of %d, %v", seen, hints, err)
	}
	resp.Body.Close()
}

func TestValuesOfOneAnswerDoNotGrowIntoEachOther(t *testing.T) {
	pool, _ := script(t, respond("HTTP/1.1 200 OK\r\nX-A: a\r\nX-B: a\r\nContent-Length: 0\r\n\r\n"))
	resp, err := (lean{pool}).RoundTrip(request(t, t.Context(), http.MethodGet, nil))
	readAll(t, resp, err)
	resp.Header.Add("X-A", "mine")
	if got := resp.Header.Get("X-B"); got != "a" {
		t.Errorf("got %q", got)
	}
}

func TestTheConnectionUsedLastIsUsedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := serve(t, http.HandlerFunc(describeNothing))
		var held []*http.Response
		for range 5 {
			resp, err := pool.RoundTrip(request(t, t.Context(), http.MethodPost, strings.NewReader("x")), time.Time{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, resp)
		}
		for _, i := range []int{3, 0, 4, 2, 1} {
			readAll(t, held[i], nil)
		}
		synctest.Wait()
		for _, want := range []int{1, 2, 4, 0, 3} {
			resp, err := pool.RoundTrip(request(t, t.Context(), http.MethodPost, strings.NewReader("x")), time.Time{}, func(conn net.Conn) bool {
				if conn != n.conn(want) {
					t.Errorf("got another connection than number %d", want)
				}
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { resp.Body.Close() })
		}
		if got := n.dials(); got != 5 {
			t.Errorf("got %d dials, want 5", got)
		}
	})
}

func TestIdleConnectionsAreClosedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := serve(t, http.HandlerFunc(describeNothing))
		pool.IdleTimeout = time.Minute
		use := func(connections int) {
			var held []*http.Response
			for range connections {
				resp, err := pool.RoundTrip(request(t, t.Context(), http.MethodPost, strings.NewReader("x")), time.Time{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, resp)
			}
			for _, resp := range held {
				readAll(t, resp, nil)
			}
		}
		open := func(after time.Duration, want int32) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := n.open.Load(); got != want {
				t.Errorf("%d connections are open, want %d", got, want)
			}
		}
		use(3)
		open(30*time.Second, 3)
		use(1) // the newest, which is used all the time
		open(29*time.Second, 3)
		open(1*time.Second, 1)
		open(29*time.Second, 1)
		open(1*time.Second, 0)
		use(2)
		open(59*time.Second, 2)
		open(1*time.Second, 0)
		use(1)
		open(59*time.Second, 1)
		use(1)
		open(59*time.Second, 1)
		open(time.Second, 0)
		if got := n.dials(); got != 3+2+1 {
			t.Errorf("got %d dials", got)
		}
	})
}

func TestCloseIdleLeavesRequestsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := serve(t, http.HandlerFunc(describeNothing))
		readBack(t, pool, request(t, t.Context(), http.MethodGet, nil))
		resp, err := pool.RoundTrip(request(t, t.Context(), http.MethodPost, strings.NewReader("hello")), time.Time{}, nil)
		pool.CloseIdle()
		if got := readAll(t, resp, err); got != "hello" {
			t.Errorf("got %q", got)
		}
		if got := n.open.Load(); got != 0 {
			t.Errorf("%d connections are kept", got)
		}
		readBack(t, pool, request(t, t.Context(), http.MethodGet, nil)) // it is as good as new
		readBack(t, pool, request(t, t.Context(), http.MethodGet, nil))
		if got := n.dials(); got != 2 {
			t.Errorf("got %d dials, want 2", got)
		}
	})
}

func TestNothingIsKeptAfterClose(t *testing.T) {
	pool, n := script(t, respond(ok))
	pool.Close()
	resp, err := (lean{pool}).RoundTrip(request(t, t.Context(), http.MethodGet, nil))
	readAll(t, resp, err)
	if got := n.open.Load(); got != 0 {
		t.Errorf("%d connections are kept", got)
	}
}

func TestABodyIsSentAfterASecondWithoutTheWordToProceed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, _ := script(t, respond(ok))
		req := request(t, t.Context(), http.MethodPost, track(strings.NewReader("hello")))
		req.Header.Set("Expect", "100-continue")
		began := time.Now()
		resp, err := (lean{pool}).RoundTrip(req)
		readAll(t, resp, err)
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
		pool.CloseIdle()
	})
}

// A body that does not fit into the connection must not be written before the answer is read, even if it is in memory.
func TestAnAnswerComesThoughALongBodyIsNotRead(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"in memory": memory(text(1 << 20)), "known length": stream(text(1<<20), 1<<20), "unknown length": stream(text(1<<20), -1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool, n := script(t, func(conn net.Conn) {
					http.ReadRequest(bufio.NewReader(conn))
					io.WriteString(conn, ok)
					<-t.Context().Done()
					conn.Close()
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				req := request(t, ctx, http.MethodPost, nil)
				change(req)
				if got := readBack(t, pool, req); got != "ok" {
					t.Errorf("got %q", got)
				}
				time.Sleep(time.Second) // for who still writes
				clean(t, n, req)
			})
		})
	}
}

func TestALongBodyIsWrittenInLargePieces(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"known length": stream(text(1<<20), 1<<20), "in memory": memory(text(1 << 20)), "unknown length": stream(text(1<<20), -1),
	} {
		t.Run(name, func(t *testing.T) {
			pool, n := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				size, _ := io.Copy(io.Discard, r.Body)
				fmt.Fprint(w, size)
			}))
			req := request(t, t.Context(), http.MethodPost, nil)
			change(req)
			if got := readBack(t, pool, req); got != "1048576" {
				t.Errorf("got %q", got)
			}
			if got := n.conn(0).most.Load(); got < 28<<10 {
				t.Errorf("the longest piece has %d bytes", got)
			}
		})
	}
}

// Its context has closed it, though all of the answer was there.
func TestAConnectionWhoseContextHasEndedIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := script(t, respond(ok), respond(ok))
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := pool.RoundTrip(request(t, ctx, http.MethodGet, nil), time.Time{}, nil)
		cancel()
		synctest.Wait()
		if got := readAll(t, resp, err); got != "ok" {
			t.Errorf("got %q", got)
		}
		req := request(t, t.Context(), http.MethodPost, track(strings.NewReader("cannot be read twice")))
		if got := readBack(t, pool, req); got != "ok" || n.dials() != 2 {
			t.Errorf("got %q over %d connections, want ok over 2", got, n.dials())
		}
	})
}

func TestABodyThatWasRefusedIsNotSentToAServerThatCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := script(t, func(conn net.Conn) {
			defer conn.Close()
			http.ReadRequest(bufio.NewReader(conn))
			io.WriteString(conn, "HTTP/1.1 417 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\n")
			conn.SetReadDeadline(time.Now().Add(time.Minute))
			if sent, _ := io.ReadAll(conn); len(sent) > 0 {
				t.Errorf("%q was sent", sent)
			}
			io.WriteString(conn, "no")
		})
		req := request(t, t.Context(), http.MethodPost, track(strings.NewReader("hello")))
		req.Header.Set("Expect", "100-continue")
		if got := readBack(t, pool, req); got != "no" {
			t.Errorf("got %q", got)
		}
		clean(t, n, req)
	})
}
