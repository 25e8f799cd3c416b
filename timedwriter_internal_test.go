package watt

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/pipe"
)

// bubble is a test in a bubble, and a client of its server.
type bubble struct {
	*testing.T
	client *http.Client
}

// onBoth runs f against a server of each protocol that gives its handlers a client to write to; in a bubble, over
// pipes, since that takes minutes.
func onBoth(t *testing.T, h http.HandlerFunc, f func(t bubble)) {
	t.Helper()
	onBothBy(t, func(conn net.Conn) net.Conn { return conn }, h, f)
}

// onBothBy is onBoth with something in front of the client's connections.
func onBothBy(t *testing.T, front func(net.Conn) net.Conn, h http.HandlerFunc, f func(t bubble)) {
	t.Helper()
	for name, http2 := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var protocols http.Protocols
				protocols.SetHTTP1(!http2)
				protocols.SetUnencryptedHTTP2(http2)
				buffers := new(pipe.Buffers)
				ln := pipe.Listen(buffers, "server")
				server := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					in := receive(w, r)
					if in != nil {
						defer in.leave()
						r = &in.request
					}
					c, out := newTimedWriter(w)
					defer c.over()
					in.setClient(c)
					h(out, r)
				})}
				served := make(chan error, 1)
				go func() { served <- server.Serve(ln) }()
				transport := &http.Transport{
					Protocols: &protocols, ExpectContinueTimeout: time.Hour,
					DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
						conn, err := ln.Dial(ctx, "client", nil)
						return front(conn), err
					},
				}
				f(bubble{t, &http.Client{Transport: transport}})
				transport.CloseIdleConnections()
				server.Close()
				<-served
			})
		})
	}
}

// body returns the whole body of an answer.
func (t bubble) body(req *http.Request) string {
	t.Helper()
	resp, err := t.client.Do(req)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

func (t bubble) get() *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://server/", nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestAnAnswerMayBeAsSilentAsItLikes(t *testing.T) {
	onBoth(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Hour)
		w.WriteHeader(http.StatusProcessing)
		time.Sleep(time.Hour)
		io.WriteString(w, "a")
		http.NewResponseController(w).Flush()
		time.Sleep(time.Hour)
		w.Write(bytes.Repeat([]byte("b"), heldBack+1))
		time.Sleep(time.Hour)
		io.WriteString(w, "c")
	}, func(t bubble) {
		want := "a" + strings.Repeat("b", heldBack+1) + "c"
		for range 2 { // on one connection
			if got := t.body(t.get()); got != want {
				t.Errorf("got %d bytes, want %d", len(got), len(want))
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestAHandlerMayAskForTheBodyAfterLongWork(t *testing.T) {
	onBoth(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Hour)
		io.Copy(w, r.Body)
	}, func(t bubble) {
		req := t.get()
		req.Method, req.Body = http.MethodPost, io.NopCloser(io.MultiReader(strings.NewReader("hello")))
		req.Header.Set("Expect", "100-continue")
		if got := t.body(req); got != "hello" {
			t.Errorf("got %q", got)
		}
	})
}

func TestAClientThatTakesNothingIsGivenUp(t *testing.T) {
	var took atomic.Int64
	onBoth(t, func(w http.ResponseWriter, _ *http.Request) {
		began := time.Now()
		for {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				took.Store(int64(time.Since(began)))
				return
			}
		}
	}, func(t bubble) {
		resp, err := t.client.Do(t.get())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		time.Sleep(time.Hour)
		if got := time.Duration(took.Swap(0)); got != stallTime {
			t.Errorf("the handler wrote for %v, want %v", got, stallTime)
		}
	})
}

func TestASteadyClientGetsALargeWriteWhole(t *testing.T) {
	const size = 16 << 20
	onBoth(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, size)) }, func(t bubble) {
		resp, err := t.client.Do(t.get())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for n := int64(0); n < size; time.Sleep(stallTime / 2) {
			got, err := io.CopyN(io.Discard, resp.Body, http1Piece)
			if n += got; err != nil {
				t.Fatalf("after %d bytes: %v", n, err)
			}
		}
	})
}

func TestTheHandlersOwnWriteDeadlineCounts(t *testing.T) {
	const size = 1 << 20
	var first, second atomic.Bool
	onBoth(t, func(w http.ResponseWriter, _ *http.Request) {
		control := http.NewResponseController(w)
		control.SetWriteDeadline(time.Now().Add(time.Minute)) // more than there would be, and less
		_, err := w.Write(make([]byte, size))
		first.Store(err != nil)
		control.SetWriteDeadline(time.Now().Add(-time.Second))
		_, err = w.Write(make([]byte, size))
		second.Store(err != nil)
	}, func(t bubble) {
		resp, err := t.client.Do(t.get())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		time.Sleep(stallTime + time.Second)
		if _, err := io.CopyN(io.Discard, resp.Body, size); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if first.Swap(false) || !second.Swap(false) {
			t.Error("the first Write must succeed, in a minute, and the second fail, whose deadline has passed")
		}
	})
}

// slow is a connection over which so many bytes come in a second.
type slow struct {
	net.Conn
	rate int
}

func (s slow) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p[:min(len(p), s.rate/10)])
	time.Sleep(time.Duration(n) * time.Second / time.Duration(s.rate))
	return n, err
}

func TestThePartsOfASlowLineAreEnoughForManyStreams(t *testing.T) {
	const streams, size = 100, 256 << 10
	front := func(conn net.Conn) net.Conn { return slow{conn, 128 << 10} }
	onBothBy(t, front, func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, size)) }, func(t bubble) {
		var all sync.WaitGroup
		for range streams {
			all.Go(func() {
				if got := len(t.body(t.get())); got != size {
					t.Errorf("got %d bytes, want %d", got, size)
				}
			})
		}
		all.Wait()
	})
}

// counted counts the bytes that come.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestNothingComesAfterAnAnswer(t *testing.T) {
	var came atomic.Int64
	front := func(conn net.Conn) net.Conn { return counted{conn, &came} }
	onBothBy(t, front, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "all of it") }, func(t bubble) {
		for range 20 {
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() { t.body(t.get()) })
			}
			all.Wait()
		}
		time.Sleep(time.Second)
		before := came.Load()
		time.Sleep(2 * stallTime)
		if after := came.Load(); after != before {
			t.Errorf("%d bytes have come", after-before)
		}
	})
}

func TestAConnectionThatWasGivenAwayHasNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := pipe.New(new(pipe.Buffers), "near", "far")
		c, w := newTimedWriter(&givenAway{ResponseWriter: discarding{}, conn: near})
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Fatal(err)
		}
		if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
			t.Error(err)
		}
		c.over()
		time.Sleep(time.Hour)
		if _, err := io.WriteString(conn, "later"); err != nil {
			t.Error(err)
		}
		conn.Close()
		far.Close()
	})
}

// givenAway is a server's writer whose connection is hijacked.
type givenAway struct {
	http.ResponseWriter
	conn net.Conn
}

func (g *givenAway) Hijack() (net.Conn, *bufio.ReadWriter, error) { return g.conn, nil, nil }
func (g *givenAway) SetWriteDeadline(t time.Time) error           { return g.conn.SetWriteDeadline(t) }

type discarding struct{ http.ResponseWriter }

func (discarding) WriteString(s string) (int, error) { return len(s), nil }

func TestALongStringIsNotCopied(t *testing.T) {
	const size = 16 << 20
	long := strings.Repeat("x", size)
	_, w := newTimedWriter(discarding{})
	if got := testing.AllocsPerRun(1, func() {
		if n, err := io.WriteString(w, long); n != size || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
	}); got > 2*size/http2Piece {
		t.Errorf("%.0f allocations", got)
	}
}
