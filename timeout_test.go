package watt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// trickle answers at once, and then takes ten seconds for its body.
func trickle(w http.ResponseWriter, r *http.Request) {
	for range 10 {
		io.WriteString(w, "drop ")
		http.NewResponseController(w).Flush()
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
			return
		}
	}
}

// A deadline that travels in milliseconds strikes earlier at the callee. What that says then is no answer.
func TestTheCalleesClockMayStrikeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, app("a", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond+500*time.Microsecond)
		defer cancel()
		resp, err := rt.Env().Client.Do(request(ctx, "REPORT", "http://a.watt.local/", http.NoBody)) // which needs a connection
		if err == nil {
			resp.Body.Close()
		}
		call, ok := errors.AsType[*watt.CallError](err)
		if !ok || !call.Timeout() || !call.Started {
			t.Errorf("got %v, %v, want the deadline", resp, err)
		}
	})
}

// Where it travels in milliseconds, what is left may be less than one. That is not none.
func TestADeadlineOfLessThanAMillisecondTravelsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, app("a", func(w http.ResponseWriter, r *http.Request) {
			by, limited := r.Context().Deadline()
			fmt.Fprint(w, time.Until(by), limited)
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Microsecond)
		defer cancel()
		resp, err := rt.Env().Client.Do(request(ctx, "REPORT", "http://a.watt.local/", http.NoBody)) // which needs a connection
		if got := read(t, resp, err); got != "1ms true" {
			t.Errorf("got %s", got)
		}
	})
}

func TestTimeoutOfARefusedRequestDoesNotStrikeTheNextOnItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, dial := doors(t, watt.App{Name: "a", Listen: "public:80", Workers: 1, Queue: -1, Timeout: 2 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			io.Copy(w, r.Body)
		})})
		busy := going(t.Context(), rt, "a.watt.local/")
		synctest.Wait()
		conn := dial()
		answers := bufio.NewReader(conn)
		for _, want := range []int{http.StatusServiceUnavailable, http.StatusOK} {
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
			if want == http.StatusOK { // when the time of the first is up
				time.Sleep(1500 * time.Millisecond)
			}
			io.WriteString(conn, "inward")
			resp, err := http.ReadResponse(answers, nil)
			if body := read(t, resp, err); err != nil || resp.StatusCode != want {
				t.Errorf("got %v %q, want %d", resp, body, want)
			}
			if want == http.StatusServiceUnavailable {
				<-busy
			}
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// serving is a Serve app that runs h.
func serving(name string, h http.HandlerFunc) watt.App {
	return watt.App{Name: name, Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
		server := &http.Server{Handler: h}
		defer context.AfterFunc(ctx, func() { server.Close() })()
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}}
}

// speaking is a Serve app called a that gives each connection to speak, and closes them all in the end.
func speaking(speak func(net.Conn), change func(*watt.App)) watt.App {
	a := watt.App{Name: "a", Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
		defer context.AfterFunc(ctx, func() { ln.Close() })()
		var conns sync.WaitGroup
		defer conns.Wait()
		for {
			conn, err := ln.Accept()
			if err != nil {
				return nil
			}
			conns.Go(func() {
				defer conn.Close()
				speak(conn)
				<-ctx.Done()
			})
		}
	}}
	if change != nil {
		change(&a)
	}
	return a
}

func TestTimeoutBoundsTheTimeToTheFirstByteOnly(t *testing.T) {
	for name, c := range map[string]struct {
		app    watt.App
		header http.Header
	}{
		"a handler":              {app("a", trickle), http.Header{}},
		"a handler, with a wire": {app("a", trickle), http.Header{"Pragma": {"one"}}},
		"a handler, with HTTP/2": {app("a", trickle), http.Header{"Content-Type": {"application/grpc"}}},
		"Serve":                  {serving("a", trickle), http.Header{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.app.Timeout = 1500 * time.Millisecond
				rt := start(t, c.app)
				for range 2 { // the second on a connection that was used
					req, began := request(t.Context(), http.MethodGet, "http://a.watt.local/", nil), time.Now()
					req.Header = c.header
					resp, err := rt.Env().Client.Do(req)
					if got := read(t, resp, err); got != strings.Repeat("drop ", 10) {
						t.Errorf("got %q", got)
					}
					wantTook(t, time.Since(began), 10*time.Second)
				}
			})
		})
	}
}

func TestADeadlineThatCutsABodyOffIsNotTakenForTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app("a", trickle)
		a.Timeout = 1500 * time.Millisecond
		rt := start(t, a)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r := get(ctx, rt, "a.watt.local/")
		wantErr(t, r.err, context.DeadlineExceeded)
		if strings.Contains(r.err.Error(), "Timeout of") {
			t.Errorf("got %v", r.err)
		}
	})
}

func TestABodyThatWasReadToItsEndStaysWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, app("a", trickle))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		resp, err := rt.Env().Get(ctx, "http://a.watt.local/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		<-ctx.Done()
		if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("got %d bytes, %v, want EOF as before", n, err)
		}
	})
}

func TestTimeoutOfACallDoesNotStrikeTheNextOnItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := serving("a", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" { // else there is no body, at whose beginning Timeout would be over
				work(w, r)
			}
		})
		a.Timeout = time.Second
		rt := start(t, a)
		get(t.Context(), rt, "a.watt.local/")
		time.Sleep(600 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond) // so that Timeout bounds nothing
		defer cancel()
		if r := get(ctx, rt, "a.watt.local/800ms"); r.err != nil || r.body != "/800ms" {
			t.Errorf("got %+v", r)
		}
	})
}

func TestTimeoutEndsACallOfAServeAppThatNeverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, watt.App{Name: "a", Timeout: 2 * time.Second, Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
			defer context.AfterFunc(ctx, func() { ln.Close() })()
			for {
				conn, err := ln.Accept()
				if err != nil {
					return nil
				}
				go func() {
					defer conn.Close()
					io.Copy(io.Discard, conn)
				}()
			}
		}})
		for range 2 {
			r := get(t.Context(), rt, "a.watt.local/")
			wantErr(t, r.err, context.DeadlineExceeded)
			wantTook(t, r.took, 2*time.Second)
			if call, ok := errors.AsType[*watt.CallError](r.err); !ok || !call.Started || !call.Timeout() {
				t.Errorf("got %v", r.err)
			}
		}
		synctest.Wait()
		if s := statusOf(t, rt, "a"); s.Busy != 0 {
			t.Errorf("%d workers are busy", s.Busy)
		}
	})
}

func TestABodyThatTheDeadlineCutShortIsNotTakenAsWhole(t *testing.T) {
	polite := func(w http.ResponseWriter, r *http.Request) { // it ends its answer in good order
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	for range 100 { // both clocks strike at once
		synctest.Test(t, func(t *testing.T) {
			rt := start(t, app("a", polite), calling("b", func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
				resp, err := env.Get(r.Context(), "http://a.watt.local/")
				if err != nil {
					watt.WriteError(w, err)
					return
				}
				defer resp.Body.Close()
				io.Copy(w, resp.Body)
			}, "a"))
			for _, name := range []string{"a", "b"} {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				r := get(ctx, rt, name+".watt.local/")
				wantErr(t, r.err, context.DeadlineExceeded)
				cancel()
			}
		})
	}
}

func TestTheTimeOfLongLivedRequestsIsNoServiceTime(t *testing.T) {
	for _, path := range []string{"/poll", "/stream", "/upgrade"} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				late := func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == path {
						time.Sleep(10 * time.Minute) // before it becomes long-lived
					}
					linger(make(chan string, 1))(w, r)
				}
				rt := start(t, watt.App{Name: "a", Workers: 1, Queue: 2, QueueTimeout: time.Minute, Timeout: -1, Handler: http.HandlerFunc(late)})
				for range 20 {
					get(t.Context(), rt, "a.watt.local/10ms")
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					if resp, err := open(ctx, t, rt, path); err == nil {
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				}()
				time.Sleep(time.Hour)
				if s := statusOf(t, rt, "a"); s.Busy != 0 || s.Conns != 1 {
					t.Fatalf("got Busy %d, Conns %d, want 0 and 1", s.Busy, s.Conns)
				}
				for range 3 {
					going(ctx, rt, "a.watt.local/5s")
					synctest.Wait()
				}
				call, ok := errors.AsType[*watt.CallError](get(t.Context(), rt, "a.watt.local/10ms").err)
				if !ok || call.RetryAfter < time.Second || call.RetryAfter > 2*time.Second {
					t.Errorf("got %+v, want RetryAfter between 1 s and 2 s", call)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

func TestTheDiallingOfAServeAppThatAcceptsNoMoreIsBounded(t *testing.T) {
	for name, limits := range map[string]struct{ timeout, deadline time.Duration }{
		"by Timeout":             {2 * time.Second, time.Minute},
		"by the call's deadline": {time.Minute, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const backlog = 128
				rt := start(t, watt.App{Name: "a", Workers: 2 * backlog, Timeout: limits.timeout, Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
					go ln.Accept() // it is ready, and that is all
					<-ctx.Done()
					return nil
				}})
				ctx, cancel := context.WithTimeout(t.Context(), limits.deadline)
				defer cancel()
				results := make([]<-chan result, backlog+10)
				for i := range results {
					results[i] = going(ctx, rt, "a.watt.local/")
				}
				started := 0
				for _, c := range results {
					r := <-c
					wantErr(t, r.err, context.DeadlineExceeded)
					wantTook(t, r.took, 2*time.Second)
					if call, ok := errors.AsType[*watt.CallError](r.err); ok && call.Started {
						started++
					}
				}
				if most := backlog + 1; started > most {
					t.Errorf("%d calls say that they were started, want at most %d", started, most)
				}
				synctest.Wait()
				if s := statusOf(t, rt, "a"); s.Busy != 0 {
					t.Errorf("%d workers are busy", s.Busy)
				}
			})
		})
	}
}

func TestTimeoutBoundsTheWaitForAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, watt.App{Name: "a", Workers: 1, QueueTimeout: time.Minute, Timeout: time.Second, Handler: http.HandlerFunc(
			func(http.ResponseWriter, *http.Request) { time.Sleep(10 * time.Second) })})
		first := going(t.Context(), rt, "a.watt.local/")
		synctest.Wait()
		second := get(t.Context(), rt, "a.watt.local/")
		wantTook(t, second.took, time.Second)
		if call, ok := errors.AsType[*watt.CallError](second.err); !ok || call.Started {
			t.Errorf("got %+v", second)
		}
		wantErr(t, (<-first).err, context.DeadlineExceeded)
	})
}

func TestTimeoutBoundsTheWritingToAServeAppThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, speaking(func(net.Conn) {}, func(a *watt.App) { a.Timeout = 2 * time.Second }))
		req := request(t.Context(), http.MethodGet, "http://a.watt.local/", nil)
		req.Header.Set("X-Long", strings.Repeat("x", 100<<10))
		began := time.Now()
		_, err := rt.Env().Client.Do(req)
		wantErr(t, err, context.DeadlineExceeded)
		wantTook(t, time.Since(began), 2*time.Second)
	})
}

func TestTimeoutDoesNotBoundABodyThatIsSentWhileTheAnswerComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 1 << 20
		rt := start(t, speaking(func(conn net.Conn) {
			r, err := http.ReadRequest(bufio.NewReader(conn))
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
			time.Sleep(10 * time.Second)
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(conn, "%d", n)
			if err != nil {
				t.Error(err)
			}
		}, func(a *watt.App) { a.Timeout = 2 * time.Second }))
		body := io.MultiReader(strings.NewReader(strings.Repeat("x", size))) // not known to be in memory
		resp, err := rt.Env().Client.Do(request(t.Context(), http.MethodPost, "http://a.watt.local/", body))
		if got := read(t, resp, err); got != strconv.Itoa(size) {
			t.Errorf("the app got %s bytes, want %d", got, size)
		}
	})
}

// nothing is a source from which nothing comes until ctx ends.
type nothing struct{ ctx context.Context }

func (n nothing) Read([]byte) (int, error) {
	<-n.ctx.Done()
	return 0, context.Cause(n.ctx)
}

func TestTimeoutHoldsUntilAByteOfTheAnswerIsOut(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"a status":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) },
		"a few bytes":   func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{") },
		"an empty copy": func(w http.ResponseWriter, r *http.Request) { io.Copy(w, nothing{r.Context()}) },
		"and then more": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "{")
			<-r.Context().Done()
			if _, err := w.Write(make([]byte, 64<<10)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a late Write: got %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{}, 1)
			a := public(app("a", func(w http.ResponseWriter, r *http.Request) {
				answer(w, r)
				<-r.Context().Done()
				ended <- struct{}{}
			}))
			a.Timeout = 50 * time.Millisecond
			core, logs := observer.New(zapcore.WarnLevel)
			rt := watt.New(a)
			rt.Logger = zap.New(core)
			watttest.Start(t, rt)
			conn, err := rt.Env().Dial(t.Context(), "a") // what needs a connection
			if err != nil {
				t.Fatal(err)
			}
			for by, conn := range map[string]net.Conn{"mesh": conn, "public": dialTCP(t, publicAddr(t, rt, "a"))} {
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err == nil && resp.StatusCode == http.StatusOK {
					t.Errorf("%s: got %s for what is half an answer", by, resp.Status)
				}
				within(t, ended, by+": the end of its context")
				conn.Close()
			}
			soon(t, "both to be counted as failures", func() bool {
				s := statusOf(t, rt, "a").PerInstance[0].Requests["GET"]
				return s["5xx"] == 2 && s["2xx"] == 0
			})
			if n := logs.FilterMessage("request failed").Len(); n != 2 {
				t.Errorf("got %d lines in the log, want one for each", n)
			}
		})
	}
}

func TestACopyThatHasCopiedNothingHasNotAnswered(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]func(w http.ResponseWriter){
		"a panic":  func(http.ResponseWriter) { panic("on purpose") },
		"an error": func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
	} {
		rt := start(t, public(app("a", func(w http.ResponseWriter, _ *http.Request) {
			if _, err := io.Copy(w, iotest.ErrReader(io.ErrNoProgress)); err != nil {
				then(w)
			}
		})))
		conn, err := rt.Env().Dial(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		for by, conn := range map[string]net.Conn{"mesh": conn, "public": dialTCP(t, publicAddr(t, rt, "a"))} {
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != http.StatusInternalServerError {
				t.Errorf("%s, %s: got %v, %v", name, by, resp, err)
			}
			conn.Close()
		}
		soon(t, "both to be counted", func() bool {
			s := statusOf(t, rt, "a").PerInstance[0].Requests["GET"]
			return s["5xx"] == 2 && s["2xx"] == 0
		})
	}
}

// A request that ends when Timeout strikes has nothing left that the timer may use: neither the writer of HTTP/2, which is
// no more, nor the connection of HTTP/1, which the next request has.
func TestATimeoutThatStrikesAtTheEndHarmsNobody(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Millisecond
	for name, http2 := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var protocols http.Protocols
			protocols.SetHTTP1(!http2)
			protocols.SetUnencryptedHTTP2(http2)
			a := public(app("a", func(_ http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				began, _ := watt.Arrived(r.Context())
				for time.Since(began) < limit { // it computes, for as long as it may
					continue
				}
			}))
			a.Protocols, a.Timeout, a.Workers = &protocols, limit, 8
			rt := start(t, a)
			client := &http.Client{Transport: &http.Transport{Protocols: &protocols}}
			defer client.CloseIdleConnections()
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for range 100 {
						body := io.MultiReader(strings.NewReader("hello")) // which is sent once
						resp, err := client.Do(request(t.Context(), http.MethodPost, "http://"+publicAddr(t, rt, "a"), body))
						read(t, resp, err)
					}
				})
			}
			all.Wait()
		})
	}
}

func TestAConnectionIsNotUsedAgainThatTimeoutHasStruckWhileItWasAnswered(t *testing.T) {
	for range 300 { // the timer and the handler wake together
		synctest.Test(t, func(t *testing.T) {
			a := app("a", func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					io.Copy(io.Discard, r.Body)
					io.WriteString(w, "held back")
					time.Sleep(time.Second)
				}
			})
			a.Timeout = time.Second
			wantKept(t, start(t, a), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", nil)
		})
	}
}

// wantKept fails the test unless app a closes the connection with the answer to the first request, or serves the next one on
// it. While the first is served it calls meanwhile, unless that is nil.
func wantKept(t *testing.T, rt *watt.Runtime, first string, meanwhile func()) {
	t.Helper()
	conn, err := rt.Env().Dial(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, first)
	synctest.Wait()
	if meanwhile != nil {
		meanwhile()
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return
	}
	io.Copy(io.Discard, resp.Body)
	if resp.Close {
		return
	}
	if resp = ask(t, conn, "/next"); resp.StatusCode != http.StatusOK {
		t.Errorf("the next request got %s", resp.Status)
	}
}
