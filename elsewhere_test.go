package watt_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/net/http2"

	"github.com/org/watt"
)

// TestACallToAnAppElsewhereIsMadeAgainOnlyIfItChangesNothing where a connection that was kept ends without an answer.
func TestACallToAnAppElsewhereIsMadeAgainOnlyIfItChangesNothing(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" || calls.Add(1) > 1 {
			_, _ = io.WriteString(w, "answer")
			return
		}
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(server.Close)
	rt := start(t, watt.App{Name: "away", URL: server.URL})
	for range 5 {
		for method, again := range map[string]bool{
			http.MethodGet: true, http.MethodHead: true, http.MethodOptions: true, http.MethodTrace: true,
			http.MethodPost: false, http.MethodPut: false, http.MethodDelete: false, "PURGE": false,
		} {
			calls.Store(0)
			resp, err := rt.Env().Get(t.Context(), "http://away.watt.local/")
			read(t, resp, err)
			req := request(t.Context(), method, "http://away.watt.local/abort", nil)
			req.Header.Set("Idempotency-Key", "1") // which says nothing of whether the app knows it
			resp, err = rt.Env().Client.Do(req)
			if again {
				if got := read(t, resp, err); got != "answer" && method != http.MethodHead || calls.Load() != 2 {
					t.Fatalf("%s: got %q after %d calls, want the second's answer", method, got, calls.Load())
				}
				continue
			}
			if call, ok := errors.AsType[*watt.CallError](err); !ok || !errors.Is(err, watt.ErrInstanceDied) || !call.Started {
				t.Fatalf("%s: got %v, want a started call to an instance that died", method, err)
			} else if !strings.Contains(err.Error(), "of an earlier call") {
				t.Fatalf("%s: got %v, want it to speak of the first connection", method, err)
			}
			if n := calls.Load(); n != 1 {
				t.Fatalf("%s: the app was called %d times, want once", method, n)
			}
		}
	}
}

// TestACallElsewhereWithABodyIsMadeOnce also where the transport could have the body again.
func TestACallElsewhereWithABodyIsMadeOnce(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/abort" {
			calls.Add(1)
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	rt := start(t, watt.App{Name: "away", URL: server.URL})
	for name, body := range map[string]io.Reader{"in memory": strings.NewReader("query"), "as it comes": io.MultiReader(strings.NewReader("query"))} {
		calls.Store(0)
		resp, err := rt.Env().Get(t.Context(), "http://away.watt.local/")
		read(t, resp, err)
		resp, err = rt.Env().Client.Do(request(t.Context(), http.MethodGet, "http://away.watt.local/abort", body))
		if err == nil {
			resp.Body.Close()
		}
		if n := calls.Load(); n != 1 || !errors.Is(err, watt.ErrInstanceDied) {
			t.Errorf("%s: got %v after %d calls, want that the instance died after one", name, err, n)
		}
	}
}

func TestACallThatIsNotMadeAgainEndsNoMoreConnections(t *testing.T) {
	const many = 120
	var opened atomic.Int32
	var met sync.WaitGroup
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			panic(http.ErrAbortHandler)
		}
		met.Done()
		met.Wait()
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	rt := start(t, watt.App{Name: "away", URL: server.URL, Workers: many})
	meet := func() {
		met.Add(many)
		var all sync.WaitGroup
		for range many {
			all.Go(func() {
				if r := get(t.Context(), rt, "away.watt.local/"); r.err != nil {
					t.Error(r.err)
				}
			})
		}
		all.Wait()
	}
	meet()
	before := opened.Load()
	req := request(t.Context(), http.MethodPost, "http://away.watt.local/", nil)
	req.Header.Set("Idempotency-Key", "1")
	_, err := rt.Env().Client.Do(req)
	wantErr(t, err, watt.ErrInstanceDied)
	meet()
	if n := opened.Load() - before; n > 2 {
		t.Errorf("%d of %d connections were opened anew, want the one that has ended and the one that was not used", n, many)
	}
}

func TestGRPCReachesAnAppElsewhereOverHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.Copy(w, r.Body)
		fmt.Fprintf(w, "%s %s", r.Proto, r.URL.Path)
		w.Header().Set("Grpc-Status", "0")
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	rt := start(t, watt.App{Name: "away", URL: server.URL + "/base"})
	for kind, proto := range map[string]string{"application/grpc+proto": "HTTP/2.0", "application/grpc-web": "HTTP/1.1", "text/plain": "HTTP/1.1"} {
		req := request(t.Context(), http.MethodPost, "http://away.watt.local/svc/Method", strings.NewReader("said "))
		req.Header.Set("Content-Type", kind)
		resp, err := rt.Env().Client.Do(req)
		if got, want := read(t, resp, err), "said "+proto+" /base/svc/Method"; got != want {
			t.Errorf("%s: got %q, want %q", kind, got, want)
		}
		if resp.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%s: got trailers %v", kind, resp.Trailer)
		}
	}
}

// goAway has the client of a connection of HTTP/2 go to another one with its first request, which was not begun.
func goAway(conn net.Conn) {
	_, _ = io.CopyN(io.Discard, conn, int64(len(http2.ClientPreface)))
	framer := http2.NewFramer(conn, conn)
	_ = framer.WriteSettings()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		if frame.Header().Type == http2.FrameHeaders {
			_ = framer.WriteGoAway(0, http2.ErrCodeNo, nil)
		}
	}
}

func TestGRPCThatWasNotBegunElsewhereIsSentAgain(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})}
	server.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		go server.Serve(ln)
		goAway(conn)
	}()
	rt := start(t, watt.App{Name: "away", URL: "http://" + ln.Addr().String()})
	req := request(t.Context(), http.MethodPost, "http://away.watt.local/", strings.NewReader("once"))
	req.Header.Set("Content-Type", "application/grpc")
	resp, err := rt.Env().Client.Do(req)
	if got := read(t, resp, err); got != "once" {
		t.Errorf("got %q", got)
	}
}

// resetting is a server of HTTP/2 that resets every stream, and how many that were.
func resetting(t *testing.T, code http2.ErrCode) (url string, streams *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	streams = new(atomic.Int64)
	resets := func(conn net.Conn) {
		defer conn.Close()
		_, _ = io.ReadFull(conn, make([]byte, len(http2.ClientPreface)))
		framer := http2.NewFramer(conn, conn)
		_ = framer.WriteSettings()
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			if head := frame.Header(); head.Type == http2.FrameHeaders {
				streams.Add(1)
				_ = framer.WriteRSTStream(head.StreamID, code)
			}
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { resets(conn) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		all.Wait()
	})
	return "http://" + ln.Addr().String(), streams
}

// TestACallThatIsAlwaysResetIsGivenUp soon, since net/http would repeat it for as long as there is time. To that, this error too
// means that the request has not begun.
func TestACallThatIsAlwaysResetIsGivenUp(t *testing.T) {
	url, streams := resetting(t, http2.ErrCodeProtocol)
	rt := start(t, watt.App{Name: "away", URL: url, Timeout: -1})
	req := request(t.Context(), http.MethodPost, "http://away.watt.local/", strings.NewReader("hello"))
	req.Header.Set("Content-Type", "application/grpc")
	_, err := rt.Env().Client.Do(req)
	if call, ok := errors.AsType[*watt.CallError](err); !ok || !call.Started {
		t.Errorf("got %v, want a call that may have started", err)
	}
	if n := streams.Load(); n > 5 {
		t.Errorf("it was made %d times", n)
	}
}

// TestAnAppElsewhereIsUnavailableWhileNoHandshakeWithItSucceeds as where nobody listens: it has seen no request.
func TestAnAppElsewhereIsUnavailableWhileNoHandshakeWithItSucceeds(t *testing.T) {
	for name, c := range map[string]struct {
		meet func(conn net.Conn, giveUp func())
		want error
	}{
		"closes":                           {func(conn net.Conn, _ func()) { _ = conn.Close() }, watt.ErrUnavailable},
		"hangs":                            {func(conn net.Conn, _ func()) { _, _ = io.Copy(io.Discard, conn) }, context.DeadlineExceeded},
		"hangs, until the caller gives up": {func(conn net.Conn, giveUp func()) { giveUp(); _, _ = io.Copy(io.Discard, conn) }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ln.Close() })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if errors.Is(c.want, context.DeadlineExceeded) {
				ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
			}
			go func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					c.meet(conn, cancel)
				}
			}()
			rt := start(t, watt.App{Name: "away", URL: "https://" + ln.Addr().String()})
			_, err = rt.Env().Get(ctx, "http://away.watt.local/")
			if call, ok := errors.AsType[*watt.CallError](err); !ok || !errors.Is(err, c.want) || call.Started || errors.Is(err, watt.ErrInstanceDied) {
				t.Errorf("got %v, want %v and not started", err, c.want)
			}
		})
	}
}

// TestWhyCallsToAnAppElsewhereFailIsSummedUpInTheLog leaves out those that their callers gave up or spoiled, and errors that
// are answers.
func TestWhyCallsToAnAppElsewhereFailIsSummedUpInTheLog(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			<-r.Context().Done()
		case "/fault":
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	rt, logs := logging(t, zapcore.WarnLevel, watt.App{Name: "away", URL: server.URL, Timeout: 50 * time.Millisecond})
	env := rt.Env()
	resp, err := env.Get(t.Context(), "http://away.watt.local/fault")
	read(t, resp, err)
	given, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := env.Get(given, "http://away.watt.local/hang"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the caller's deadline", err)
	}
	spoiled := request(t.Context(), http.MethodPost, "http://away.watt.local/", iotest.ErrReader(errors.New("spoiled")))
	if _, err := env.Client.Do(spoiled); err == nil {
		t.Error("a body that cannot be read has been sent")
	}
	_, late := env.Get(t.Context(), "http://away.watt.local/hang")
	server.CloseClientConnections()
	server.Close()
	_, refused := env.Get(t.Context(), "http://away.watt.local/")
	if !errors.Is(late, context.DeadlineExceeded) || !errors.Is(refused, watt.ErrUnavailable) {
		t.Errorf("got %v and %v, want the Timeout, and that it is unavailable", late, refused)
	}
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	lines := logs.FilterMessage("calls to it failed").All()
	if len(lines) != 1 {
		t.Fatalf("got %v, want one line", logs.All())
	}
	fields := lines[0].ContextMap()
	if last, _ := fields["last"].(string); fields["app"] != "away" || fields["requests"] != uint64(2) || !strings.Contains(last, "connection refused") {
		t.Errorf("got %v, want two calls, the last of which was refused", fields)
	}
}

// TestThatAnAppElsewhereCannotBeReachedIsInTheLog also where the caller has not had the time to find out.
func TestThatAnAppElsewhereCannotBeReachedIsInTheLog(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	var addrs [2]string
	for i := range addrs {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if addrs[i] = ln.Addr().String(); i == 0 {
			_ = ln.Close() // the other one takes connections, and says nothing
		}
	}
	rt := watt.New(watt.App{Name: "closed", URL: "http://" + addrs[0]}, watt.App{Name: "mute", URL: "https://" + addrs[1]})
	rt.Logger = zap.New(core)
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		wantErr(t, get(t.Context(), rt, "closed.watt.local/").err, watt.ErrUnavailable)
	}
	_, err := rt.Env().Dial(t.Context(), "closed")
	wantErr(t, err, watt.ErrUnavailable)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, get(gone, rt, "closed.watt.local/").err, context.Canceled) // which says nothing of the app
	hurried, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantErr(t, get(hurried, rt, "mute.watt.local/").err, context.DeadlineExceeded)
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for app, want := range map[string]uint64{"closed": 4, "mute": 1} {
		lines := logs.FilterField(zap.String("app", app)).All()
		if len(lines) != 1 || lines[0].ContextMap()["requests"] != want || !strings.Contains(fmt.Sprint(lines[0].ContextMap()["last"]), "dial tcp") {
			t.Errorf("%s: got %v, want one line that sums up %d and says why", app, lines, want)
		}
	}
}

func TestShutdownWaitsForMainsCallsToAppsElsewhere(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-finish
		_, _ = io.WriteString(w, "answer")
	}))
	t.Cleanup(server.Close)
	rt := watt.New(watt.App{Name: "away", URL: server.URL})
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	called := make(chan error, 1)
	go func() {
		resp, err := rt.Env().Get(t.Context(), "http://away.watt.local/")
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		called <- err
	}()
	within(t, began, "the call")
	stopped := make(chan error, 1)
	go func() { stopped <- rt.Shutdown(t.Context()) }()
	for rt.Ready() == nil { // until the shutdown has begun
		runtime.Gosched()
	}
	close(finish)
	if err := within(t, called, "the answer"); err != nil {
		t.Error(err)
	}
	if err := within(t, stopped, "the shutdown"); err != nil {
		t.Error(err)
	}
}

func TestStrangersTrailersAreCleanedLikeTheirHeaders(t *testing.T) {
	got := make(chan http.Header, 1)
	a := app("web", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- r.Trailer
	})
	a.Listen = "127.0.0.1:0"
	rt := start(t, a)
	conn, err := net.Dial("tcp", rt.Status()[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Watt-User, Checksum\r\n\r\n"+
		"1\r\na\r\n0\r\nX-Watt-User: 7\r\nX_watt_user: 7\r\nChecksum: c\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
		t.Fatal(err)
	}
	if h := within(t, got, "the request"); len(h) != 1 || h.Get("Checksum") != "c" {
		t.Errorf("got trailers %v, want only the checksum", h)
	}
}

func TestTrailersOfAGETWithoutABodyArrive(t *testing.T) {
	tells := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.Trailer.Get("Sum"))
	})
	server := httptest.NewServer(tells)
	t.Cleanup(server.Close)
	rt := start(t, watt.App{Name: "away", URL: server.URL}, app("here", tells))
	for _, name := range []string{"away", "here"} {
		req := request(t.Context(), http.MethodGet, "http://"+name+".watt.local/", io.MultiReader())
		req.Trailer = http.Header{"Sum": {"1"}}
		resp, err := rt.Env().Client.Do(req)
		if got := read(t, resp, err); got != "1" {
			t.Errorf("%s got %q, want 1", name, got)
		}
	}
}

func TestDialReachesAnAppElsewhereBehindTLS(t *testing.T) {
	ca := newCA(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", ca.server(tls.RequireAndVerifyClientCert))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	for name, config := range map[string]*tls.Config{
		"right": {RootCAs: ca.pool, Certificates: []tls.Certificate{ca.issue("gateway.example")}},
		"wrong": {Certificates: []tls.Certificate{ca.issue("gateway.example")}}, // it does not know the authority
	} {
		rt := start(t, watt.App{Name: "a", URL: "https://" + ln.Addr().String(), TLS: config})
		conn, err := rt.Env().Dial(t.Context(), "a")
		if name == "wrong" {
			wantErr(t, err, watt.ErrUnavailable)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, "hello")
		got := make([]byte, 5)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
			t.Errorf("got %q, %v", got, err)
		}
		conn.Close()
		if s := statusOf(t, rt, "a"); s.Conns != 0 {
			t.Errorf("%d connections are counted", s.Conns)
		}
	}
}
