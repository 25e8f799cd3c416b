package direct_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// ends is what a handler can do instead of returning.
func ends() map[string]func() {
	return map[string]func(){
		"panic":  func() { panic(http.ErrAbortHandler) },
		"Goexit": runtime.Goexit,
	}
}

func TestAHandlerThatDoesNotReturnCutsItsAnswerOff(t *testing.T) {
	for how, end := range ends() {
		for name, test := range map[string]struct {
			before func(http.ResponseWriter)
			got    int // bytes of the body; -1 if there is no answer
		}{
			"before the answer":        {func(http.ResponseWriter) {}, -1},
			"after the head":           {func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }, -1},
			"after bytes held back":    {func(w http.ResponseWriter) { io.WriteString(w, text(100)) }, -1},
			"after early hints":        {func(w http.ResponseWriter) { w.WriteHeader(http.StatusEarlyHints) }, -1},
			"after a flush":            {func(w http.ResponseWriter) { flush(w) }, 0},
			"after flushed bytes":      {func(w http.ResponseWriter) { io.WriteString(w, text(100)); flush(w) }, 100},
			"after bytes behind those": {func(w http.ResponseWriter) { io.WriteString(w, text(100)); flush(w); io.WriteString(w, "lost") }, 100},
			"after many bytes":         {func(w http.ResponseWriter) { io.WriteString(w, text(50<<10)) }, 50 << 10},
			"in a known length":        {func(w http.ResponseWriter) { w.Header().Set("Content-Length", "1000"); writeBytes(w, 10); flush(w) }, 10},
			"with trailers":            {func(w http.ResponseWriter) { w.Header().Set("Trailer", "X-T"); flush(w); w.Header().Set("X-T", "1") }, 0},
		} {
			t.Run(how+" "+name, func(t *testing.T) {
				resp, err := ask(t, request(t, t.Context(), http.MethodGet, nil), func(w http.ResponseWriter, _ *http.Request) {
					test.before(w)
					end()
				})
				if test.got < 0 {
					if !errors.Is(err, io.ErrUnexpectedEOF) {
						t.Errorf("got %v, %v, want %v", resp, err, io.ErrUnexpectedEOF)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				wantBody(t, resp.Body, text(test.got), io.ErrUnexpectedEOF)
				if got := resp.Trailer.Get("X-T"); got != "" {
					t.Errorf("got the trailer %q", got)
				}
				resp.Body.Close()
			})
		}
	}
}

func TestACompleteBodyIsNotTakenBackByAPanic(t *testing.T) {
	resp := get(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		writeBytes(w, 10)
		flush(w)
		panic(http.ErrAbortHandler)
	})
	wantBody(t, resp.Body, text(10), nil)
}

func TestCutEndsAnAnswerWhereItIs(t *testing.T) {
	for name, test := range map[string]struct {
		before func(http.ResponseWriter)
		got    int // bytes of the body; -1 if there is no answer
	}{
		"before the answer":     {func(http.ResponseWriter) {}, -1},
		"after bytes held back": {func(w http.ResponseWriter) { io.WriteString(w, text(100)) }, -1},
		"after a flush":         {func(w http.ResponseWriter) { io.WriteString(w, text(100)); flush(w) }, 100},
		"in a known length":     {func(w http.ResponseWriter) { w.Header().Set("Content-Length", "1000"); writeBytes(w, 10); flush(w) }, 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cut := make(chan struct{})
				r, _ := io.Pipe()
				req, body := post(t, r, -1)
				c := newCallee(func(w http.ResponseWriter, r *http.Request) {
					test.before(w)
					<-cut
					if _, err := io.WriteString(w, text(100<<10)); err == nil {
						t.Error("got no error from Write")
					}
					if _, err := io.Copy(io.Discard, r.Body); err == nil {
						t.Error("got no error from Read")
					}
				})
				go func() {
					synctest.Wait()
					c.exchange.Cut()
					synctest.Wait() // the caller knows
					close(cut)
				}()
				resp, err := c.roundTrip(req, time.Time{})
				if test.got < 0 {
					if !errors.Is(err, io.ErrUnexpectedEOF) {
						t.Errorf("got %v, %v, want %v", resp, err, io.ErrUnexpectedEOF)
					}
				} else if err != nil {
					t.Fatal(err)
				} else {
					wantBody(t, resp.Body, text(test.got), io.ErrUnexpectedEOF)
					resp.Body.Close()
				}
				<-c.returned
				body.closedOnce(t)
			})
		})
	}
}

func TestWhatIsCompleteCannotBeCut(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"whole":    func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text(10)) },
		"trailers": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Trailer", "X-A"); writeBytes(w, 10) },
		"streamed": func(w http.ResponseWriter, _ *http.Request) { flush(w); writeBytes(w, 10) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCallee(handler)
				resp, err := c.roundTrip(request(t, t.Context(), http.MethodGet, nil), time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // the handler has returned
				c.exchange.Cut()
				wantBody(t, resp.Body, text(10), nil)
			})
		})
	}
}

func TestAHandlerThatWasCutOffMayGoOnForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		c := newCallee(func(w http.ResponseWriter, _ *http.Request) {
			flush(w)
			<-gate
		})
		go func() { synctest.Wait(); c.exchange.Cut(); c.exchange.Cut() }()
		resp, err := c.roundTrip(request(t, t.Context(), http.MethodGet, nil), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		wantBody(t, resp.Body, "", io.ErrUnexpectedEOF)
		close(gate)
		<-c.returned
	})
}

// blocking is a body whose Close waits for something else, as that of a public request does for its Read.
type blocking struct{ free chan struct{} }

func (b blocking) Read([]byte) (int, error) { <-b.free; return 0, io.EOF }
func (b blocking) Close() error             { <-b.free; return nil }

func TestABodyWhoseCloseBlocksDoesNotHoldTheCaller(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"unread": waits,
		"read":   func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) },
		"early":  func(http.ResponseWriter, *http.Request) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := blocking{make(chan struct{})}
				req := request(t, t.Context(), http.MethodPost, body)
				c := newCallee(handler)
				resp, err := c.roundTrip(req, time.Now().Add(time.Second))
				if err == nil {
					resp.Body.Close()
				}
				if early := name == "early"; early != (err == nil) || !early && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got error %v", err)
				}
				<-c.returned
				close(body.free)
			})
		})
	}
}

// idle is a body that gives nothing, and does not mind being closed.
type idle struct{}

func (idle) Read([]byte) (int, error) { runtime.Gosched(); return 0, nil }
func (idle) Close() error             { return nil }

// TestMain would find who reads on.
func TestABodyThatGivesNothingIsNotReadForEver(t *testing.T) {
	for name, length := range map[string]int64{"known length": 5, "unknown length": -1} {
		t.Run(name, func(t *testing.T) {
			req := request(t, t.Context(), http.MethodPost, idle{})
			req.ContentLength = length
			c := newCallee(func(_ http.ResponseWriter, r *http.Request) { r.Body.Read(make([]byte, 1)) })
			if _, err := c.roundTrip(req, time.Now().Add(10*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got error %v", err)
			}
			<-c.returned
		})
	}
}
