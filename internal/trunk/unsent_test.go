package trunk_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/roundtrip"
)

// TestWhatACalleeHasNotGotWasNotSent has the callee end in the middle of a request: others have gone out before, and more
// wait.
func TestWhatACalleeHasNotGotWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const whole, calls = 3, 10
		end := make(chan struct{})
		client := script(t, pipes, func(b *bare) {
			for range whole {
				b.hear()
			}
			io.ReadFull(b.r, make([]byte, 20))
			<-end
		})
		errs := make(chan error, calls)
		for range calls {
			go func() {
				_, err := client.RoundTrip(request(t, t.Context(), http.MethodPost, strings.Repeat("x", 10_000)), time.Time{})
				errs <- err
			}()
		}
		synctest.Wait()
		close(end)
		sent := 0
		for range calls {
			switch err := <-errs; {
			case errors.Is(err, roundtrip.ErrNotSent):
			case errors.Is(err, io.ErrUnexpectedEOF):
				sent++
			default:
				t.Errorf("got error %v", err)
			}
		}
		if sent != whole { // bufio may have read a little of the next
			t.Errorf("%d calls failed as sent, want %d", sent, whole)
		}
	})
}

// late is a connection whose Write returns later than its bytes arrive.
type late struct {
	net.Conn
	returns chan struct{} // closed when they may return
}

func (l *late) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	<-l.returns
	return n, err
}

// TestWhatHasBegunIsNeverTakenForUnsent has the callee answer, or end, before the caller knows that it has sent the request.
func TestWhatHasBegunIsNeverTakenForUnsent(t *testing.T) {
	for name, then := range map[string]func(*bare){
		"the callee ends":   func(*bare) {},
		"the callee cuts":   func(b *bare) { b.say(frame(kindCut, 1, "")); b.hear() },
		"the callee speaks": func(b *bare) { b.say(frame(100, 1, "what?")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := &late{returns: make(chan struct{})}
				client := script(t, func(tb testing.TB) (net.Conn, net.Conn) {
					tb.Helper()
					near, far := pipes(tb)
					conn.Conn = near
					return conn, far
				}, func(b *bare) {
					b.hear()
					then(b)
				})
				failed := make(chan error)
				go func() {
					_, err := client.RoundTrip(request(t, t.Context(), http.MethodPost, "content"), time.Time{})
					failed <- err
				}()
				synctest.Wait()
				close(conn.returns)
				if err := <-failed; err == nil || errors.Is(err, roundtrip.ErrNotSent) {
					t.Errorf("got error %v, which says that it was not sent", err)
				}
				client.CloseIdle()
			})
		})
	}
}

// TestOfWhatWaitsForASocketItIsKnownWhatHasGone has a callee read some of many requests, for which the system has no room.
func TestOfWhatWaitsForASocketItIsKnownWhatHasGone(t *testing.T) {
	const calls, heard = 64, 5
	var sent sync.WaitGroup
	sent.Add(calls)
	had := make(chan string, heard)
	client := script(t, pair, func(b *bare) {
		sent.Wait()
		for range heard {
			_, _, content, _ := b.hear()
			had <- content[strings.Index(content, "<"):strings.Index(content, ">")]
		}
		close(had)
	})
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { sent.Done() }})
	errs := make([]error, calls)
	var callers sync.WaitGroup
	for i := range calls {
		callers.Go(func() {
			req := request(t, ctx, http.MethodPost, strings.Repeat("x", 16<<10))
			req.Header.Set("X-Id", fmt.Sprintf("<%d>", i))
			_, errs[i] = client.RoundTrip(req, time.Time{})
		})
	}
	callers.Wait()
	unsent := 0
	for i, err := range errs {
		switch {
		case err == nil:
			t.Errorf("call %d has an answer", i)
		case errors.Is(err, roundtrip.ErrNotSent):
			unsent++
		}
	}
	for id := range had {
		i, _ := strconv.Atoi(id[1:])
		if err := errs[i]; errors.Is(err, roundtrip.ErrNotSent) {
			t.Errorf("call %d, which the callee has, got error %v", i, err)
		}
	}
	if unsent == 0 || unsent > calls-heard {
		t.Errorf("%d of %d calls are taken for unsent, of which the callee has %d", unsent, calls, heard)
	}
}

var errBroken = errors.New("the connection has broken")

// partial is a connection that takes some bytes of each Write, and then fails.
type partial struct {
	net.Conn
	left int
}

func (p *partial) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b[:min(len(b), p.left)])
	if p.left -= n; err == nil && n < len(b) {
		err = errBroken
	}
	return n, err
}

// TestAFailureInAFrameConcernsThoseWhoseFramesHaveNotGone writes more and more of some requests.
func TestAFailureInAFrameConcernsThoseWhoseFramesHaveNotGone(t *testing.T) {
	const calls = 4
	synctest.Test(t, func(t *testing.T) {
		var size int
		measure := script(t, pipes, func(b *bare) {
			_, _, content, _ := b.hear()
			size = 13 + len(content)
			b.say(frame(kindAnswer, 1, plainAnswer(true, "")))
		})
		get(t, measure)
		for left := 0; left <= calls*size; left += size / 3 {
			client := script(t, func(tb testing.TB) (net.Conn, net.Conn) {
				tb.Helper()
				near, far := pipes(tb)
				return &partial{Conn: near, left: left}, far
			}, func(b *bare) { io.Copy(io.Discard, b) })
			errs := make(chan error, calls)
			for range calls {
				go func() {
					_, err := client.RoundTrip(request(t, t.Context(), http.MethodGet, ""), time.Now().Add(time.Minute))
					errs <- err
				}()
				synctest.Wait()
			}
			time.Sleep(time.Second)
			client.CloseIdle()
			sent := 0
			for range calls {
				if err := <-errs; !errors.Is(err, roundtrip.ErrNotSent) && !errors.Is(err, errOver) {
					sent++
				}
			}
			if want := left / size; sent != want {
				t.Errorf("with %d bytes %d requests of %d are taken for sent, want %d", left, sent, size, want)
			}
		}
	})
}
