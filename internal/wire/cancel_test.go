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
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/roundtrip"
	"github.com/org/watt/internal/wire"
)

var errGivenUp = errors.New("the caller has given up")

// silent accepts a connection and neither reads nor writes until the test ends.
func silent(t *testing.T) func(net.Conn) {
	t.Helper()
	return func(conn net.Conn) {
		<-t.Context().Done()
		conn.Close()
	}
}

// says reads the head of a request, answers, and then is silent.
func says(t *testing.T, answer string) func(net.Conn) {
	t.Helper()
	return func(conn net.Conn) {
		http.ReadRequest(bufio.NewReader(conn))
		io.WriteString(conn, answer)
		silent(t)(conn)
	}
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

// TestARequestEndsWithItsContextWhereverItIs cancels at every point at which RoundTrip can wait. The
// bubble fails if a goroutine is left.
func TestARequestEndsWithItsContextWhereverItIs(t *testing.T) {
	never := func(method string, length int64) func(*http.Request) { // a body that does not come
		return func(r *http.Request) {
			body, _ := io.Pipe()
			r.Method, r.Body, r.ContentLength = method, track(body), length
		}
	}
	for name, test := range map[string]struct {
		server func(*testing.T) func(net.Conn)
		change func(*http.Request)
	}{
		"while the headers are written":    {silent, func(r *http.Request) { r.Header.Set("X-Long", text(200<<10)) }},
		"while the body is written":        {silent, stream(text(1<<20), 1<<20)},
		"while an unknown body is written": {silent, stream(text(1<<20), -1)},
		"while a known body is written":    {silent, memory(text(1 << 20))},
		"while the headers are awaited":    {silent, func(*http.Request) {}},
		"after a short body":               {silent, memory("hello")},
		"after the body":                   {silent, stream("hello", 5)},
		"while the body is awaited":        {silent, never("POST", 5)},
		"while an unknown body is awaited": {silent, never("POST", -1)},
		"while the body's size is awaited": {silent, never("GET", -1)},
		"while 100 Continue is awaited":    {silent, func(r *http.Request) { stream("hello", 5)(r); r.Header.Set("Expect", "100-continue") }},
		"after 100 Continue":               {answering("HTTP/1.1 100 Continue\r\n\r\n"), func(r *http.Request) { stream("hello", 5)(r); r.Header.Set("Expect", "100-continue") }},
		"after early hints":                {answering("HTTP/1.1 103 Early Hints\r\n\r\n"), func(*http.Request) {}},
		"in the middle of the status line": {answering("HTTP/1.1 20"), func(*http.Request) {}},
		"in the middle of a header":        {answering("HTTP/1.1 200 OK\r\nContent-L"), func(*http.Request) {}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool, n := script(t, test.server(t))
				ctx, cancel := context.WithCancelCause(t.Context())
				req := request(t, ctx, http.MethodPost, nil)
				test.change(req)
				done := make(chan error)
				go func() {
					_, err := pool.RoundTrip(req, time.Time{}, nil)
					req.Header.Set("X-Again", "1") // as callers do who try again
					req.URL.Path = "/again"
					done <- err
				}()
				synctest.Wait()
				select {
				case err := <-done:
					t.Fatalf("got %v before the end of the context", err)
				default:
				}
				start := time.Now()
				cancel(errGivenUp)
				if err := <-done; err != errGivenUp { //nolint:errorlint // the cause itself
					t.Errorf("got error %v, want the context's cause", err)
				}
				clean(t, n, req)
				if waited := time.Since(start); waited > 200*time.Millisecond { // Request.Write may wait that long for a first byte
					t.Errorf("it took %v", waited)
				}
			})
		})
	}
}

func answering(answer string) func(*testing.T) func(net.Conn) {
	return func(t *testing.T) func(net.Conn) { t.Helper(); return says(t, answer) }
}

// clean fails the test unless the request's body was closed once, and all connections.
func clean(t *testing.T, n *network, req *http.Request) {
	t.Helper()
	if body, ok := req.Body.(*trackedBody); ok {
		<-body.done
		synctest.Wait()
		if got := body.closed.Load(); got != 1 {
			t.Errorf("the body was closed %d times, want once", got)
		}
	}
	synctest.Wait()
	if got := n.open.Load(); got != 0 {
		t.Errorf("%d connections are still open", got)
	}
}

func TestNothingIsSentOnceTheContextHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := serve(t, http.HandlerFunc(describeNothing))
		readBack(t, pool, request(t, t.Context(), http.MethodGet, nil))
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errGivenUp)
		req := request(t, ctx, http.MethodPost, track(strings.NewReader("hello")))
		before := n.conn(0).wrote.Load()
		_, err := pool.RoundTrip(req, time.Time{}, func(net.Conn) bool { t.Error("got was asked"); return true })
		if !errors.Is(err, errGivenUp) || !errors.Is(err, roundtrip.ErrNotSent) {
			t.Errorf("got error %v, want that nothing was sent, and the context's cause", err)
		}
		if got := n.conn(0).wrote.Load(); got != before || n.dials() != 1 {
			t.Errorf("got %d bytes more and %d dials", got-before, n.dials())
		}
		if got := req.Body.(*trackedBody).closed.Load(); got != 1 {
			t.Errorf("the body was closed %d times, want once", got)
		}
	})
}

func describeNothing(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }

// readBack sends req and reads the answer to its end.
func readBack(t *testing.T, pool *wire.Pool, req *http.Request) string {
	t.Helper()
	resp, err := pool.RoundTrip(req, time.Time{}, nil)
	return readAll(t, resp, err)
}

func TestDialingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := &wire.Pool{Dial: func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Net: "pipe", Err: ctx.Err()}
		}}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errGivenUp)
		defer cancel()
		req := request(t, ctx, http.MethodPost, track(strings.NewReader("hello")))
		if _, err := pool.RoundTrip(req, time.Time{}, nil); !errors.Is(err, errGivenUp) || !errors.Is(err, roundtrip.ErrNotSent) {
			t.Errorf("got error %v, want that nothing was sent, and the context's cause", err)
		}
		if got := req.Body.(*trackedBody).closed.Load(); got != 1 {
			t.Errorf("the body was closed %d times, want once", got)
		}
	})
}

func TestReadingEndsWithTheContext(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
	for name, answer := range map[string]string{
		"before the body":       head,
		"in the body":           head + "some",
		"in a chunk":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
		"between chunks":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"before the trailers":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
		"in a body until close": "HTTP/1.0 200 OK\r\n\r\nsome",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool, n := script(t, says(t, answer))
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errGivenUp)
				defer cancel()
				req := request(t, ctx, http.MethodGet, nil)
				resp, err := pool.RoundTrip(req, time.Time{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				for range 2 { // and it stays so
					if _, err = io.ReadAll(resp.Body); err != errGivenUp { //nolint:errorlint // the cause itself
						t.Errorf("got error %v, want the context's cause", err)
					}
				}
				clean(t, n, req)
			})
		})
	}
}

func TestAnUpgradedConnectionIsTheCallersWhateverBecomesOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := script(t, says(t, "HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nsome"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req := request(t, ctx, http.MethodGet, nil)
		resp, err := pool.RoundTrip(req, time.Time{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		got := make([]byte, len("some"))
		if _, err := io.ReadFull(resp.Body, got); string(got) != "some" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := io.WriteString(resp.Body.(io.Writer), "x"); err != nil {
			t.Error(err)
		}
		resp.Body.Close()
		clean(t, n, req)
	})
}

func TestTheEndOfTheContextAfterTheAnswerDoesNotHarmTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := serve(t, http.HandlerFunc(describeNothing))
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			readBack(t, pool, request(t, ctx, http.MethodPost, strings.NewReader("hello")))
			cancel()
			readBack(t, pool, request(t, t.Context(), http.MethodGet, nil)) // no body at all
			synctest.Wait()
		}
		if got := n.dials(); got != 1 {
			t.Errorf("got %d dials, want 1", got)
		}
	})
}

// The caller may change its mind when all of the answer has come: it gets the cause then, and no answer.
func TestAnAnswerThatComesWithTheEndOfTheContextIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := serve(t, http.HandlerFunc(describeNothing))
		ctx, cancel := context.WithCancelCause(t.Context())
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { cancel(errGivenUp) }})
		req := request(t, ctx, http.MethodGet, nil)
		resp, err := pool.RoundTrip(req, time.Time{}, nil)
		if err == nil {
			resp.Body.Close()
		}
		if err != errGivenUp { //nolint:errorlint // the cause itself
			t.Errorf("got error %v, want the context's cause", err)
		}
		clean(t, n, req)
	})
}

func TestAClientsTimeoutIsATimeout(t *testing.T) {
	for name, answer := range map[string]string{"headers": "", "body": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool, n := script(t, says(t, answer))
				client := &http.Client{Transport: lean{pool}, Timeout: 3 * time.Second}
				start := time.Now()
				req := request(t, t.Context(), http.MethodPost, track(strings.NewReader("hello")))
				resp, err := client.Do(req)
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				if !os.IsTimeout(err) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got error %v, want a timeout", err)
				}
				if got := time.Since(start); got != 3*time.Second {
					t.Errorf("it took %v", got)
				}
				clean(t, n, req)
			})
		})
	}
}

// An error of one request may be the cause by which another's context ends. It must not be taken for
// the other's own.
func TestACauseThatLooksLikeAStaleConnectionIsNotARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
		takes := func(conn net.Conn) { // one request, and half of another
			br := bufio.NewReader(conn)
			http.ReadRequest(br)
			io.WriteString(conn, ok)
			http.ReadRequest(br)
			conn.Close()
		}
		pool, n := script(t, takes, silent(t))
		readBack(t, pool, request(t, t.Context(), http.MethodPost, nil))
		_, stale := pool.RoundTrip(request(t, t.Context(), http.MethodPost, nil), time.Time{}, nil)
		if stale == nil {
			t.Fatal("got no error of a stale connection")
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { synctest.Wait(); cancel(stale) }()
		if _, err := pool.RoundTrip(request(t, ctx, http.MethodGet, nil), time.Time{}, nil); err != stale { //nolint:errorlint // the cause itself
			t.Errorf("got error %v, want the context's cause", err)
		}
		if got := n.dials(); got != 2 {
			t.Errorf("got %d dials, want 2", got)
		}
	})
}

// The answer comes while the body is stuck in a Read, and Close waits for it: nobody may wait for that.
func TestABodyThatCannotBeClosedDoesNotHoldTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := script(t, says(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome"))
		r, w := io.Pipe()
		req := request(t, t.Context(), http.MethodPost, &slowBody{r, make(chan struct{}, 1)})
		resp, err := pool.RoundTrip(req, time.Time{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		synctest.Wait()
		if got := n.open.Load(); got != 0 {
			t.Errorf("%d connections are still open", got)
		}
		w.Close()
	})
}

func TestABodyThatCannotBeReadSaysSo(t *testing.T) {
	for _, after := range []int{0, 10, 100 << 10} {
		for _, answer := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome"} {
			t.Run(fmt.Sprint(after, len(answer)), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					pool, n := script(t, func(conn net.Conn) {
						br := bufio.NewReader(conn)
						http.ReadRequest(br)
						io.WriteString(conn, answer)
						io.Copy(io.Discard, br)
						conn.Close()
					})
					r, w := io.Pipe()
					go func() {
						io.WriteString(w, text(after))
						synctest.Wait() // so that the answer, if any, comes first
						w.CloseWithError(errBody)
					}()
					req := request(t, t.Context(), http.MethodPost, track(r))
					resp, err := pool.RoundTrip(req, time.Time{}, nil)
					if err == nil {
						_, err = io.ReadAll(resp.Body)
						resp.Body.Close()
					}
					if !errors.Is(err, errBody) {
						t.Errorf("got error %v, want the body's", err)
					}
					clean(t, n, req)
				})
			})
		}
	}
}
