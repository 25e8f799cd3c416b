package watt

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/page"
)

// handing is an instance whose only worker is busy, so that it hands what comes to a sibling, which the test plays.
type handing struct {
	conn    net.Conn // to it
	sibling *neighbour
	free    func()        // gives the worker back
	longest time.Duration // that a request may wait
}

// newHanding returns one in a bubble. sibling is called with what the sibling is sent, and with its connection, which is
// closed then.
func newHanding(t *testing.T, timeout time.Duration, sibling func(conn net.Conn, r *http.Request)) *handing {
	t.Helper()
	busy := make(chan struct{})
	rt := New(App{Name: "a", Workers: 1, Timeout: timeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/busy":
			<-busy
		case "/wait":
			<-r.Context().Done()
		case "/unread":
			_ = http.NewResponseController(w).Flush()
		default:
			body, err := io.ReadAll(r.Body)
			fmt.Fprintf(w, "here, with %d bytes, %v", len(body), err)
		}
	})})
	rt.Logger = zap.NewNop()
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := rt.Env().Dial(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if resp, err := rt.Env().Get(t.Context(), "http://a.watt.local/busy"); err == nil {
			resp.Body.Close()
		}
	}()
	synctest.Wait()
	to := &neighbour{slot: new(page.Slot)}
	to.slot.State.Store(slotReady)
	to.pool.Dial = func(context.Context) (net.Conn, error) {
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			if r, err := http.ReadRequest(bufio.NewReader(there)); err == nil {
				sibling(there, r)
			}
		}()
		return here, nil
	}
	c := &child{rt: rt, app: rt.app("a")}
	c.handover = &handover{child: c, siblings: []*neighbour{to}}
	rt.child = c
	t.Cleanup(func() {
		conn.Close()
		to.pool.Close()
		synctest.Wait()
		rt.child = nil
		if err := rt.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &handing{conn, to, func() { close(busy) }, c.app.conf().QueueTimeout}
}

// send sends a request, and waits until nothing more happens by itself.
func (h *handing) send(format string, args ...any) {
	go fmt.Fprintf(h.conn, format, args...)
	synctest.Wait()
}

// answer returns the status and the body of the answer.
func (h *handing) answer(t *testing.T) (status int, body string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(h.conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(text)
}

func TestWhatASiblingHasNotBegunIsServedHere(t *testing.T) {
	refuses := func(conn net.Conn, _ *http.Request) {
		io.WriteString(conn, "HTTP/1.1 503 Service Unavailable\r\nX-Watt-Refused: overloaded\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	}
	ends := func(net.Conn, *http.Request) {}
	endsWithAll := func(_ net.Conn, r *http.Request) { io.Copy(io.Discard, r.Body) } // which is sent after a second without being asked for
	for name, c := range map[string]struct {
		sibling func(net.Conn, *http.Request)
		size    int
		status  int
		doubted bool
	}{
		"it refuses it":                            {refuses, 0, http.StatusOK, false},
		"it refuses it, and its body":              {refuses, 1, http.StatusOK, false},
		"it ends":                                  {ends, 0, http.StatusOK, true},
		"it ends, and the body is there":           {ends, 1, http.StatusOK, true},
		"it ends with the body":                    {endsWithAll, 1, http.StatusOK, true},
		"it ends with more of a body than is kept": {endsWithAll, 100_000, http.StatusServiceUnavailable, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHanding(t, 0, c.sibling)
				h.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", c.size, strings.Repeat("x", c.size))
				h.free()
				status, body := h.answer(t)
				if here := body == fmt.Sprintf("here, with %d bytes, <nil>", c.size); status != c.status || here != (status == http.StatusOK) {
					t.Errorf("got %d, %s", status, body)
				}
				if h.sibling.slot.Doubted() != c.doubted {
					t.Errorf("the sibling is doubted: %t", !c.doubted)
				}
			})
		})
	}
}

func TestQueueTimeoutHoldsForWhatComesBackFromASibling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h *handing
		h = newHanding(t, 0, func(net.Conn, *http.Request) {
			time.Sleep(h.longest / 2)
			h.sibling.slot.State.Store(slotSilent) // or it would be given it again
		})
		began := time.Now()
		h.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		status, body := h.answer(t)
		if took := time.Since(began); status != http.StatusServiceUnavailable || took != h.longest {
			t.Errorf("got %d, %s after %v, want 503 after %v", status, body, took, h.longest)
		}
		h.free()
	})
}

// TestABodyThatNobodyReadsEndsTheConnectionOfWhatComesBackFromASibling, and the answer says so, as where it was not handed over.
func TestABodyThatNobodyReadsEndsTheConnectionOfWhatComesBackFromASibling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHanding(t, 0, func(net.Conn, *http.Request) {})
		h.send("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
		h.free()
		in := bufio.NewReader(h.conn)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Error(err)
		}
		if rest, err := io.ReadAll(in); !resp.Close || len(rest) > 0 || err != nil {
			t.Errorf("got %q, %v after the answer, which says that the connection ends: %t", rest, err, resp.Close)
		}
	})
}

func TestTimeoutHoldsForWhatComesBackFromASibling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHanding(t, time.Second, func(net.Conn, *http.Request) { time.Sleep(time.Second / 2) })
		began := time.Now()
		h.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
		h.free()
		status, body := h.answer(t)
		if took := time.Since(began); status != http.StatusGatewayTimeout || took != time.Second {
			t.Errorf("got %d, %s after %v", status, body, took)
		}
	})
}

func TestTimeoutHoldsWhileASiblingDoesNotComeToARequest(t *testing.T) {
	for name, said := range map[string]string{"with a body": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", "without": "GET / HTTP/1.1\r\nHost: a\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHanding(t, time.Second, func(conn net.Conn, _ *http.Request) { io.Copy(io.Discard, conn) })
				began := time.Now()
				h.send("%s", said)
				status, body := h.answer(t)
				if took := time.Since(began); status != http.StatusGatewayTimeout || took != time.Second {
					t.Errorf("got %d, %s after %v", status, body, took)
				}
				h.free()
			})
		})
	}
}

func TestTimeoutIsForTheFirstByteOfWhatASiblingAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHanding(t, time.Second, func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nso")
			time.Sleep(2 * time.Second)
			io.WriteString(conn, "on")
		})
		h.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if status, body := h.answer(t); status != http.StatusOK || body != "soon" {
			t.Errorf("got %d, %s", status, body)
		}
		h.free()
	})
}

func TestASiblingBelievesNothingThatTheCallerHasSaidOfItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got http.Header
		h := newHanding(t, 0, func(conn net.Conn, r *http.Request) {
			got = r.Header
			io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		})
		var forged strings.Builder
		for _, name := range handedHeaders() {
			fmt.Fprintf(&forged, "%s: forged\r\n", name)
		}
		h.send("GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", forged.String())
		if status, body := h.answer(t); status != http.StatusNoContent {
			t.Errorf("got %d, %s", status, body)
		}
		for _, name := range handedHeaders() {
			if slices.Contains(got[name], "forged") {
				t.Errorf("it is told %s: %s", name, got[name])
			}
		}
		h.free()
	})
}
