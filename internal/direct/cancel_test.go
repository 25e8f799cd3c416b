package direct_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stuck is a place where an exchange can be when its caller leaves.
type stuck struct {
	body    func() (io.Reader, int64)
	handler http.HandlerFunc
	late    bool                       // the handler begins after the caller has left
	read    func(*http.Response) error // what the caller does with the answer
}

// never is a body that does not come.
func never(length int64) func() (io.Reader, int64) {
	return func() (io.Reader, int64) {
		r, _ := io.Pipe()
		return r, length
	}
}

func short() (io.Reader, int64) { return strings.NewReader("hello"), 5 }

func waits(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func readAll(resp *http.Response) error {
	_, err := io.ReadAll(resp.Body)
	return err
}

// places is where an exchange can be, with what its handler has done up to there.
func places() map[string]stuck {
	writes := func(size int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, text(size))
			flush(w)
			waits(w, r)
		}
	}
	declares := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		writes(10)(w, r)
	}
	reads := func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }
	writesForEver := func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := io.WriteString(w, text(10<<10)); err != nil {
				return
			}
		}
	}
	return map[string]stuck{
		"before the handler begins":                     {body: short, handler: waits, late: true},
		"before the handler reads":                      {body: never(-1), handler: waits, late: true},
		"while the handler waits":                       {body: short, handler: waits},
		"while the handler waits with bytes held back":  {body: short, handler: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "some"); waits(w, r) }},
		"while the handler reads a body of no length":   {body: never(-1), handler: reads},
		"while the handler reads a body of some length": {body: never(100), handler: reads},
		"while the handler reads and answers":           {body: never(100), handler: func(w http.ResponseWriter, r *http.Request) { flush(w); reads(w, r) }, read: readAll},
		"before a streamed body":                        {body: short, handler: writes(0), read: readAll},
		"in a streamed body":                            {body: short, handler: writes(10), read: readAll},
		"in a body of some length":                      {body: short, handler: declares, read: readAll},
		"while the handler writes what nobody reads": {body: short, handler: writesForEver, read: func(resp *http.Response) error {
			<-resp.Request.Context().Done()
			synctest.Wait()
			return readAll(resp)
		}},
	}
}

// TestAnExchangeEndsWithItsContextWhereverItIs cancels at every point at which one can wait. The bubble fails
// if a goroutine is left.
func TestAnExchangeEndsWithItsContextWhereverItIs(t *testing.T) {
	for name, at := range places() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				ended := make(chan error)
				body, c, begin := at.start(t, ctx, ended)
				synctest.Wait()
				select {
				case err := <-ended:
					t.Fatalf("got error %v before the end of the context", err)
				default:
				}
				if got := c.told.Load(); got != 0 {
					t.Errorf("the callee was told %d times before the end of the context", got)
				}
				cancel(errGivenUp)
				if err := <-ended; err != errGivenUp { //nolint:errorlint // the cause itself
					t.Errorf("got error %v, want the context's cause", err)
				}
				begin()
				synctest.Wait()
				select {
				case <-c.returned:
				default:
					t.Fatal("the handler is still at it")
				}
				if c.told.Load() == 0 {
					t.Error("the callee was not told")
				}
				body.closedOnce(t)
			})
		})
	}
}

// start begins the exchange. It returns what lets a late handler begin; ended gets the caller's error.
func (at stuck) start(t *testing.T, ctx context.Context, ended chan<- error) (*trackedBody, *callee, func()) { //nolint:revive // t first
	t.Helper()
	r, length := at.body()
	req, body := post(t, r, length)
	req = req.WithContext(ctx)
	gate := make(chan struct{})
	if !at.late {
		close(gate)
	}
	c := newCallee(func(w http.ResponseWriter, r *http.Request) {
		<-gate
		at.handler(w, r)
		if n, err := io.WriteString(w, text(100<<10)); err == nil {
			t.Errorf("the handler has written %d bytes to nobody", n)
		}
		if n, err := io.Copy(io.Discard, r.Body); err == nil {
			t.Errorf("the handler has read %d bytes to an end", n)
		}
	})
	go func() {
		resp, err := c.roundTrip(req, time.Time{})
		if err == nil && at.read != nil {
			err = at.read(resp)
			for range 2 { // and it stays so
				if _, again := resp.Body.Read(make([]byte, 1)); !errors.Is(again, err) {
					t.Errorf("got error %v after %v", again, err)
				}
			}
			resp.Body.Close()
		}
		ended <- err
	}()
	return body, c, func() {
		if at.late {
			close(gate)
		}
	}
}

func TestACallerWhoClosesTheAnswerEndsTheHandler(t *testing.T) {
	for name, at := range places() {
		if at.read == nil {
			continue // there is no answer to close
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				closes := errors.New("closed")
				at.read = func(resp *http.Response) error {
					synctest.Wait()
					resp.Body.Close()
					if _, err := resp.Body.Read(make([]byte, 1)); err != http.ErrBodyReadAfterClose { //nolint:errorlint // bare, as net/http's
						t.Errorf("got error %v after Close, want %v", err, http.ErrBodyReadAfterClose)
					}
					return closes
				}
				r, length := at.body()
				req, body := post(t, r, length)
				c := newCallee(at.handler)
				resp, err := c.roundTrip(req, time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				if err := at.read(resp); err != closes { //nolint:errorlint // its own
					t.Error(err)
				}
				<-c.returned
				if c.told.Load() == 0 {
					t.Error("the callee was not told")
				}
				body.closedOnce(t)
			})
		})
	}
}

func TestNoAnswerByTheTimeIsDeadlineExceeded(t *testing.T) {
	for name, at := range places() {
		if at.read != nil {
			continue // the answer has begun
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, length := at.body()
				req, body := post(t, r, length)
				gate := make(chan struct{})
				c := newCallee(func(w http.ResponseWriter, r *http.Request) {
					if at.late {
						<-gate
					}
					at.handler(w, r)
				})
				start := time.Now()
				_, err := c.roundTrip(req, start.Add(30*time.Second))
				if got := time.Since(start); err != context.DeadlineExceeded || got != 30*time.Second { //nolint:errorlint // bare
					t.Errorf("got error %v after %v, want %v after 30s", err, got, context.DeadlineExceeded)
				}
				close(gate)
				<-c.returned
				if c.told.Load() == 0 {
					t.Error("the callee was not told")
				}
				body.closedOnce(t)
			})
		})
	}
}

func TestTheTimeDoesNotLimitTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCallee(func(w http.ResponseWriter, _ *http.Request) {
			flush(w)
			time.Sleep(time.Hour)
			io.WriteString(w, "late")
		})
		resp, err := c.roundTrip(request(t, t.Context(), http.MethodGet, nil), time.Now().Add(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		wantBody(t, resp.Body, "late", nil)
		resp.Body.Close()
		if got := c.told.Load(); got != 0 {
			t.Errorf("the callee was told %d times of a caller that has read everything", got)
		}
	})
}

func TestAPassedTimeIsDeadlineExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCallee(waits)
		_, err := c.roundTrip(request(t, t.Context(), http.MethodGet, nil), time.Now().Add(-time.Second))
		if err != context.DeadlineExceeded { //nolint:errorlint // bare
			t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
		}
		<-c.returned
	})
}

func TestAWholeAnswerCannotBeReadAfterTheContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	resp := answer(t, request(t, ctx, http.MethodGet, nil), func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "whole") })
	cancel(errGivenUp)
	wantBody(t, resp.Body, "", errGivenUp)
}

func TestTheEndOfTheContextAfterTheAnswerIsNothingToTheCallee(t *testing.T) {
	for name, size := range map[string]int{"empty": 0, "whole": 10, "streamed": 100 << 10} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				c := newCallee(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text(size)) })
				resp, err := c.roundTrip(request(t, ctx, http.MethodGet, nil), time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				wantBody(t, resp.Body, text(size), nil)
				cancel()
				synctest.Wait()
				if got := c.told.Load(); got != 0 {
					t.Errorf("the callee was told %d times", got)
				}
			})
		})
	}
}

func TestACallerMayChangeTheRequestOnceItHasTheError(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	c := newCallee(func(w http.ResponseWriter, r *http.Request) {
		cancel(errGivenUp)
		for r.Context().Err() == nil {
			r.Header.Get("X-Again")
		}
		for range 1000 {
			r.Header.Get("X-Again")
			io.WriteString(w, text(3000))
			flush(w)
		}
	})
	req := request(t, ctx, http.MethodGet, nil)
	if _, err := c.roundTrip(req, time.Time{}); err != errGivenUp { //nolint:errorlint // the cause itself
		t.Errorf("got error %v, want the context's cause", err)
	}
	req.Method = http.MethodHead
	req.Header.Set("X-Again", "1")
	req.URL.Path = "/again"
	req.Host = "another.test"
	<-c.returned
}

func TestInformingForEverEndsWithTheContext(t *testing.T) {
	for name, trace := range map[string]*httptrace.ClientTrace{
		"seen":   {Got1xxResponse: func(int, textproto.MIMEHeader) error { return nil }},
		"unseen": {GotConn: func(httptrace.GotConnInfo) {}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			count := 0
			c := newCallee(func(w http.ResponseWriter, r *http.Request) {
				for ; r.Context().Err() == nil; count++ {
					if w.WriteHeader(http.StatusEarlyHints); count == 100 {
						cancel(errGivenUp)
					}
				}
			})
			_, err := c.roundTrip(request(t, httptrace.WithClientTrace(ctx, trace), http.MethodGet, nil), time.Time{})
			if err != errGivenUp { //nolint:errorlint // the cause itself
				t.Errorf("got error %v, want the context's cause", err)
			}
			<-c.returned
		})
	}
}

// An answer without a body is complete at once, but its handler may still wait for the request's.
// The body's own Close waits for the Read that it is to end.
func TestACompleteAnswerEndsTheReadingOfABodyThatCannotBeClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		c := newCallee(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNoContent)
			flush(w)
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				t.Error("got no error from Read")
			}
		})
		resp, err := c.roundTrip(request(t, t.Context(), http.MethodPost, &slowBody{r, make(chan struct{}, 1)}), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		select {
		case <-c.returned:
		case <-time.After(time.Second):
			t.Error("the handler is still at it")
		}
		w.Close()
	})
}

func TestACompleteAnswerEndsWhatTheHandlerStillReads(t *testing.T) {
	for name, test := range map[string]struct {
		method string
		begin  func(http.ResponseWriter)
		want   int
	}{
		"no body": {http.MethodPost, func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent); flush(w) }, 0},
		"a known length": {http.MethodPost, func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hello")
			flush(w)
		}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _ := io.Pipe()
				req, body := post(t, r, -1)
				c := newCallee(func(w http.ResponseWriter, r *http.Request) {
					test.begin(w)
					if _, err := io.Copy(io.Discard, r.Body); err == nil {
						t.Error("got no error from Read")
					}
				})
				resp, err := c.roundTrip(req, time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				wantBody(t, resp.Body, "hello"[:test.want], nil)
				resp.Body.Close()
				time.Sleep(time.Second)
				select {
				case <-c.returned:
				default:
					t.Error("the handler is still at it")
					r.Close()
				}
				body.closedOnce(t)
			})
		})
	}
}
