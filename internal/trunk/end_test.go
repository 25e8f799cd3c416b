package trunk_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/roundtrip"
)

func TestTheCalleeHearsThatItsCallerDoesWithoutTheAnswer(t *testing.T) {
	never := func(*incoming) {}
	long := func(c *incoming) { streamed(c, endless) }
	for name, test := range map[string]struct {
		answer func(*incoming)
		by     time.Duration // 0: none
		then   func(resp *http.Response, cancel func())
		want   error // of RoundTrip
	}{
		"its context ends":          {never, 0, func(_ *http.Response, cancel func()) { cancel() }, errOver},
		"its time is over":          {never, time.Hour, nil, context.DeadlineExceeded},
		"it closes the body":        {long, 0, func(resp *http.Response, _ func()) { resp.Body.Close() }, nil},
		"its context ends later":    {long, 0, func(_ *http.Response, cancel func()) { cancel() }, nil},
		"it closes what it has not": {long, time.Hour, func(resp *http.Response, _ func()) { resp.Body.Close() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, left := make(chan struct{}), make(chan struct{})
				client, n := serve(t, pipes, func(c *incoming) {
					if c.Request.Method == http.MethodPut {
						whole(c, "answer")
						return
					}
					test.answer(c)
					close(began)
					<-gone(c)
					close(left)
				})
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				end := func() { cancel(errOver) }
				if test.want != nil && test.then != nil {
					go func() { <-began; test.then(nil, end) }()
				}
				start, by := time.Now(), time.Time{}
				if test.by > 0 {
					by = start.Add(test.by)
				}
				resp, err := client.RoundTrip(request(t, ctx, http.MethodGet, ""), by)
				if !errors.Is(err, test.want) || errors.Is(err, roundtrip.ErrNotSent) {
					t.Errorf("got error %v, want %v", err, test.want)
				}
				if err == nil {
					<-began
					test.then(resp, end)
				} else if took := time.Since(start); took != test.by {
					t.Errorf("RoundTrip took %v, want %v", took, test.by)
				}
				<-left
				resp, err = client.RoundTrip(request(t, t.Context(), http.MethodPut, ""), time.Time{})
				if got := readAll(t, resp, err); got != "answer" || n.dials() != 1 {
					t.Errorf("got %q then, on connection %d", got, n.dials())
				}
			})
		})
	}
}

func TestAContextThatHasEndedSendsNothing(t *testing.T) {
	var served atomic.Int64
	client, _ := serve(t, pair, func(c *incoming) {
		served.Add(1)
		whole(c, "")
	})
	for _, before := range []string{"no connection", "one"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errOver)
		_, err := client.RoundTrip(request(t, ctx, http.MethodGet, ""), time.Time{})
		if !errors.Is(err, errOver) || !errors.Is(err, roundtrip.ErrNotSent) {
			t.Errorf("%s: got error %v, want %v that wraps %v", before, err, roundtrip.ErrNotSent, errOver)
		}
		get(t, client)
	}
	if n := served.Load(); n != 2 {
		t.Errorf("%d calls were served, want 2", n)
	}
}

func TestWhatWasSentToACalleeThatLeavesIsAnswered(t *testing.T) {
	begun, answer := make(chan *incoming), make(chan struct{})
	client, n := serve(t, pair, func(c *incoming) {
		if c.Request.Method == http.MethodGet {
			whole(c, "another")
			return
		}
		begun <- c
		<-answer
		whole(c, "answer")
	})
	heard := make(chan struct{})
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { close(heard); return nil },
	})
	var caller sync.WaitGroup
	caller.Go(func() {
		resp, err := client.RoundTrip(request(t, ctx, http.MethodPost, ""), time.Time{})
		if got := readAll(t, resp, err); got != "answer" {
			t.Errorf("got %q", got)
		}
	})
	c := <-begun
	n.latest().Leave()
	c.Inform(http.StatusEarlyHints, http.Header{}) // it is heard after that
	<-heard
	if got := get(t, client); got != "another" || n.dials() != 2 {
		t.Errorf("got %q on connection %d, want one of its own", got, n.dials())
	}
	if got := n.ended(); len(got) != 0 {
		t.Errorf("a connection has ended while a call used it: %v", got)
	}
	close(answer)
	caller.Wait()
	client.Close()
	n.serves.Wait()
	for _, err := range n.ended() {
		if err != io.EOF { //nolint:errorlint // Serve returns it bare
			t.Errorf("a connection has ended with %v, want %v", err, io.EOF)
		}
	}
}

func TestAConnectionWithoutCallsEndsWhenTheCalleeLeaves(t *testing.T) {
	client, n := serve(t, pair, func(c *incoming) { whole(c, "answer") })
	for i := range 3 {
		if got := get(t, client); got != "answer" || n.dials() != i+1 {
			t.Errorf("got %q on connection %d", got, n.dials())
		}
		n.latest().Leave()
		n.serves.Wait()
	}
}

func TestACalleeThatEndsTakesItsCallsAlong(t *testing.T) {
	for name, test := range map[string]struct {
		then func(*bare) // having heard the request
		body bool        // there is an answer
	}{
		"before it answers": {func(*bare) {}, false},
		"in a frame":        {func(b *bare) { b.say(frame(kindAnswer, 1, plainAnswer(false, ""))[:20]) }, false},
		"in the answer":     {func(b *bare) { b.say(frame(kindAnswer, 1, plainAnswer(false, "")), frame(kindData, 1, "content")) }, true},
		"in a part of it": {
			func(b *bare) {
				b.say(frame(kindAnswer, 1, plainAnswer(false, "")), frame(kindData, 1, "content later")[:20])
			}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := script(t, pair, func(b *bare) {
				b.hear()
				test.then(b)
			}, func(b *bare) {
				b.hear()
				b.say(frame(kindAnswer, 1, plainAnswer(true, "another")))
				b.hear()
			})
			resp, err := client.RoundTrip(request(t, t.Context(), http.MethodGet, ""), time.Time{})
			if test.body {
				if err != nil {
					t.Fatal(err)
				}
				var got []byte
				got, err = io.ReadAll(resp.Body)
				if !strings.HasPrefix(string(got), "content") {
					t.Errorf("got %q of the body", got)
				}
				resp.Body.Close()
			}
			if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, roundtrip.ErrNotSent) {
				t.Errorf("got error %v, want %v", err, io.ErrUnexpectedEOF)
			}
			if got := get(t, client); got != "another" {
				t.Errorf("got %q on the next connection", got)
			}
		})
	}
}

func TestEachCallHearsThatItsCallerHasGone(t *testing.T) {
	const calls = 20
	var left, begun sync.WaitGroup
	left.Add(calls)
	begun.Add(calls)
	b, served := caller(t, pair, func(c *incoming) {
		if c.Request.Method == http.MethodPut {
			streamed(c, endless)
		}
		c.OnGone(left.Done)
		begun.Done()
	})
	for i := range calls {
		method := []string{http.MethodGet, http.MethodPut}[i%2]
		b.say(frame(kindRequest, uint64(i+1), "\x00"+number(0)+text(method)+text("callee")+text("/")+number(0)))
	}
	begun.Wait()
	b.Close()
	left.Wait()
	if err := <-served; err == nil {
		t.Error("Serve has ended without an error")
	}
}

func TestWhoAsksLateHearsAtOnceThatItsCallerHasGone(t *testing.T) {
	ask, told := make(chan struct{}), make(chan struct{})
	b, served := caller(t, pair, func(c *incoming) {
		<-ask
		c.OnGone(func() { close(told) })
	})
	b.say(frame(kindRequest, 1, plainRequest()))
	b.Close()
	<-served
	close(ask)
	<-told
}

func TestAnEndThatComesInTheMiddleIsTold(t *testing.T) {
	for name, end := range map[string]string{
		"between frames": "",
		"in a head":      frame(kindGone, 1, "")[:5],
		"in a content":   frame(kindRequest, 1, plainRequest())[:15],
		"in a long one":  frame(kindRequest, 1, strings.Repeat("x", 100_000))[:50_000],
	} {
		b, served := caller(t, pair, func(*incoming) {})
		b.say(end)
		b.Close()
		want := io.ErrUnexpectedEOF
		if end == "" {
			want = io.EOF
		}
		if err := <-served; err != want { //nolint:errorlint // Serve returns them bare
			t.Errorf("%s: got error %v, want %v", name, err, want)
		}
	}
}

// TestANumberInUseEndsTheConnection has the call that it belongs to hear that.
func TestANumberInUseEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, left := make(chan struct{}), make(chan struct{})
		b, served := caller(t, pipes, func(c *incoming) {
			c.OnGone(func() { close(left) })
			close(begun)
		})
		b.say(frame(kindRequest, 1, plainRequest()))
		<-begun
		b.say(frame(kindRequest, 1, plainRequest()))
		if err := <-served; err == nil || err == io.EOF { //nolint:errorlint // Serve returns it bare
			t.Errorf("Serve has returned %v", err)
		}
		<-left
	})
}

// TestANumberThatIsUsedAgainBelongsToTheLatestCall has an earlier one be answered although its caller has gone.
func TestANumberThatIsUsedAgainBelongsToTheLatestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := make(chan *incoming)
		b, served := caller(t, pipes, func(c *incoming) { calls <- c })
		b.say(frame(kindRequest, 1, plainRequest()))
		first := <-calls
		left := gone(first)
		b.say(frame(kindGone, 1, ""))
		<-left
		b.say(frame(kindRequest, 1, plainRequest()))
		second := <-calls
		left = gone(second)
		whole(first, "late")
		b.Close()
		<-served
		select {
		case <-left:
		default:
			t.Error("the second call has not heard that its caller has gone")
		}
	})
}

// TestACallerThatHasReadAllIsNotGone reads as much as was promised, and no more.
func TestACallerThatHasReadAllIsNotGone(t *testing.T) {
	const size, calls = 10_000, 2000
	left := make(chan struct{}, calls)
	client, _ := serve(t, pair, func(c *incoming) {
		resp := response()
		resp.ContentLength, resp.Body = size, io.NopCloser(iotest.DataErrReader(strings.NewReader(strings.Repeat("x", size))))
		c.OnGone(func() { left <- struct{}{} })
		c.Answer(resp, nil, false, nil)
	})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			content := make([]byte, size)
			for range calls / 4 {
				resp, err := client.RoundTrip(request(t, t.Context(), http.MethodGet, ""), time.Time{})
				if err == nil {
					_, err = io.ReadFull(resp.Body, content)
					resp.Body.Close()
				}
				if err != nil {
					t.Errorf("got error %v", err)
				}
			}
		})
	}
	callers.Wait()
	if got := len(left); got > 0 {
		t.Errorf("%d of %d callers are taken for gone", got, calls)
	}
}
