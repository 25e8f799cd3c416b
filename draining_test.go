package watt_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/internal/pipe"
)

// doors starts apps whose public doors are in memory, and returns a way to connect to them. The test
// shuts the runtime down.
func doors(t *testing.T, apps ...watt.App) (*watt.Runtime, func() net.Conn) {
	t.Helper()
	ln := pipe.Listen(new(pipe.Buffers), "public:80")
	rt := watt.New(apps...)
	rt.Listen = func(context.Context, string, string) (net.Listener, error) { return ln, nil }
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return rt, func() net.Conn {
		conn, err := ln.Dial(t.Context(), "stranger:1", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

// ask sends a request on conn and returns the answer, whose body it has read.
func ask(t *testing.T, conn net.Conn, path string) *http.Response {
	t.Helper()
	io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return &http.Response{}
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp
}

// TestWhatTheDrainEndsIsToldToComeAgain: the client is still there, and not to be taken for one that has gone.
func TestWhatTheDrainEndsIsToldToComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app("a", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/poll") {
				watt.LongLived(r.Context())
			}
			<-r.Context().Done()
			if strings.HasSuffix(r.URL.Path, "/error") {
				watt.WriteError(w, r.Context().Err())
			}
		})
		a.DrainTimeout = time.Second
		rt, dial := doors(t, public(a))
		paths := []string{"/poll/", "/poll/error", "/rest/", "/rest/error"}
		var clients sync.WaitGroup
		for _, path := range paths {
			conn := dial()
			clients.Go(func() {
				if resp := ask(t, conn, path); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
					t.Errorf("%s: got %v", path, resp)
				}
			})
		}
		synctest.Wait()
		_ = rt.Shutdown(t.Context()) // it was cut
		clients.Wait()
		if got := statusOf(t, rt, "a").PerInstance[0].Requests["GET"]["5xx"]; got != uint64(len(paths)) {
			t.Errorf("got %d failures, want %d", got, len(paths))
		}
	})
}

func TestWhatALameDuckShedsIsToldToGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, dial := doors(t, public(working("a", one(-1, 0))))
		kept, busy := dial(), dial()
		if resp := ask(t, kept, "/0s"); resp.StatusCode != http.StatusOK || resp.Close {
			t.Errorf("before the drain: got %v", resp)
		}
		served := make(chan *http.Response, 1)
		go func() { served <- ask(t, busy, "/5s") }()
		synctest.Wait()
		if resp := ask(t, kept, "/0s"); resp.StatusCode != http.StatusServiceUnavailable || resp.Close {
			t.Errorf("shed before the drain: got %v", resp)
		}
		down := make(chan error, 1)
		go func() { down <- rt.Shutdown(t.Context()) }()
		time.Sleep(50 * time.Millisecond)
		for _, conn := range []net.Conn{kept, dial()} {
			if resp := ask(t, conn, "/0s"); resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
				t.Errorf("shed by a lame duck: got %v", resp)
			}
		}
		if resp := <-served; resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("in progress: got %v", resp)
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
}

func TestSilentPublicConnectionsHoldTheShutdownHalfASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, dial := doors(t, public(working("a", nil)))
		for range 10 {
			dial()
		}
		synctest.Wait()
		began := time.Now()
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 700*time.Millisecond { // a lame duck's time, and half a second
			t.Errorf("it took %v", took)
		}
	})
}

func TestACutWakesAHandlerWhoseAnswerNobodyTakes(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, ask := range map[string]func(env *watt.Env, dial func() net.Conn) (io.Closer, error){
		"a stranger": func(_ *watt.Env, dial func() net.Conn) (io.Closer, error) {
			conn := dial()
			_, err := io.WriteString(conn, request)
			return conn, err
		},
		"a raw connection": func(env *watt.Env, _ func() net.Conn) (io.Closer, error) {
			conn, err := env.Dial(context.Background(), "a")
			if err == nil {
				_, err = io.WriteString(conn, request)
			}
			return conn, err
		},
		"a call": func(env *watt.Env, _ func() net.Conn) (io.Closer, error) {
			resp, err := env.Get(context.Background(), "http://a.watt.local/")
			if err != nil {
				return nil, err
			}
			return resp.Body, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := public(app("a", func(w http.ResponseWriter, _ *http.Request) {
					for err := error(nil); err == nil; {
						_, err = w.Write(make([]byte, 64<<10))
					}
				}))
				a.DrainTimeout = time.Second
				rt, dial := doors(t, a)
				client, err := ask(rt.Env(), dial)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				synctest.Wait()
				if err := rt.Shutdown(t.Context()); err == nil || !strings.Contains(err.Error(), "instance 0: 1 request or connection was cut") {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestAnIdleClientThatAsksALameDuckIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, dial := doors(t, public(working("a", nil)))
		conn := dial()
		for range 2 {
			if resp := ask(t, conn, "/10ms"); resp.StatusCode != http.StatusOK || resp.Close {
				t.Errorf("before the drain: got %v", resp)
			}
		}
		synctest.Wait()
		began := time.Now()
		down := make(chan error, 1)
		go func() { down <- rt.Shutdown(t.Context()) }()
		time.Sleep(50 * time.Millisecond)
		if resp := ask(t, conn, "/1s"); resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("50 ms into the drain: got %v", resp)
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < time.Second || took > 1200*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

func TestPublicConnectionsOfAServeAppWaitWhileItRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lives atomic.Int32
		rt, dial := doors(t, watt.App{Name: "a", Listen: "a:1", QueueTimeout: 10 * time.Second, Serve: func(ctx context.Context, env *watt.Env, ln net.Listener) error {
			if lives.Add(1) > 1 {
				time.Sleep(5 * time.Second) // it starts slowly
				return answering(ctx, env, ln)
			}
			go ln.Accept() // it is ready; this ends with the listener
			time.Sleep(time.Second)
			return errors.New("on purpose")
		}})
		time.Sleep(time.Second)
		synctest.Wait()
		if s := statusOf(t, rt, "a"); s.State == "ready" {
			t.Fatal("it is still ready")
		}
		began := time.Now()
		if resp := ask(t, dial(), "/0s"); resp.StatusCode != http.StatusOK {
			t.Errorf("got %v", resp)
		}
		if took := time.Since(began); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// counting is a Serve app with two instances that counts the connections of each, and keeps them open.
func counting(counts *[2]atomic.Int32) watt.App {
	return watt.App{Name: "a", Instances: 2, Listen: "a:1", Serve: func(ctx context.Context, env *watt.Env, ln net.Listener) error {
		defer context.AfterFunc(ctx, func() { ln.Close() })()
		for {
			conn, err := ln.Accept()
			if err != nil {
				return nil
			}
			counts[env.Instance].Add(1)
			go func() {
				defer counts[env.Instance].Add(-1)
				defer conn.Close()
				io.Copy(io.Discard, conn)
			}()
		}
	}}
}

func TestAConnectionGoesToTheInstanceThatHasFewest(t *testing.T) {
	for name, public := range map[string]bool{"by Dial": false, "from outside": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var counts [2]atomic.Int32
				rt, dial := doors(t, counting(&counts))
				connect := func() net.Conn {
					var conn net.Conn
					if public {
						conn = dial()
					} else {
						var err error
						if conn, err = rt.Env().Dial(t.Context(), "a"); err != nil {
							t.Fatal(err)
						}
					}
					synctest.Wait()
					return conn
				}
				var conns []net.Conn
				for range 4 {
					conns = append(conns, connect())
				}
				if a, b := counts[0].Load(), counts[1].Load(); a != 2 || b != 2 {
					t.Errorf("got %d and %d, want 2 and 2", a, b)
				}
				conns[0].Close() // two of the same instance, as the first goes where nobody is
				conns[2].Close()
				synctest.Wait()
				for range 2 {
					conns = append(conns, connect())
				}
				if a, b := counts[0].Load(), counts[1].Load(); a != 2 || b != 2 {
					t.Errorf("after two were closed: got %d and %d, want 2 and 2", a, b)
				}
				for _, conn := range conns {
					conn.Close()
				}
				if err := rt.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestWhatBecomesLongLivedAfterTheDrainHasBegunEndsToo(t *testing.T) {
	for _, path := range []string{"/upgrade", "/stream", "/poll"} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan string, 1)
				rt := start(t, watt.App{Name: "a", Timeout: -1, DrainTimeout: time.Minute, Handler: http.HandlerFunc(
					func(w http.ResponseWriter, r *http.Request) {
						time.Sleep(5 * time.Second) // the drain begins meanwhile
						linger(ended)(w, r)
					})})
				go func() {
					if resp, err := open(t.Context(), t, rt, path); err == nil {
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				}()
				synctest.Wait()
				began := time.Now()
				if err := rt.Restart("a", 0); err != nil {
					t.Error(err)
				}
				wantTook(t, time.Since(began), 5*time.Second)
				if got := <-ended; got != path {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

func TestAnAnswerThatADrainHasCutIsNotTakenForWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := app("web", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		web.DrainTimeout = time.Second
		rt := start(t, web)
		resp, err := rt.Env().Client.Do(request(t.Context(), http.MethodGet, "http://web.watt.local/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		cut := make(chan error, 1)
		go func() { cut <- rt.Restart("web", 0) }()
		if got, err := io.ReadAll(resp.Body); string(got) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %q, %v", got, err)
		}
		<-cut
	})
}

func TestAnAnswerThatIsWholeIsNoneThatADrainHasCut(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		status int
		ends   func(http.Header)
	}{
		"with its head":            {http.MethodGet, http.StatusNoContent, func(http.Header) {}},
		"with its head, as it was": {http.MethodGet, http.StatusNotModified, func(http.Header) {}},
		"to a HEAD":                {http.MethodHead, http.StatusOK, func(http.Header) {}},
		"with trailers that nobody has announced": {http.MethodGet, http.StatusOK, func(h http.Header) { h.Set(http.TrailerPrefix+"Grpc-Status", "14") }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := make(chan bool)
				web := app("web", func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(c.status)
					close(begun)
					<-r.Context().Done()
					c.ends(w.Header())
				})
				web.DrainTimeout = time.Second
				rt := start(t, web)
				cut := make(chan error, 1)
				go func() {
					<-begun
					cut <- rt.Restart("web", 0)
				}()
				resp, err := rt.Env().Client.Do(request(t.Context(), c.method, "http://web.watt.local/", nil))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != c.status {
					t.Errorf("got %s, %v", resp.Status, err)
				}
				<-cut
			})
		})
	}
}

// TestAnAnswerOfWhichADrainCannotHaveCutAnythingIsWhole since it was said with its end, or begun when there was a reason to.
func TestAnAnswerOfWhichADrainCannotHaveCutAnythingIsWhole(t *testing.T) {
	for name, c := range map[string]struct{ before, after func(http.ResponseWriter) }{
		"it has a length": {before: func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, "whole")
		}},
		"trailers are announced": {before: func(w http.ResponseWriter) {
			w.Header().Set("Trailer", "Sum")
			_, _ = io.WriteString(w, "whole")
		}},
		"it is an error's":     {before: func(w http.ResponseWriter) { watt.WriteError(w, watt.ErrOverloaded) }},
		"it was begun by then": {after: func(w http.ResponseWriter) { _, _ = io.WriteString(w, "whole") }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := make(chan bool)
				web := app("web", func(w http.ResponseWriter, r *http.Request) {
					if c.before != nil {
						c.before(w)
					}
					close(begun)
					<-r.Context().Done()
					if c.after != nil {
						c.after(w)
					}
				})
				web.DrainTimeout = time.Second
				rt := start(t, web)
				cut := make(chan error, 1)
				go func() {
					<-begun
					cut <- rt.Restart("web", 0)
				}()
				resp, err := rt.Env().Get(t.Context(), "http://web.watt.local/")
				if got := text(resp, err); got != "whole" && !strings.Contains(got, "Service Unavailable") {
					t.Errorf("got %q", got)
				}
				<-cut
			})
		})
	}
}

// TestAnUpgradedConnectionIsCutAsOne has connections that were upgraded, which nobody ends: each counts once, with the
// request that it came of.
func TestAnUpgradedConnectionIsCutAsOne(t *testing.T) {
	for name, serve := range map[string]func(conn net.Conn){
		"a handler that reads": func(conn net.Conn) { io.Copy(io.Discard, conn) },
		"a handler that stays without its connection": func(conn net.Conn) {
			conn.Close()
			time.Sleep(1500 * time.Millisecond) // of the bubble's time: until it was cut
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := public(app("a", func(w http.ResponseWriter, _ *http.Request) {
					conn, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					serve(conn)
				}))
				a.DrainTimeout = time.Second
				rt, dial := doors(t, a)
				io.WriteString(dial(), "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				synctest.Wait()
				if err := rt.Shutdown(t.Context()); err == nil || !strings.Contains(err.Error(), "instance 0: 1 request or connection was cut") {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}
