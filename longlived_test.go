package watt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
)

// linger serves /upgrade, /stream and /poll, each until its context ends, and says so on ended; the
// rest is work.
func linger(ended chan<- string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/upgrade":
			conn := takeOver(w)
			if conn == nil {
				return
			}
			defer conn.Close()
		case "/stream":
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			if err := http.NewResponseController(w).Flush(); err != nil {
				watt.WriteError(w, err) // as it was answered already
				return
			}
		case "/poll":
			watt.LongLived(r.Context())
		default:
			work(w, r)
			return
		}
		<-r.Context().Done()
		ended <- r.URL.Path
	}
}

// takeOver takes the connection over, for another protocol. If it cannot have it, it answers why, and returns nil.
func takeOver(w http.ResponseWriter) net.Conn {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		watt.WriteError(w, err)
		return nil
	}
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	return conn
}

// listen takes the connection over until the client closes it.
func listen(w http.ResponseWriter) {
	if conn := takeOver(w); conn != nil {
		io.Copy(io.Discard, conn)
		conn.Close()
	}
}

// open starts a long-lived request and returns its answer's body, or the error.
func open(ctx context.Context, t *testing.T, rt *watt.Runtime, path string) (*http.Response, error) {
	t.Helper()
	url := "http://a.watt.local" + path
	if path == "/upgrade" {
		return rt.Env().Client.Do(upgrading(ctx, url))
	}
	return rt.Env().Get(ctx, url)
}

func TestHijacksEventStreamsAndLongLivedGiveTheWorkerBackAndCountUnderMaxConns(t *testing.T) {
	for _, path := range []string{"/upgrade", "/stream", "/poll"} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan string, 1)
				rt := start(t, watt.App{Name: "a", Workers: 1, Queue: -1, Timeout: -1, Handler: linger(ended)})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					if resp, err := open(ctx, t, rt, path); err == nil {
						<-ctx.Done()
						resp.Body.Close()
					}
				}()
				synctest.Wait()
				if s := statusOf(t, rt, "a"); s.Busy != 0 || s.Conns != 1 {
					t.Errorf("got Busy %d, Conns %d, want 0 and 1", s.Busy, s.Conns)
				}
				if r := get(t.Context(), rt, "a.watt.local/1s"); r.status != http.StatusOK {
					t.Errorf("got %+v, want the worker to be free", r)
				}
				cancel()
				synctest.Wait()
				if path == "/upgrade" { // a hijacked connection is the handler's: only the drain ends its context
					return
				}
				if got := <-ended; got != path {
					t.Errorf("got %q", got)
				}
				synctest.Wait()
				if s := statusOf(t, rt, "a"); s.Busy != 0 || s.Conns != 0 {
					t.Errorf("at the end: got Busy %d, Conns %d, want none", s.Busy, s.Conns)
				}
			})
		})
	}
}

func TestTheContextsOfLongLivedRequestsEndWhenTheDrainBegins(t *testing.T) {
	for name, drain := range map[string]func(*watt.Runtime) error{
		"Shutdown": func(rt *watt.Runtime) error { return rt.Shutdown(context.Background()) },
		"Restart":  func(rt *watt.Runtime) error { return rt.Restart("a", 0) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan string, 8)
				rt := start(t, watt.App{Name: "a", Timeout: -1, Handler: linger(ended)})
				for _, path := range []string{"/upgrade", "/stream", "/poll"} {
					go func() {
						if resp, err := open(t.Context(), t, rt, path); err == nil {
							io.Copy(io.Discard, resp.Body)
							resp.Body.Close()
						}
					}()
				}
				ordinary := going(t.Context(), rt, "a.watt.local/5s")
				synctest.Wait()
				if s := statusOf(t, rt, "a"); s.Busy != 1 || s.Conns != 3 {
					t.Fatalf("got Busy %d, Conns %d, want 1 and 3", s.Busy, s.Conns)
				}
				began := time.Now()
				done := make(chan error, 1)
				go func() { done <- drain(rt) }()
				for range 3 {
					<-ended
				}
				wantTook(t, time.Since(began), 0)
				if r := <-ordinary; r.status != http.StatusOK {
					t.Errorf("the ordinary request: got %+v", r)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
				if s := statusOf(t, rt, "a"); s.Conns != 0 || s.Busy != 0 {
					t.Errorf("got Conns %d, Busy %d, want none", s.Conns, s.Busy)
				}
			})
		})
	}
}

func TestWhereMaxConnsIsReached(t *testing.T) {
	for name, most := range map[string]int{"one is open": 1, "-1": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := start(t, watt.App{Name: "a", MaxConns: most, Timeout: -1, Handler: linger(make(chan string, 1))})
				if most > 0 {
					conn, err := rt.Env().Dial(t.Context(), "a")
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
				}
				_, err := rt.Env().Dial(t.Context(), "a")
				wantErr(t, err, watt.ErrOverloaded)
				_, err = open(t.Context(), t, rt, "/upgrade")
				wantErr(t, err, watt.ErrOverloaded)
				resp, err := open(t.Context(), t, rt, "/stream")
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
					t.Errorf("stream: got %s, Retry-After %q, want 503 with it", resp.Status, resp.Header.Get("Retry-After"))
				}
				resp.Body.Close()
				ctx, cancel := context.WithCancel(t.Context())
				poll := going(ctx, rt, "a.watt.local/poll")
				synctest.Wait()
				if s := statusOf(t, rt, "a"); s.Busy != 1 || s.Conns != max(0, most) {
					t.Errorf("poll: got Busy %d, Conns %d, want it to keep its worker", s.Busy, s.Conns)
				}
				cancel()
				<-poll
				synctest.Wait()
				if s := statusOf(t, rt, "a"); s.Busy != 0 {
					t.Errorf("got Busy %d at the end", s.Busy)
				}
			})
		})
	}
}

// TestAStreamThatIsRefusedEnds over a connection, where the server may copy it by itself.
func TestAStreamThatIsRefusedEnds(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ended := make(chan error, 1)
			rt := start(t, watt.App{Name: "a", MaxConns: 1, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				w.WriteHeader(http.StatusOK)
				if flushed {
					_ = http.NewResponseController(w).Flush() // it says so, too
				}
				_, err := io.Copy(w, io.LimitReader(strings.NewReader("data: 1\n\n"), 9))
				ended <- err
			})})
			conn, err := rt.Env().Dial(t.Context(), "a") // which takes the seat
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if resp := ask(t, conn, "/"); resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("got %v, want 503", resp)
			}
			wantErr(t, <-ended, watt.ErrOverloaded)
		})
	}
}

// TestAStreamThatIsRefusedIsAnsweredWhateverItsHandlerDoes when it cannot write: an httputil.ReverseProxy gives up with a panic.
func TestAStreamThatIsRefusedIsAnsweredWhateverItsHandlerDoes(t *testing.T) {
	for name, reason := range map[string]any{"gives up": http.ErrAbortHandler, "panics": "reason"} {
		t.Run(name, func(t *testing.T) {
			rt := start(t, public(watt.App{Name: "a", MaxConns: -1, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				if _, err := io.WriteString(w, "data: 1\n\n"); err != nil {
					panic(reason)
				}
			})}))
			for _, url := range []string{"http://a.watt.local/", "http://" + publicAddr(t, rt, "a")} {
				resp, err := rt.Env().Get(t.Context(), url)
				if err != nil {
					t.Error(err)
					continue
				}
				if read(t, resp, nil); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
					t.Errorf("%s: got %v, want 503 with Retry-After", url, resp)
				}
			}
		})
	}
}

// TestAStreamThatIsRefusedIsOverForAHandlerThatDoesNotLook at what its writes return: else it would hold its worker, and the
// answer, for as long as its client has patience.
func TestAStreamThatIsRefusedIsOverForAHandlerThatDoesNotLook(t *testing.T) {
	var http1, http2, both http.Protocols
	http1.SetHTTP1(true)
	http2.SetUnencryptedHTTP2(true)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	a := public(app("a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			fmt.Fprint(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
		}
		watt.WriteError(w, r.Context().Err())
	}))
	a.MaxConns, a.Workers, a.Queue, a.Protocols = -1, 1, -1, &both
	rt := start(t, a)
	call := func(name, url string, transport http.RoundTripper) {
		resp, err := transport.RoundTrip(request(t.Context(), http.MethodGet, url, nil))
		if read(t, resp, err); err == nil && (resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "") {
			t.Errorf("%s: got %v, want 503 with Retry-After", name, resp)
		}
		soon(t, "the worker to be free", func() bool { return statusOf(t, rt, "a").Busy == 0 })
	}
	call("mesh", "http://a.watt.local/", rt.Env().Client.Transport)
	for _, protocols := range []*http.Protocols{&http1, &http2} {
		transport := &http.Transport{Protocols: protocols}
		call(protocols.String(), "http://"+publicAddr(t, rt, "a"), transport)
		transport.CloseIdleConnections()
	}
}

// TestAStreamThatDoesNotBeginInTimeIsNone: it is answered as it is logged, whether or not there is room for another one.
func TestAStreamThatDoesNotBeginInTimeIsNone(t *testing.T) {
	for name, most := range map[string]int{"with room": 1, "without": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := app("a", func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "text/event-stream")
					<-r.Context().Done()
				})
				a.MaxConns, a.Timeout = most, time.Second
				rt, dial := bubble(t, public(a))
				if resp := ask(t, dial(), "/"); resp.StatusCode != http.StatusGatewayTimeout {
					t.Errorf("got %v, want 504", resp)
				}
				synctest.Wait()
				if s := statusOf(t, rt, "a"); s.ConnsShed != 0 || s.PerInstance[0].Duration.Count != 1 {
					t.Errorf("got %d streams shed, and the time of %d requests, want none and 1", s.ConnsShed, s.PerInstance[0].Duration.Count)
				}
			})
		})
	}
}

// TestAConnectionThatThereIsNoRoomForIsRefused when it is taken over, too: until then there was.
func TestAConnectionThatThereIsNoRoomForIsRefused(t *testing.T) {
	for name, takeOver := range map[string]func(http.ResponseWriter, *watt.Runtime) error{
		"which then answers": func(w http.ResponseWriter, _ *watt.Runtime) error {
			_, _, err := http.NewResponseController(w).Hijack()
			http.Error(w, "sorry", http.StatusInternalServerError)
			return err
		},
		"which takes its time": func(w http.ResponseWriter, _ *watt.Runtime) error {
			_, _, err := http.NewResponseController(w).Hijack()
			time.Sleep(time.Hour)
			return err
		},
		"which asks again when there is room": func(w http.ResponseWriter, rt *watt.Runtime) error {
			_, _, _ = http.NewResponseController(w).Hijack()
			if err := rt.Update("a", func(a *watt.App) { a.MaxConns = 1 }); err != nil {
				return err
			}
			_, _, err := http.NewResponseController(w).Hijack()
			return err
		},
		"which has answered": func(w http.ResponseWriter, _ *watt.Runtime) error {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.WriteHeader(http.StatusSwitchingProtocols)
			_, _, err := http.NewResponseController(w).Hijack()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
				var rt *watt.Runtime
				rt = start(t, app("a", func(w http.ResponseWriter, _ *http.Request) {
					close(begun)
					<-goOn
					ended <- takeOver(w, rt)
				}))
				type outcome struct {
					resp *http.Response
					err  error
				}
				got := make(chan outcome, 1)
				go func() {
					resp, err := rt.Env().Client.Do(upgrading(t.Context(), "http://a.watt.local/"))
					got <- outcome{resp, err}
				}()
				<-begun
				if err := rt.Update("a", func(a *watt.App) { a.MaxConns = -1 }); err != nil {
					t.Fatal(err)
				}
				close(goOn)
				wantErr(t, <-ended, watt.ErrOverloaded)
				g := <-got
				if g.err != nil {
					t.Fatal(g.err)
				}
				read(t, g.resp, nil)
				if h := g.resp.Header; g.resp.StatusCode != http.StatusServiceUnavailable || h.Get("Retry-After") == "" || h.Get("Upgrade") != "" {
					t.Errorf("got %v, want 503 with Retry-After, and no Upgrade", g.resp)
				}
				if s := statusOf(t, rt, "a"); s.Conns != 0 || s.Busy != 0 {
					t.Errorf("got Conns %d, Busy %d at the end", s.Conns, s.Busy)
				}
			})
		})
	}
}

// TestAConnectionMayBeTakenOverWhileItsRequestIsStillToCome, and has its seat, whatever was said before, or goes wrong then.
func TestAConnectionMayBeTakenOverWhileItsRequestIsStillToCome(t *testing.T) {
	for name, c := range map[string]struct {
		sent, got     string
		before, after func(http.ResponseWriter)
		counted       string
	}{
		"before the status":       {sent: "hello", got: "hello", counted: "1xx"},
		"after it":                {before: func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }, counted: "2xx"},
		"and an error comes then": {sent: "hello", got: "hello", after: func(w http.ResponseWriter) { watt.WriteError(w, watt.ErrOverloaded) }, counted: "5xx"},
	} {
		t.Run(name, func(t *testing.T) {
			var rt *watt.Runtime
			returned := make(chan bool)
			rt = start(t, public(app("a", func(w http.ResponseWriter, _ *http.Request) {
				defer close(returned)
				if c.before != nil {
					c.before(w)
				}
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				if c.after != nil {
					c.after(w)
				}
				go func() {
					defer conn.Close()
					<-returned
					if n := statusOf(t, rt, "a").Conns; n != 1 {
						t.Errorf("got %d connections, want 1", n)
					}
					io.CopyN(conn, rw, int64(len(c.sent)))
				}()
			})))
			got := raw(t, publicAddr(t, rt, "a"), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"+c.sent)
			if !strings.HasSuffix(got, c.got) || c.before == nil && got != c.got {
				t.Errorf("got %q, want %q at the end", got, c.got)
			}
			soon(t, "the end of its seat", func() bool { return statusOf(t, rt, "a").Conns == 0 })
			soon(t, "it to be counted as "+c.counted, func() bool {
				return statusOf(t, rt, "a").PerInstance[0].Requests["POST"][c.counted] == 1
			})
		})
	}
}

func TestAConnectionThatIsNotTakenOverLeavesItsSeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, app("a", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusSwitchingProtocols)
			watt.LongLived(r.Context()) // which it is as far as it goes
		}))
		resp, err := rt.Env().Client.Do(upgrading(t.Context(), "http://a.watt.local/"))
		if err == nil {
			resp.Body.Close()
		}
		synctest.Wait()
		if s := statusOf(t, rt, "a"); s.Conns != 0 || s.Busy != 0 {
			t.Errorf("got Conns %d, Busy %d at the end", s.Conns, s.Busy)
		}
	})
}

func TestAFirstEventThatIsHeldBackLeavesTheBodyToBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(chan string, 1)
		rt := start(t, app("a", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, ": begin\n\n")
			body, err := io.ReadAll(r.Body)
			got <- fmt.Sprint(string(body), err)
		}))
		conn, err := rt.Env().Dial(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
		go io.Copy(io.Discard, conn)
		if got := <-got; got != "body<nil>" {
			t.Errorf("got %s", got)
		}
	})
}

func TestALongLivedRequestKeepsItsSeatWhenItIsUpgraded(t *testing.T) {
	t.Parallel()
	a := app("a", func(w http.ResponseWriter, r *http.Request) {
		watt.LongLived(r.Context())
		listen(w)
	})
	a.MaxConns = 1
	rt := start(t, a)
	for range 2 { // the seat is free again
		resp, err := rt.Env().Client.Do(upgrading(t.Context(), "http://a.watt.local/"))
		if err != nil {
			t.Fatal(err)
		}
		if s := statusOf(t, rt, "a"); resp.StatusCode != http.StatusSwitchingProtocols || s.Conns != 1 || s.Upgraded != 1 || s.Streams != 0 {
			t.Errorf("got %s, %d connections, %d upgraded, %d streams", resp.Status, s.Conns, s.Upgraded, s.Streams)
		}
		resp.Body.Close()
		soon(t, "the end of its seat", func() bool { s := statusOf(t, rt, "a"); return s.Conns == 0 && s.Upgraded == 0 })
	}
}

func TestWhoDoesNotGetTheLastSeatIsAnswered(t *testing.T) {
	t.Parallel()
	var both sync.WaitGroup
	a := public(app("a", func(w http.ResponseWriter, _ *http.Request) {
		both.Done()
		both.Wait()
		listen(w)
	}))
	a.MaxConns = 1
	rt := start(t, a)
	for range 100 {
		both.Add(2)
		conns := []net.Conn{dialTCP(t, publicAddr(t, rt, "a")), dialTCP(t, publicAddr(t, rt, "a"))}
		answers := make(chan string, len(conns))
		for _, conn := range conns {
			go func() {
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					answers <- err.Error()
					return
				}
				answers <- resp.Status
			}()
		}
		got := []string{<-answers, <-answers}
		for _, conn := range conns {
			conn.Close()
		}
		slices.Sort(got)
		if got[0] != "101 Switching Protocols" || got[1] != "503 Service Unavailable" {
			t.Fatalf("got %q", got)
		}
		soon(t, "the seat to be free", func() bool { return statusOf(t, rt, "a").Conns == 0 })
	}
}

func TestMediaTypesHaveNoCase(t *testing.T) {
	t.Parallel()
	rt := start(t, app("a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "Text/Event-Stream; charset=utf-8")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	resp, err := rt.Env().Get(t.Context(), "http://a.watt.local/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if s := statusOf(t, rt, "a"); s.Busy != 0 || s.Streams != 1 {
		t.Errorf("got %d busy, %d streams", s.Busy, s.Streams)
	}
}

func TestASeatUnderMaxConnsIsFreeWhenItsConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", func(a *watt.App) { a.MaxConns = 1 }))
		for range 3 {
			conn, err := rt.Env().Dial(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			conn.Close() // once is enough
		}
		if s := statusOf(t, rt, "a"); s.Conns != 0 {
			t.Errorf("got Conns %d", s.Conns)
		}
	})
}

func TestIdleKeepAliveConnectionsHoldNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", one(-1, time.Second)))
		for i := range 3 {
			conn, err := rt.Env().Dial(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for range 2 {
				io.WriteString(conn, "GET /10ms HTTP/1.1\r\nHost: a\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("connection %d: %v %v", i, resp, err)
				}
				resp.Body.Close()
			}
			synctest.Wait()
			if s := statusOf(t, rt, "a"); s.Busy != 0 || s.Conns != i+1 {
				t.Errorf("got Busy %d, Conns %d, want 0 and %d", s.Busy, s.Conns, i+1)
			}
		}
	})
}

func TestPanicsCancellationsAndHijacksLoseNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 3
		rt := start(t, watt.App{Name: "a", Workers: workers, Queue: -1, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/panic":
				panic("on purpose")
			case "/late-panic":
				io.WriteString(w, "begun")
				http.NewResponseController(w).Flush()
				panic("on purpose")
			case "/abort":
				panic(http.ErrAbortHandler)
			case "/hijack":
				if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
					conn.Close()
					conn.Close()
				}
				if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrHijacked) {
					t.Errorf("a second hijack: got %v", err)
				}
			default:
				work(w, r)
			}
		})})
		for range 2 * workers {
			if r := get(t.Context(), rt, "a.watt.local/panic"); r.status != http.StatusInternalServerError {
				t.Errorf("panic: got %+v, want 500", r)
			}
			for _, path := range []string{"/late-panic", "/abort"} {
				r := get(t.Context(), rt, "a.watt.local"+path)
				wantErr(t, r.err, watt.ErrInstanceDied)
			}
			_, err := rt.Env().Client.Do(upgrading(t.Context(), "http://a.watt.local/hijack"))
			wantErr(t, err, watt.ErrInstanceDied)
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			wantErr(t, get(ctx, rt, "a.watt.local/1h").err, context.DeadlineExceeded)
			cancel()
			synctest.Wait()
		}
		var all []<-chan result
		for range workers {
			all = append(all, going(t.Context(), rt, "a.watt.local/1s"))
		}
		for _, c := range all {
			if r := <-c; r.status != http.StatusOK || r.took != time.Second {
				t.Errorf("afterwards: got %+v, want 200 at once", r)
			}
		}
		if s := statusOf(t, rt, "a"); s.Panics != 4*workers || s.Busy != 0 || s.Conns != 0 {
			t.Errorf("got Panics %d, Busy %d, Conns %d, want %d and none", s.Panics, s.Busy, s.Conns, 4*workers)
		}
	})
}

// answering is a Serve app that answers each connection's requests with http.Server and work.
func answering(ctx context.Context, _ *watt.Env, ln net.Listener) error {
	server := &http.Server{Handler: http.HandlerFunc(work)}
	down := make(chan error, 1)
	context.AfterFunc(ctx, func() { down <- server.Shutdown(context.WithoutCancel(ctx)) })
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-down
}

func TestACallOfAServeAppHoldsAWorkerUntilItsBodyIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, watt.App{Name: "a", Serve: answering, Workers: 1, Queue: -1}, working("b", func(b *watt.App) { b.Calls = []string{"a"} }))
		resp, err := rt.Env().Get(t.Context(), "http://a.watt.local/1ms")
		if err != nil {
			t.Fatal(err)
		}
		if s := statusOf(t, rt, "a"); s.Busy != 1 || s.Conns != 0 {
			t.Errorf("got Busy %d, Conns %d, want 1 and 0", s.Busy, s.Conns)
		}
		wantErr(t, get(t.Context(), rt, "a.watt.local/").err, watt.ErrOverloaded)
		resp.Body.Close()
		if r := get(t.Context(), rt, "a.watt.local/"); r.status != http.StatusOK {
			t.Errorf("after Close: got %+v", r)
		}
	})
}

func TestAnAnswerWithoutABodyOfAServeAppGivesTheWorkerBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, serving("a", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
		resp, err := rt.Env().Get(t.Context(), "http://a.watt.local/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() // much later
		if got := statusOf(t, rt, "a").Busy; got != 0 {
			t.Errorf("%d workers are busy", got)
		}
	})
}

func TestRawConnectionsOfAServeAppCountUnderMaxConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, watt.App{Name: "a", Serve: answering, MaxConns: 2}, working("b", func(b *watt.App) { b.Calls = []string{"a"} }))
		for range 2 {
			conn, err := rt.Env().Dial(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		_, err := rt.Env().Dial(t.Context(), "a:80")
		wantErr(t, err, watt.ErrOverloaded)
		if s := statusOf(t, rt, "a"); s.Conns != 2 || s.Busy != 0 {
			t.Errorf("got Conns %d, Busy %d, want 2 and 0", s.Conns, s.Busy)
		}
		if r := get(t.Context(), rt, "a.watt.local/"); r.status != http.StatusOK {
			t.Errorf("a call: got %+v", r)
		}
	})
}

func TestPublicConnectionsBeyondMaxConnsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(
			watt.App{Name: "a", Listen: "a:1", MaxConns: -1, Handler: linger(nil)},
			watt.App{Name: "raw", Listen: "raw:1", MaxConns: 1, Serve: answering},
		)
		clients := listening(t, rt, newDiary(), "a:1", "raw:1")
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if resp, err := clients["a:1"].Do(upgrading(t.Context(), "http://a:1/upgrade")); err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
			t.Errorf("upgrade: got %v, %v, want 503 with Retry-After", resp, err)
		}
		first, err := clients["raw:1"].Get("http://raw:1/") // its connection is kept
		if err != nil || first.StatusCode != http.StatusOK {
			t.Fatalf("got %v, %v", first, err)
		}
		if _, err := clients["raw:1"].Get("http://raw:1/"); err == nil { // the first one's body is open
			t.Error("a second connection is served")
		}
		first.Body.Close()
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestARequestThatCallsLongLivedDuringAShutdownEndsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan string, 1)
		rt := watt.New(watt.App{Name: "a", Timeout: -1, DrainTimeout: time.Minute, Handler: http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(5 * time.Second) // the drain begins meanwhile
				linger(ended)(w, r)
			})})
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		poll := going(t.Context(), rt, "a.watt.local/poll")
		synctest.Wait()
		began := time.Now()
		if err := rt.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		wantTook(t, time.Since(began).Round(100*time.Millisecond), 5*time.Second)
		<-poll
	})
}

func TestAConnectionThatFindsNoSeatWhenItsRequestWasAnsweredIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app("a", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
			_, _, err := http.NewResponseController(w).Hijack()
			wantErr(t, err, watt.ErrOverloaded)
		})
		a.MaxConns = -1
		rt, dial := bubble(t, public(a))
		if resp := ask(t, dial(), "/"); resp.StatusCode != http.StatusOK {
			t.Errorf("got %v", resp)
		}
		synctest.Wait()
		if s := statusOf(t, rt, "a"); s.ConnsShed != 1 {
			t.Errorf("%d are counted, want 1", s.ConnsShed)
		}
	})
}
