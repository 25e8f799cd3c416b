package wire_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/roundtrip"
	"github.com/org/watt/internal/wire"
)

// failing is a connection whose Writes fail while it can still be read.
type failing struct {
	net.Conn
	after int64
	fails atomic.Bool
}

var errWrite = errors.New("the connection takes no more")

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= int64(len(p)); f.after < 0 {
		f.fails.Store(true)
		return 0, errWrite
	}
	return f.Conn.Write(p)
}

// What the server has to say is not lost, and a connection with half a request on it never kept.
func TestAnAnswerCountsEvenIfTheRequestCouldNotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := script(t, func(conn net.Conn) {
			http.ReadRequest(bufio.NewReader(conn))
			synctest.Wait() // until the writing has failed
			io.WriteString(conn, ok)
			silent(t)(conn)
		})
		dial := pool.Dial
		f := new(failing)
		pool.Dial = func(ctx context.Context) (net.Conn, error) {
			conn, err := dial(ctx)
			f = &failing{Conn: conn, after: 10 << 10}
			return f, err
		}
		req := request(t, t.Context(), http.MethodPost, track(strings.NewReader(text(1<<20))))
		if got := readBack(t, pool, req); got != "ok" {
			t.Errorf("got %q", got)
		}
		if !f.fails.Load() {
			t.Error("no Write has failed")
		}
		clean(t, n, req)
	})
}

func TestAStaleConnectionIsReplacedIfThatIsSafe(t *testing.T) {
	yes, no := func(net.Conn) bool { return true }, func(net.Conn) bool { return false }
	// seen: the server reads the request and hangs up; unseen: it has hung up before.
	for name, test := range map[string]struct {
		method string
		change func(*http.Request)
		got    func(net.Conn) bool // for the second attempt
		seen   bool
		again  bool
	}{
		"GET":                       {"GET", nil, nil, true, false}, // http.Transport would
		"GET unseen":                {"GET", nil, nil, false, true},
		"GET, got says yes":         {"GET", nil, yes, true, true},
		"GET, got says no":          {"GET", nil, no, true, false},
		"GET unseen, got says no":   {"GET", nil, no, false, false},
		"HEAD unseen":               {"HEAD", nil, nil, false, true},
		"POST":                      {"POST", memory("hello"), nil, true, false},
		"POST without body":         {"POST", nil, nil, true, false},
		"POST, got says yes":        {"POST", memory("hello"), yes, true, true},
		"large POST, got says yes":  {"POST", memory(text(1 << 20)), yes, true, true},
		"POST unseen":               {"POST", memory("hello"), nil, false, true},
		"POST unseen, large":        {"POST", memory(text(1 << 20)), nil, false, true},
		"POST unseen, got says no":  {"POST", memory("hello"), no, false, false},
		"POST stream, got says yes": {"POST", stream("hello", 5), yes, true, false},
		"POST stream unseen":        {"POST", stream("hello", 5), nil, false, false},
		"GET whose body cannot come back": {"GET", func(r *http.Request) {
			memory("hello")(r)
			r.GetBody = func() (io.ReadCloser, error) { return nil, errBody }
		}, yes, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := hangUp(ok)
				if !test.seen {
					first = func(conn net.Conn) {
						http.ReadRequest(bufio.NewReader(conn))
						io.WriteString(conn, ok)
						conn.Close()
					}
				}
				pool, n := script(t, first, respond(ok))
				readBack(t, pool, request(t, t.Context(), http.MethodGet, nil))
				synctest.Wait()
				req := request(t, t.Context(), test.method, nil)
				if test.change != nil {
					test.change(req)
				}
				var asked int
				got := func(c net.Conn) bool { asked++; return asked == 1 || test.got(c) }
				if test.got == nil {
					got = nil
				}
				resp, err := pool.RoundTrip(req, time.Time{}, got)
				if (err == nil) != test.again {
					t.Errorf("got error %v", err)
				}
				if err == nil {
					if resp.Request != req {
						t.Error("the answer belongs to another request")
					}
					io.ReadAll(resp.Body)
					resp.Body.Close()
				} else if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("got error %v, want one that says that the connection has ended", err)
				}
				if body, ok := req.Body.(*trackedBody); ok {
					<-body.done
				}
				pool.CloseIdle()
				synctest.Wait()
				if got := n.open.Load(); got != 0 {
					t.Errorf("%d connections are still open", got)
				}
			})
		})
	}
}

func TestOfANewConnectionThatEndsItIsKnownWhetherTheRequestWasSent(t *testing.T) {
	for name, test := range map[string]struct {
		server func(net.Conn)
		unsent bool
	}{
		"unseen": {func(conn net.Conn) { conn.Close() }, true},
		"seen":   {hangUp(), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool, n := script(t, test.server)
				dial := pool.Dial
				pool.Dial = func(ctx context.Context) (net.Conn, error) {
					conn, err := dial(ctx)
					synctest.Wait()
					return conn, err
				}
				req := request(t, t.Context(), http.MethodPost, track(strings.NewReader("hello")))
				_, err := pool.RoundTrip(req, time.Time{}, nil)
				if err == nil || errors.Is(err, roundtrip.ErrNotSent) != test.unsent {
					t.Errorf("got error %v, want one that says that nothing was sent: %t", err, test.unsent)
				}
				clean(t, n, req)
			})
		})
	}
}

// A server that closes whatever it accepts would be called for ever.
func TestWhatANewConnectionDidNotTakeIsNotSentAgain(t *testing.T) {
	pool, _ := script(t)
	tries := 0
	_, err := pool.RoundTrip(request(t, t.Context(), http.MethodGet, nil), time.Time{}, func(net.Conn) bool {
		tries++
		return tries < 3
	})
	if err == nil || tries != 1 {
		t.Errorf("got error %v after %d tries, want one", err, tries)
	}
}

func TestAnAnswerThatHasBegunIsNotAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := script(t, func(conn net.Conn) {
			hangUp(ok)(&heldConn{conn})
			io.WriteString(conn, "H")
			conn.Close()
		}, respond(ok))
		readBack(t, pool, request(t, t.Context(), http.MethodGet, nil))
		if _, err := pool.RoundTrip(request(t, t.Context(), http.MethodGet, nil), time.Time{}, func(net.Conn) bool { return true }); err == nil {
			t.Error("got no error")
		}
		if got := n.dials(); got != 1 {
			t.Errorf("got %d dials, want 1", got)
		}
	})
}

// got may set a deadline. That it has passed says nothing about the other idle connections.
func TestAReadDeadlineIsNoStaleConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := script(t, says(t, ok), says(t, ok), silent(t))
		first, err := pool.RoundTrip(request(t, t.Context(), http.MethodGet, nil), time.Time{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		readBack(t, pool, request(t, t.Context(), http.MethodGet, nil))
		readAll(t, first, nil)
		asked := 0
		_, err = pool.RoundTrip(request(t, t.Context(), http.MethodGet, nil), time.Time{}, func(conn net.Conn) bool {
			asked++
			conn.SetReadDeadline(time.Now().Add(time.Second))
			return true
		})
		if !errors.Is(err, os.ErrDeadlineExceeded) || asked != 1 || n.dials() != 2 {
			t.Errorf("got error %v, %d attempts and %d dials", err, asked, n.dials())
		}
		if got := n.open.Load(); got != 1 {
			t.Errorf("%d connections are open, want the other idle one", got)
		}
	})
}

// heldConn stays open when it is closed.
type heldConn struct{ net.Conn }

func (*heldConn) Close() error { return nil }

func TestAConnectionThatIsKnownToHaveEndedIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := script(t, respond(ok, ok), respond(ok))
		readBack(t, pool, request(t, t.Context(), http.MethodGet, nil))
		n.conn(0).ended.Store(true)
		req := request(t, t.Context(), http.MethodPost, track(strings.NewReader("cannot be read twice")))
		if got := readBack(t, pool, req); got != "ok" || n.dials() != 2 {
			t.Errorf("got %q over %d connections", got, n.dials())
		}
		pool.CloseIdle()
		clean(t, n, req)
	})
}

// endings are what a server can do to an idle connection. Some go on, as a server would that has lost count.
func endings() map[string]func(net.Conn) {
	return map[string]func(net.Conn){
		"closed":             func(conn net.Conn) { conn.Close() },
		"shut":               func(conn net.Conn) { conn.(interface{ CloseWrite() error }).CloseWrite() },
		"a byte too many":    func(conn net.Conn) { io.WriteString(conn, "x") },
		"an answer too many": func(conn net.Conn) { io.WriteString(conn, ok) },
	}
}

// A pipe says by itself what has become of it.
func TestAPipeThatHasEndedIsNotUsed(t *testing.T) {
	for name, then := range endings() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool, n := script(t, func(conn net.Conn) {
					http.ReadRequest(bufio.NewReader(conn))
					io.WriteString(conn, ok)
					synctest.Wait() // until the connection is idle
					then(conn)
					silent(t)(conn)
				}, respond(ok))
				pool.Dial = func(ctx context.Context) (net.Conn, error) { return n.Dial(ctx, "caller:1", nil) }
				readBack(t, pool, request(t, t.Context(), http.MethodGet, nil))
				time.Sleep(time.Second)
				req := request(t, t.Context(), http.MethodPost, track(strings.NewReader("cannot be read twice")))
				if got := readBack(t, pool, req); got != "ok" {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

func TestADeclinedRequestIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := script(t, respond(ok))
		req := request(t, t.Context(), http.MethodPost, track(strings.NewReader("hello")))
		if _, err := pool.RoundTrip(req, time.Time{}, func(net.Conn) bool { return false }); err == nil {
			t.Error("got no error")
		}
		if got := n.conn(0).wrote.Load(); got != 0 {
			t.Errorf("%d bytes were sent", got)
		}
		clean(t, n, req)
	})
}

// A server fills the trailers of a request when it has read all of it, which may be to drop it: a proxy has failed to send it.
func TestWhoStillWritesAFailedRequestDoesNotLookAtItsTrailers(t *testing.T) {
	var buffers pipe.Buffers
	pool := &wire.Pool{Dial: func(context.Context) (net.Conn, error) {
		near, far := pipe.New(&buffers, "caller:1", "callee:80")
		_ = far.Close()
		return near, nil
	}}
	for range 100 {
		body, _ := io.Pipe()
		req := request(t, t.Context(), http.MethodPost, body)
		req.Trailer = http.Header{"Sum": nil}
		if _, err := pool.RoundTrip(req, time.Time{}, nil); err == nil {
			t.Fatal("nobody has answered")
		}
		req.Trailer.Set("Sum", "1")
	}
}

// late is a body that ends without a byte, after a while. With the end come the trailers.
type late struct {
	after   time.Duration
	trailer http.Header
}

func (b *late) Read([]byte) (int, error) {
	time.Sleep(b.after)
	b.trailer.Set("Sum", "1")
	return 0, io.EOF
}

// net/http waits so long for the first byte of a body that a GET hardly has before it writes the head.
func TestTrailersOfABodyThatEndsLateAreNotTouchedWhileTheirNamesAreWritten(t *testing.T) {
	for _, after := range []time.Duration{0, 200 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			got := make(chan string, 1)
			pool, _ := script(t, func(conn net.Conn) {
				defer conn.Close()
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				io.Copy(io.Discard, req.Body)
				got <- req.Trailer.Get("Sum")
				io.WriteString(conn, ok)
			})
			trailer := http.Header{"Sum": nil}
			req := request(t, t.Context(), http.MethodGet, track(&late{after, trailer}))
			req.Trailer = trailer
			if answer := readBack(t, pool, req); answer != "ok" {
				t.Errorf("got %q", answer)
			}
			if sum := <-got; sum != "1" {
				t.Errorf("after %v: the callee got %q, want 1", after, sum)
			}
		})
	}
}

// unending is a body that ends when it is told to, and not when it is closed.
type unending chan struct{}

func (b unending) Read([]byte) (int, error) {
	<-b
	return 0, io.EOF
}

func TestTheEndOfABodyThatNobodyWaitsForDoesNotLookAtItsTrailers(t *testing.T) {
	pool, _ := script(t, func(conn net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		conn.Close()
	})
	body, trailer := make(unending), http.Header{"Sum": nil}
	req := request(t, t.Context(), http.MethodPost, body)
	req.Trailer = trailer
	if _, err := pool.RoundTrip(req, time.Time{}, nil); err == nil {
		t.Fatal("nobody has answered")
	}
	close(body)
	for range 1000 { // else the end would be over, or yet to come
		trailer.Set("Sum", "1")
		runtime.Gosched()
	}
}
