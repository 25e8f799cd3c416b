package watt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
)

// Who has gone is no failure of the app that would have answered; whose time was up is.

// TestWhoHasGoneIsNoFailure: nobody is to be woken for it, unless the app has panicked.
func TestWhoHasGoneIsNoFailure(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	entered := make(chan struct{})
	a := app("a", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, err := io.Copy(io.Discard, r.Body)
			watt.WriteError(w, err)
			return
		}
		entered <- struct{}{}
		<-r.Context().Done()
		switch r.Method {
		case http.MethodPut:
			watt.WriteError(w, errors.New("driver: interrupted"))
		case http.MethodDelete:
			panic("on purpose")
		}
	})
	a.Listen = "127.0.0.1:0"
	rt := watt.New(a)
	rt.Logger = zap.New(core)
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rt.Shutdown(context.Background()) })

	conn := dialTCP(t, statusOf(t, rt, "a").Addr)
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbegin")
	conn.Close()
	for _, method := range []string{"GET", "PUT", "DELETE"} { // over TCP, and in the mesh
		conn := dialTCP(t, statusOf(t, rt, "a").Addr)
		io.WriteString(conn, method+" / HTTP/1.1\r\nHost: a\r\n\r\n")
		<-entered
		conn.Close()

		ctx, cancel := context.WithCancel(t.Context())
		called := make(chan error, 1)
		go func() {
			_, err := rt.Env().Client.Do(request(ctx, method, "http://a.watt.local/", nil))
			called <- err
		}()
		<-entered
		cancel()
		if err := within(t, called, "the call"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	want := map[string]map[string]uint64{"POST": {"4xx": 1}, "GET": {"4xx": 2}, "PUT": {"4xx": 2}, "DELETE": {"5xx": 2}}
	var got map[string]map[string]uint64
	defer func() { t.Logf("counted %v", got) }()
	soon(t, fmt.Sprint(want), func() bool {
		got = statusOf(t, rt, "a").PerInstance[0].Requests
		return reflect.DeepEqual(got, want)
	})
	if lines := logs.FilterMessage("request failed").All(); len(lines) != 0 {
		t.Errorf("got %v in the log", lines)
	}
}

// wantAnswers fails the test unless the first instance of a has given these answers to requests with method, by class.
func wantAnswers(t *testing.T, rt *watt.Runtime, method string, want map[string]uint64) {
	t.Helper()
	if got := statusOf(t, rt, "a").PerInstance[0].Requests[method]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// errgroup ends the calls that are left with the error of the first that has failed.
func TestWhyACallerGivesUpIsNoFailureOfTheCallee(t *testing.T) {
	for _, cause := range []error{context.DeadlineExceeded, watt.ErrUnavailable, context.Canceled} {
		synctest.Test(t, func(t *testing.T) {
			a := app("a", func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				watt.WriteError(w, r.Context().Err())
			})
			a.Timeout = 10 * time.Millisecond // of which nothing has passed
			rt := start(t, a)
			ctx, cancel := context.WithCancelCause(t.Context())
			called := going(ctx, rt, "a.watt.local/")
			synctest.Wait()
			cancel(&watt.CallError{App: "b", Err: cause})
			<-called
			synctest.Wait()
			wantAnswers(t, rt, http.MethodGet, map[string]uint64{"4xx": 1})
		})
	}
}

func TestWhoIsCutByItsOwnDrainHasGoneForItsCallee(t *testing.T) {
	for what, longLived := range map[string]bool{"at the end of its drain": false, "when its drain begins": true} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := app("a", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
				var err error
				rt := start(t, a, watt.App{Name: "caller", Calls: []string{"a"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if longLived {
							watt.LongLived(r.Context())
						}
						_, err = env.Get(r.Context(), "http://a.watt.local/")
						watt.WriteError(w, err)
					}), nil
				}})
				called := going(t.Context(), rt, "caller.watt.local/")
				synctest.Wait()
				if err := rt.Restart("caller", 0); err != nil {
					t.Fatal(err)
				}
				if r := <-called; r.status != http.StatusServiceUnavailable {
					t.Errorf("got %+v, want %d", r, http.StatusServiceUnavailable)
				}
				synctest.Wait()
				call := wantCall(t, err, "a", context.Canceled, true)
				if errors.Is(call, watt.ErrUnavailable) {
					t.Errorf("got %v, as if the callee were not there", call)
				}
				wantAnswers(t, rt, http.MethodGet, map[string]uint64{"4xx": 1})
				if got, want := callerOf(t, rt, "a", "caller").Errors, map[string]uint64{"canceled": 1}; !maps.Equal(got, want) {
					t.Errorf("counted %v, want %v", got, want)
				}
			})
		})
	}
}

// A caller behind a connection has the same clock, which strikes first as often as not.
func TestWhoGoesWhenTimeIsUpIsAFailure(t *testing.T) {
	for _, limits := range []struct{ timeout, deadline time.Duration }{{time.Second, time.Minute}, {time.Minute, time.Second}} {
		for range 20 {
			synctest.Test(t, func(t *testing.T) {
				rt, logs := logging(t, zapcore.WarnLevel, watt.App{Name: "a", Timeout: limits.timeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					<-r.Context().Done()
					if r.URL.Path == "/error" {
						watt.WriteError(w, r.Context().Err())
					}
				})})
				for _, path := range []string{"/silence", "/error"} {
					ctx, cancel := context.WithTimeout(t.Context(), limits.deadline)
					_, err := rt.Env().Client.Do(request(ctx, "REPORT", "http://a.watt.local"+path, nil))
					wantErr(t, err, context.DeadlineExceeded)
					cancel()
				}
				synctest.Wait()
				wantAnswers(t, rt, "other", map[string]uint64{"5xx": 2})
				if n := logs.FilterMessage("request failed").FilterField(zap.Int("status", http.StatusGatewayTimeout)).Len(); n != 2 {
					t.Errorf("got %d lines in the log, want 2", n)
				}
			})
		}
	}
}

func TestWhoLeavesLongBeforeAShortTimeoutHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := public(app("a", func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			watt.WriteError(w, r.Context().Err())
		}))
		a.Timeout = 100 * time.Millisecond
		rt, dial := doors(t, a)
		conn := dial()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(10 * time.Millisecond)
		conn.Close()
		synctest.Wait()
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		wantAnswers(t, rt, http.MethodGet, map[string]uint64{"4xx": 1})
	})
}

// What a handler is told of a body that is not read to its end depends on the way that it comes.
func TestABodyThatDoesNotComeInTimeIsAnsweredAsTheEndOfTheTime(t *testing.T) {
	for _, method := range []string{http.MethodPost, "REPORT"} { // the latter needs a connection
		for want, limits := range map[string]struct{ timeout, deadline time.Duration }{
			"Timeout of 1s has passed: context deadline exceeded": {time.Second, time.Minute},
			"context deadline exceeded":                           {time.Minute, time.Second},
		} {
			synctest.Test(t, func(t *testing.T) {
				rt, logs := logging(t, zapcore.WarnLevel, watt.App{Name: "a", Timeout: limits.timeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, err := io.Copy(io.Discard, r.Body)
					watt.WriteError(w, err)
				})})
				ctx, cancel := context.WithTimeout(t.Context(), limits.deadline)
				defer cancel()
				body, stalls := io.Pipe()
				defer stalls.Close()
				_, err := rt.Env().Client.Do(request(ctx, method, "http://a.watt.local/", body))
				wantErr(t, err, context.DeadlineExceeded)
				synctest.Wait()
				all := logs.FilterMessage("request failed").FilterField(zap.Int("status", http.StatusGatewayTimeout)).All()
				if len(all) != 1 || !strings.HasPrefix(fmt.Sprint(all[0].ContextMap()["error"]), want) {
					t.Errorf("%s: got %v, want one line with 504 and %q", method, logs.All(), want)
				}
			})
		}
	}
}

func TestAStrangersBodyThatDoesNotComeInTimeIsAnsweredAsTheEndOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := public(app("a", func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			watt.WriteError(w, err)
		}))
		a.Timeout = time.Second
		rt, dial := doors(t, a)
		conn := dial()
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if read(t, resp, nil); resp.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("got %s", resp.Status)
		}
		conn.Close()
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestWhoLeavesWhatGoesOnHasGone(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"a download": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "some")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			watt.WriteError(w, errors.New("broken pipe"))
		},
		"events, of which none has come": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := public(app("a", h))
				a.Timeout = time.Second
				rt, dial := doors(t, a)
				conn := dial()
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				time.Sleep(time.Minute) // it need not end within Timeout
				conn.Close()
				synctest.Wait()
				if err := rt.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				if got := statusOf(t, rt, "a").PerInstance[0].Requests["GET"]; got["5xx"] != 0 || len(got) != 1 {
					t.Errorf("counted %v", got)
				}
			})
		})
	}
}
