package watt_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/org/watt"
)

// What a call leaves unread in a connection when it gives that up, a server could still read.
func TestAServeAppThatSaysNoMoreButReadsOnSeesARequestOnce(t *testing.T) {
	for name, unread := range map[string]bool{"before it has read the request": true, "when it has": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen atomic.Int32
				answer := func(conn net.Conn, br *bufio.Reader) {
					if r, err := http.ReadRequest(br); err == nil {
						io.Copy(io.Discard, r.Body)
						io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
						if r.URL.Path == "/pay" {
							seen.Add(1)
						}
					}
				}
				first := true
				rt := start(t, speaking(func(conn net.Conn) {
					br := bufio.NewReader(conn)
					answer(conn, br)
					if first {
						first = false
						time.Sleep(time.Second) // until the next request is under way
						if !unread {
							br.Peek(1)
						}
						conn.(interface{ CloseWrite() error }).CloseWrite()
						time.Sleep(time.Second)
					}
					answer(conn, br)
				}, nil))
				get(t.Context(), rt, "a.watt.local/")
				resp, err := rt.Env().Client.Do(request(t.Context(), http.MethodPost, "http://a.watt.local/pay", strings.NewReader("10")))
				if unread {
					read(t, resp, err)
				} else if call, ok := errors.AsType[*watt.CallError](err); !ok || !call.Started {
					t.Errorf("got %v, want a started call", err)
				}
				time.Sleep(time.Minute)
				if got := seen.Load(); got > 1 || unread && got == 0 {
					t.Errorf("the request was seen %d times", got)
				}
			})
		})
	}
}

func TestGRPCToAServeAppIsHTTP2WithinItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := watt.App{Name: "a", Timeout: 2 * time.Second, Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
			var protocols http.Protocols
			protocols.SetHTTP1(true)
			protocols.SetUnencryptedHTTP2(true)
			server := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/late" {
					<-r.Context().Done()
				}
				io.WriteString(w, r.Proto)
			})}
			defer context.AfterFunc(ctx, func() { server.Close() })()
			server.Serve(ln)
			return nil
		}}
		rt := start(t, a)
		call := func(path, content string) (*http.Response, error) {
			req := request(t.Context(), http.MethodPost, "http://a.watt.local"+path, strings.NewReader("x"))
			req.Header.Set("Content-Type", content)
			return rt.Env().Client.Do(req)
		}
		for content, want := range map[string]string{
			"application/grpc": "HTTP/2.0", "Application/gRPC": "HTTP/2.0", "application/grpc+proto": "HTTP/2.0", "application/grpc; charset=utf-8": "HTTP/2.0",
			"application/grpc-web": "HTTP/1.1", "application/GRPC-Web": "HTTP/1.1", "text/plain": "HTTP/1.1",
		} {
			resp, err := call("/", content)
			if got := read(t, resp, err); got != want {
				t.Errorf("%s: got %s, want %s", content, got, want)
			}
		}
		began := time.Now()
		_, err := call("/late", "application/grpc")
		wantErr(t, err, context.DeadlineExceeded)
		wantTook(t, time.Since(began), 2*time.Second)
		synctest.Wait()
		if s := statusOf(t, rt, "a"); s.Busy != 0 {
			t.Errorf("%d workers are busy", s.Busy)
		}
	})
}

func TestNothingIsKeptOfInstancesThatHaveEnded(t *testing.T) {
	var mu sync.Mutex
	var envs []weak.Pointer[watt.Env]
	answers := serving("a", func(http.ResponseWriter, *http.Request) {})
	serve := answers.Serve
	answers.Serve = func(ctx context.Context, env *watt.Env, ln net.Listener) error {
		mu.Lock()
		envs = append(envs, weak.Make(env))
		mu.Unlock()
		return serve(ctx, env, ln)
	}
	rt := start(t, answers)
	var callers sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 8 {
		callers.Go(func() {
			for ctx.Err() == nil {
				get(ctx, rt, "a.watt.local/")
			}
		})
	}
	for range 300 {
		if err := rt.Restart("a", 0); err != nil {
			t.Error(err)
		}
	}
	cancel()
	callers.Wait()
	soon(t, "the end of all instances but the last", func() bool {
		runtime.GC()
		mu.Lock()
		defer mu.Unlock()
		return !slices.ContainsFunc(envs[:len(envs)-1], func(env weak.Pointer[watt.Env]) bool { return env.Value() != nil })
	})
}

// A call that has a worker still needs a connection, for which it has to wait while nobody accepts any.
func TestACallWhoseServeAppEndsBeforeItIsConnectedWaitsForTheNext(t *testing.T) {
	for takes, want := range map[time.Duration]error{500 * time.Millisecond: nil, 3 * time.Second: watt.ErrUnavailable} {
		synctest.Test(t, func(t *testing.T) {
			answers := serving("a", func(http.ResponseWriter, *http.Request) {})
			serve, generation := answers.Serve, 0
			answers.Serve = func(ctx context.Context, env *watt.Env, ln net.Listener) error {
				if generation++; generation > 1 {
					time.Sleep(takes)
					return serve(ctx, env, ln)
				}
				context.AfterFunc(ctx, func() { ln.Close() })
				conn, err := ln.Accept() // and no more: 128 others have room
				if err == nil {
					defer conn.Close()
				}
				<-ctx.Done()
				return nil
			}
			caller := app("b", func(http.ResponseWriter, *http.Request) {})
			caller.Calls = []string{"a"} // so that the next is ready when it accepts
			rt := start(t, answers, caller)
			for range 129 {
				conn, err := rt.Env().Dial(t.Context(), "a")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
			}
			call := going(t.Context(), rt, "a.watt.local/")
			synctest.Wait()
			if err := rt.Restart("a", 0); err != nil {
				t.Error(err)
			}
			got := <-call
			failed, _ := errors.AsType[*watt.CallError](got.err)
			if !errors.Is(got.err, want) || failed != nil && failed.Started || got.took > time.Second {
				t.Errorf("the next takes %v: got %+v, want %v within QueueTimeout, with nothing started", takes, got, want)
			}
		})
	}
}

func TestWhoeverCallsAServeAppWaitsWhileItIsReplaced(t *testing.T) {
	answers := serving("a", func(http.ResponseWriter, *http.Request) {})
	answers.QueueTimeout = time.Minute
	rt := start(t, answers)
	var callers sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	refused := func(err error) bool {
		if errors.Is(err, watt.ErrUnavailable) { // unlike what is cut, since its server does not wait for what it has accepted
			t.Error(err)
		}
		return err != nil && ctx.Err() != nil
	}
	for range 4 {
		callers.Go(func() {
			for !refused(get(ctx, rt, "a.watt.local/").err) {
			}
		})
		callers.Go(func() {
			for {
				conn, err := rt.Env().Dial(ctx, "a")
				if err == nil {
					conn.Close()
				}
				if refused(err) {
					return
				}
			}
		})
	}
	for range 20 {
		if err := rt.Restart("a", 0); err != nil {
			t.Error(err)
		}
		get(ctx, rt, "a.watt.local/") // lest it is replaced before anybody comes
	}
	cancel()
	callers.Wait()
}

func TestWhatAServeThatHasClosedItsListenerCannotTakeGoesToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := serving("a", func(http.ResponseWriter, *http.Request) {})
		serve := answers.Serve
		answers.Instances = 2
		answers.Serve = func(ctx context.Context, env *watt.Env, ln net.Listener) error {
			if env.Instance == 0 {
				ln.Close()
				<-ctx.Done() // perhaps it finishes what it has
				return nil
			}
			return serve(ctx, env, ln)
		}
		rt := start(t, answers)
		for range 10 {
			if r := get(t.Context(), rt, "a.watt.local/"); r.err != nil || r.took > 0 {
				t.Errorf("got %+v", r)
			}
			conn, err := rt.Env().Dial(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
	})
}

func TestWhoeverWaitsForAServeThatClosesItsListenerThenGoesToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := make(chan struct{})
		answers := speaking(func(net.Conn) {}, nil)
		serve := answers.Serve
		answers.Instances = 2
		answers.Serve = func(ctx context.Context, env *watt.Env, ln net.Listener) error {
			if env.Instance > 0 {
				return serve(ctx, env, ln)
			}
			if conn, err := ln.Accept(); err == nil { // and no more: 128 others have room
				defer conn.Close()
			}
			<-full
			ln.Close()
			<-ctx.Done()
			return nil
		}
		caller := app("b", func(http.ResponseWriter, *http.Request) {})
		caller.Calls = []string{"a"} // so that both are ready when they accept
		rt := start(t, answers, caller)
		for range 2 * 129 {
			conn, err := rt.Env().Dial(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			synctest.Wait()
		}
		time.AfterFunc(time.Millisecond, func() { close(full) })
		began := time.Now()
		conn, err := rt.Env().Dial(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		wantTook(t, time.Since(began), time.Millisecond)
	})
}

func TestWhoeverReachesAServeThatAcceptsNoMoreWaitsAsLongAsTheQueueAllows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, watt.App{Name: "a", QueueTimeout: time.Second, Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
			ln.Close()
			<-ctx.Done()
			return nil
		}})
		r := get(t.Context(), rt, "a.watt.local/")
		wantTook(t, r.took, time.Second)
		began := time.Now()
		_, err := rt.Env().Dial(t.Context(), "a")
		wantTook(t, time.Since(began), time.Second)
		for _, err := range []error{r.err, err} {
			if call, ok := errors.AsType[*watt.CallError](err); !ok || call.Started || !errors.Is(err, watt.ErrUnavailable) {
				t.Errorf("got error %v, want ErrUnavailable of a call that has not started", err)
			}
		}
	})
}

func TestAPublicConnectionWaitsForTheNextInstanceOfAServeApp(t *testing.T) {
	answers := public(serving("a", func(http.ResponseWriter, *http.Request) {}))
	answers.QueueTimeout = time.Minute
	closed, end := make(chan struct{}), make(chan struct{})
	serve, generation := answers.Serve, 0
	answers.Serve = func(ctx context.Context, env *watt.Env, ln net.Listener) error {
		if generation++; generation > 1 {
			return serve(ctx, env, ln)
		}
		time.AfterFunc(0, func() { ln.Close() })
		ln.Accept()
		close(closed)
		<-end
		return nil
	}
	rt := start(t, answers)
	<-closed
	conn := dialTCP(t, statusOf(t, rt, "a").Addr)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	soon(t, "the connection to be accepted", func() bool { return statusOf(t, rt, "a").PerListener[0].Accepted == 1 })
	close(end)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	read(t, resp, err)
}

func TestAPublicConnectionOfAServeAppThatWasGivenUpIsClosedAtOnce(t *testing.T) {
	end := make(chan struct{})
	rt := start(t, public(watt.App{Name: "a", QueueTimeout: time.Minute, MaxRestarts: 1, Serve: func(_ context.Context, _ *watt.Env, ln net.Listener) error {
		time.AfterFunc(0, func() { ln.Close() })
		ln.Accept()
		<-end
		return nil
	}}))
	waiting := dialTCP(t, statusOf(t, rt, "a").Addr)
	soon(t, "the connection to be accepted", func() bool { return statusOf(t, rt, "a").PerListener[0].Accepted == 1 })
	close(end)
	for _, conn := range []net.Conn{waiting, dialTCP(t, statusOf(t, rt, "a").Addr)} {
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // Read returns it bare
			t.Errorf("got %d bytes, error %v, want EOF", n, err)
		}
	}
}
