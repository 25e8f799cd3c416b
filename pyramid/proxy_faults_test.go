package pyramid_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// nonsense is a Serve app that says text on every connection, once something has come in, and hangs up.
func nonsense(name, text string) watt.App {
	return watt.App{Name: name, Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
		return accept(ctx, ln, func(conn net.Conn) {
			_, _ = bufio.NewReader(conn).ReadString('\n')
			io.WriteString(conn, text)
		})
	}}
}

func TestAnAppThatAnswersGarbageIs502(t *testing.T) {
	for name, text := range map[string]string{
		"nonsense": "SSH-2.0-OpenSSH_9.2\r\n", "nothing": "", "a bad status": "HTTP/1.1 9999 X\r\n\r\n", "binary": "\x00\x01\x02\xff\r\n\r\n",
		"bad headers": "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "two lengths": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"a bad length": "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "another protocol": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: odd\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, nonsense("odd", text))
			resp := f.do(t, "GET", "/odd", nil)
			wantNotice(t, resp, all(t, resp), http.StatusBadGateway, "odd")
			if lines := f.logs.FilterMessage("request failed").All(); len(lines) != 1 {
				t.Errorf("got %v in the log", f.logs.All())
			}
		})
	}
}

func TestAnAnswerThatIsCutIsCutForTheClientToo(t *testing.T) {
	for name, a := range map[string]watt.App{
		"an aborted handler": handling("cut", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "some")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}),
		"a panic": handling("cut", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "some")
			http.NewResponseController(w).Flush()
			panic("odd")
		}),
		"a known length": handling("cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, strings.Repeat("a", 99))
		}),
		"chunks":   nonsense("cut", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n"),
		"a length": nonsense("cut", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome"),
		"a chunk":  nonsense("cut", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\nzz\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			f := startFront(t, watt.App{Protocols: both()}, a)
			for name, protocols := range versions() {
				t.Run(name, func(t *testing.T) {
					c := client(t, protocols)
					resp, err := c.Do(f.request(t, "GET", "/cut", nil))
					if err == nil {
						defer resp.Body.Close()
						_, err = io.ReadAll(resp.Body)
					}
					if err == nil || errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("got %v and a whole answer, %v", err, resp)
					}
				})
			}
			if f.logs.FilterLevelExact(zap.WarnLevel).Len() == 0 {
				t.Error("nothing was logged")
			}
			if got := f.statusOf(t, "gateway").Panics; got != 0 {
				t.Errorf("the gateway panicked %d times", got)
			}
		})
	}
}

func TestAnAppThatHangsIs504AtTheEntrypointsTimeout(t *testing.T) {
	left := make(chan struct{}, 1)
	hangs := nonsense("tcp", "")
	hangs.Serve = func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
		return accept(ctx, ln, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	}
	f := startFront(t, watt.App{Timeout: 50 * time.Millisecond}, hangs, handling("http", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		left <- struct{}{}
	}))
	for _, app := range []string{"http", "tcp"} {
		resp := f.do(t, "GET", "/"+app, nil)
		wantNotice(t, resp, all(t, resp), http.StatusGatewayTimeout, app)
	}
	within(t, left, "the end of the app's request")
}

func TestOneGibibyteStreamsInBoundedMemory(t *testing.T) {
	const (
		gibi, piece = 1 << 30, 1 << 20
		limit       = 4 * time.Minute // with the race detector, beside other tests
	)
	f := startFront(t, watt.App{Timeout: limit}, watt.App{Name: "huge", Timeout: limit, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			n, _ := io.Copy(io.Discard, r.Body)
			io.WriteString(w, strconv.FormatInt(n, 10))
			return
		}
		data := make([]byte, piece)
		for range gibi / piece {
			if _, err := w.Write(data); err != nil {
				return
			}
		}
	})})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	do := func(method string, body io.Reader) *http.Response {
		return send(t, client(t, nil), f.request(t, method, "/huge", body).WithContext(ctx))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	resp := do("GET", nil)
	if n, err := io.Copy(io.Discard, resp.Body); n != gibi || err != nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if got := all(t, do("POST", io.LimitReader(zeros{}, gibi/4))); got != strconv.Itoa(gibi/4) {
		t.Errorf("the app got %s bytes", got)
	}
	runtime.ReadMemStats(&after)
	if before.HeapSys+64<<20 < after.HeapSys { // which does not shrink
		t.Errorf("the heap has grown from %d to %d bytes", before.HeapSys, after.HeapSys)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestAnAppIsSlowedDownByAClientThatDoesNotRead(t *testing.T) {
	var sent atomic.Int64
	ended := make(chan struct{})
	f := newFront(t, handling("huge", func(w http.ResponseWriter, _ *http.Request) {
		defer close(ended)
		data := make([]byte, 64<<10)
		for {
			n, err := w.Write(data)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}))
	resp := f.do(t, "GET", "/huge", nil)
	_, _ = io.ReadFull(resp.Body, make([]byte, 1))
	var last int64
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	soon(t, "the app to be held up", func() bool {
		<-tick.C
		now := sent.Load()
		defer func() { last = now }()
		return now == last
	})
	if last > 64<<20 {
		t.Errorf("the app could send %d bytes", last)
	}
	resp.Body.Close()
	within(t, ended, "the end of the app's request")
}

func TestInformationalAnswersWithoutEndAreEnded(t *testing.T) {
	ended := make(chan struct{})
	endless := nonsense("tcp", "")
	endless.Serve = func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
		return accept(ctx, ln, func(conn net.Conn) {
			for err := error(nil); err == nil; {
				_, err = io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
			}
		})
	}
	f := startFront(t, watt.App{Timeout: 100 * time.Millisecond}, endless, handling("http", func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		for r.Context().Err() == nil {
			w.WriteHeader(http.StatusEarlyHints)
		}
	}))
	for _, app := range []string{"http", "tcp"} {
		conn := f.dial(t)
		io.WriteString(conn, "GET /"+app+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		in, hints := bufio.NewReader(conn), 0
		for {
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("%s: after %d hints: %v", app, hints, err)
			}
			if resp.StatusCode != http.StatusEarlyHints {
				if resp.StatusCode != http.StatusGatewayTimeout && resp.StatusCode != http.StatusBadGateway {
					t.Errorf("%s: got %s", app, resp.Status)
				}
				break
			}
			hints++
		}
		if hints == 0 {
			t.Errorf("%s: there were no hints", app)
		}
	}
	within(t, ended, "the end of the app's request")
}

// restarting restarts the app's instances in turn while clients call it, and returns how many calls there were.
func restarting(t *testing.T, a watt.App) int64 {
	t.Helper()
	f := newFront(t, a)
	var calls atomic.Int64
	var clients sync.WaitGroup
	done := make(chan struct{})
	for range 8 {
		c := client(t, nil)
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				req, _ := http.NewRequest(http.MethodPost, "http://"+f.addr+"/users", strings.NewReader("order")) // not to be repeated
				resp, err := c.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK || string(body) != "order" || err != nil {
					t.Errorf("got %s %q, %v", resp.Status, body, err)
				}
				calls.Add(1)
			}
		})
	}
	for round := range 10 {
		seen := calls.Load()
		soon(t, "calls", func() bool { return calls.Load() > seen+20 || t.Failed() })
		if err := f.rt.Restart("users", round%max(1, a.Instances)); err != nil {
			t.Error(err)
		}
	}
	close(done)
	clients.Wait()
	f.wantSilence(t, zap.WarnLevel)
	return calls.Load()
}

// orderly is an app that takes a little time to start.
func orderly(instances int) watt.App {
	return watt.App{Name: "users", Instances: instances, Workers: 4, New: func(ctx context.Context, _ *watt.Env) (http.Handler, error) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
		}), nil
	}}
}

func TestRequestsWaitForAnAppThatRestarts(t *testing.T) {
	if got := restarting(t, orderly(1)); got < 200 {
		t.Errorf("there were %d calls only", got)
	}
}

func TestWithASecondInstanceNobodyNoticesARestart(t *testing.T) {
	if got := restarting(t, orderly(2)); got < 200 {
		t.Errorf("there were %d calls only", got)
	}
}

func TestARestartBeyondTheQueuesLimitIs503(t *testing.T) {
	starts := make(chan struct{}, 2)
	starts <- struct{}{}
	f := newFront(t, watt.App{Name: "users", QueueTimeout: 20 * time.Millisecond, New: func(ctx context.Context, _ *watt.Env) (http.Handler, error) {
		select {
		case <-starts:
		case <-ctx.Done():
		}
		return http.NotFoundHandler(), nil
	}})
	restarted := make(chan error, 1)
	go func() { restarted <- f.rt.Restart("users", 0) }()
	soon(t, "503", func() bool { return f.do(t, "GET", "/users", nil).StatusCode == http.StatusServiceUnavailable })
	resp := f.do(t, "GET", "/users", nil)
	wantNotice(t, resp, all(t, resp), http.StatusServiceUnavailable, "users")
	if resp.Header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	starts <- struct{}{}
	if err := within(t, restarted, "the restart"); err != nil {
		t.Error(err)
	}
	if resp := f.do(t, "GET", "/users", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("got %s", resp.Status)
	}
}

// An app elsewhere that ends a kept connection over a request that it has read has died, and the request, which is harmless
// to repeat, is not: its body has come only once.
func TestAnUploadWithAKeyThatMeetsADeathSaysSo(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go accept(t.Context(), ln, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if req.Method == http.MethodPut {
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	met := make(chan error, 1)
	f := startFront(t, serving(func(env *watt.Env) http.Handler {
		p := pyramid.Proxy(env, "elsewhere")
		fail := p.ErrorHandler
		p.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
			met <- err
			fail(w, r, err)
		}
		return p
	}), watt.App{Name: "elsewhere", URL: "http://" + ln.Addr().String()})
	all(t, f.do(t, http.MethodGet, "/", nil))
	resp := f.do(t, http.MethodPut, "/", strings.NewReader("a"), "Idempotency-Key", "1")
	wantNotice(t, resp, all(t, resp), http.StatusBadGateway, "elsewhere")
	if err := <-met; !errors.Is(err, watt.ErrInstanceDied) {
		t.Errorf("got %v", err)
	}
}

// retrying opens the body of each request again and again, as a transport may that knows it to be unsent.
type retrying struct {
	http.RoundTripper
	t *testing.T
}

func (r retrying) RoundTrip(req *http.Request) (*http.Response, error) {
	bodies := []io.ReadCloser{req.Body}
	again := func() error {
		body, err := req.GetBody()
		bodies = append(bodies, body)
		return err
	}
	silent := func(i int, when string) {
		if n, err := bodies[i].Read(make([]byte, 1)); n != 0 || err == nil {
			r.t.Errorf("%d read %d bytes, %v, %s", i, n, err, when)
		}
	}
	if err := again(); err != nil {
		return nil, err
	}
	silent(0, "which another one is to do")
	_ = bodies[1].Close()
	silent(1, "closed")
	if err := again(); err != nil {
		return nil, err
	}
	req.Body = bodies[2]
	resp, err := r.RoundTripper.RoundTrip(req)
	silent(0, "which another one has done")
	if again() == nil {
		r.t.Error("it was opened once more, though it has been read")
	}
	return resp, err
}

func TestABodyIsReadByTheLastWhoHasOpenedIt(t *testing.T) {
	f := startFront(t, serving(func(env *watt.Env) http.Handler {
		p := pyramid.Proxy(env, "echo")
		p.Transport = retrying{p.Transport, t}
		return p
	}), handling("echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	for range 10 {
		if got := all(t, f.do(t, http.MethodPost, "/", strings.NewReader("the body"))); got != "the body" {
			t.Errorf("got %q", got)
		}
	}
}
