package watt_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/org/watt"
)

// echo answers with what it reads, chunk by chunk, and with its trailers.
func echo(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex() // HTTP/2 has it anyway
	w.Header().Set("Trailer", "Sum")
	_ = rc.Flush()
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			w.Write(buf[:n])
			_ = rc.Flush()
		}
		if err != nil {
			w.Header().Set("Sum", r.Trailer.Get("Sum")+"!")
			return
		}
	}
}

// streamed sends words one by one, each after the echo of the one before has come back.
func streamed(t *testing.T, client http.RoundTripper, req *http.Request) *http.Response {
	t.Helper()
	body, send := io.Pipe()
	req.Body, req.ContentLength = body, -1
	req.Trailer = http.Header{"Sum": nil}
	resp, err := client.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"one", "two", "three"} {
		io.WriteString(send, word)
		got := make([]byte, len(word))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != word {
			t.Fatalf("got %q, %v, want %q", got, err, word)
		}
	}
	req.Trailer.Set("Sum", "3")
	send.Close()
	if rest := read(t, resp, nil); rest != "" {
		t.Errorf("got %q at the end", rest)
	}
	if got := resp.Trailer.Get("Sum"); got != "3!" {
		t.Errorf("got trailer %q, want 3!", got)
	}
	return resp
}

func TestStreamingBothWaysAndTrailersCrossTheMesh(t *testing.T) {
	rt := start(t, app("echo", echo))
	streamed(t, rt.Env().Client.Transport, request(t.Context(), http.MethodPost, "http://echo.watt.local/", nil))
}

func TestGRPCCallsOfTheClientAreHTTP2(t *testing.T) {
	rt := start(t, app("echo", echo))
	req := request(t.Context(), http.MethodPost, "http://echo.watt.local/", nil)
	req.Header.Set("Content-Type", "application/grpc+proto")
	if resp := streamed(t, rt.Env().Client.Transport, req); resp.ProtoMajor != 2 {
		t.Errorf("got %s", resp.Proto)
	}
}

func TestH2CCrossesTheMeshByDial(t *testing.T) {
	caller, deadline := make(chan string, 1), make(chan bool, 1)
	h := func(w http.ResponseWriter, r *http.Request) {
		_, has := r.Context().Deadline()
		caller <- watt.Caller(r.Context())
		deadline <- has
		echo(w, r)
	}
	var env *watt.Env
	web := watt.App{Name: "web", Calls: []string{"echo"}, New: func(_ context.Context, e *watt.Env) (http.Handler, error) {
		env = e
		return http.NotFoundHandler(), nil
	}}
	start(t, web, app("echo", h))
	transport := &http.Transport{
		Protocols:   new(http.Protocols),
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return env.Dial(ctx, addr) },
	}
	defer transport.CloseIdleConnections()
	transport.Protocols.SetUnencryptedHTTP2(true)
	req := request(t.Context(), http.MethodPost, "http://echo.watt.local:50051/", nil)
	req.Header.Set("X-Watt-Timeout", "60000") // how a deadline travels where the mesh sees only bytes
	if resp := streamed(t, transport, req); resp.ProtoMajor != 2 {
		t.Errorf("got %s", resp.Proto)
	}
	if got := <-caller; got != "web" {
		t.Errorf("the caller is %q", got)
	}
	if !<-deadline {
		t.Error("the callee has no deadline")
	}
}

func TestInformationalAnswersCrossTheMesh(t *testing.T) {
	rt := start(t, app("hints", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusTeapot)
		w.Write(body)
	}))
	var seen []string
	continued := false
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			seen = append(seen, fmt.Sprint(code, h.Get("Link")))
			return nil
		},
		Got100Continue: func() { continued = true },
	})
	req := request(ctx, http.MethodPost, "http://hints.watt.local/", strings.NewReader("body"))
	req.Header.Set("Expect", "100-continue")
	resp, err := rt.Env().Client.Do(req)
	if got := read(t, resp, err); got != "body" || resp.StatusCode != http.StatusTeapot {
		t.Errorf("got %d %q", resp.StatusCode, got)
	}
	if len(seen) == 0 || seen[0] != "103</style.css>" || !continued {
		t.Errorf("got %q, 100-continue %t", seen, continued)
	}
}

func TestNobodyInformsAClientOfHTTP10(t *testing.T) { // which would take that for the answer
	rt := start(t, public(app("web", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "hello")
	})))
	conn := dialTCP(t, publicAddr(t, rt, "web"))
	io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	if got, err := io.ReadAll(conn); !strings.HasPrefix(string(got), "HTTP/1.0 200 OK\r\n") || !strings.HasSuffix(string(got), "\r\n\r\nhello") {
		t.Errorf("got %q, %v", got, err)
	}
}

// A client of HTTP/2 may reset a stream while an informational answer is on its way. The handler then goes on, and
// changes its header, while the server may still read what it was asked to send.
func TestAHandlerMayChangeItsHeaderAfterInformingAClientThatHasGone(t *testing.T) {
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	over := make(chan bool)
	web := public(app("web", func(w http.ResponseWriter, r *http.Request) {
		defer close(over)
		for r.Context().Err() == nil {
			w.Header().Set("Link", strings.Repeat("a", 60<<10))
			w.WriteHeader(http.StatusEarlyHints)
			clear(w.Header())
		}
	}))
	web.Protocols = &h2c
	rt := start(t, web)
	conn := dialTCP(t, publicAddr(t, rt, "web"))
	_, _ = io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, nil)
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	for name, value := range map[string]string{":method": "GET", ":scheme": "http", ":authority": "web", ":path": "/"} {
		_ = encoder.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true})
	soon(t, "an answer that the client does not take", func() bool { return statusOf(t, rt, "web").Busy == 1 })
	_ = framer.WriteRSTStream(1, http2.ErrCodeCancel)
	within(t, over, "the end of the handler")
}

func TestHEADCrossesTheMesh(t *testing.T) {
	rt := start(t, app("users", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		w.Header().Set("Method", r.Method)
	}))
	for range 3 {
		resp, err := rt.Env().Client.Do(request(t.Context(), http.MethodHead, "http://users.watt.local/", nil))
		if body := read(t, resp, err); body != "" || resp.ContentLength != 1000000 || resp.Header.Get("Method") != "HEAD" {
			t.Errorf("got %q, %d, %v", body, resp.ContentLength, resp.Header)
		}
	}
	soon(t, "idle workers", func() bool { return statusOf(t, rt, "users").Busy == 0 })
}

// shout upgrades, and answers each line in upper case until the client has ended its side; then it says bye.
func shout(w http.ResponseWriter, _ *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	rw.Flush()
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			break
		}
		rw.WriteString(strings.ToUpper(line))
		rw.Flush()
	}
	rw.WriteString("bye")
	rw.Flush()
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	io.Copy(io.Discard, conn)
}

func TestAnUpgradeCrossesTheMeshWithHalfCloseBothWays(t *testing.T) {
	rt := start(t, app("chat", shout))
	resp, err := rt.Env().Client.Do(upgrading(t.Context(), "http://chat.watt.local/"))
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	conn := resp.Body.(io.ReadWriteCloser)
	defer conn.Close()
	io.WriteString(conn, "hello\n")
	if line, err := bufio.NewReader(io.LimitReader(conn, 6)).ReadString('\n'); line != "HELLO\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if s := statusOf(t, rt, "chat"); s.Busy != 0 || s.Conns != 1 {
		t.Errorf("busy %d, connections %d; want 0, 1", s.Busy, s.Conns)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); string(rest) != "bye" || err != nil {
		t.Errorf("got %q, %v, want bye", rest, err)
	}
}

// switchOver takes the connection of a request over, after the answer that it speaks another protocol from now on.
func switchOver(t *testing.T, w http.ResponseWriter) (net.Conn, *bufio.ReadWriter) {
	t.Helper()
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		panic(http.ErrAbortHandler)
	}
	rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	rw.Flush()
	return conn, rw
}

func TestAnUpgradedConnectionOutlivesTheCalleesLastWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := make(chan string, 1)
		rt := start(t, app("chat", func(w http.ResponseWriter, _ *http.Request) {
			conn, rw := switchOver(t, w)
			defer conn.Close()
			conn.(interface{ CloseWrite() error }).CloseWrite()
			text, _ := io.ReadAll(rw)
			heard <- string(text)
		}))
		resp, err := rt.Env().Client.Do(upgrading(t.Context(), "http://chat.watt.local/"))
		if err != nil {
			t.Fatal(err)
		}
		conn := resp.Body.(io.ReadWriteCloser)
		for range 2 {
			if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // Read returns it bare
				t.Errorf("got %d bytes, %v, want EOF", n, err)
			}
			synctest.Wait()
		}
		if _, err := io.WriteString(conn, "still here"); err != nil {
			t.Error(err)
		}
		conn.Close()
		if got := <-heard; got != "still here" {
			t.Errorf("the callee heard %q", got)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: got %v, want %v", err, net.ErrClosed)
		}
	})
}

func TestAnUpgradedConnectionOutlivesTheContextOfItsHandshake(t *testing.T) {
	ends := map[string]func(cancel func()){
		"canceled": func(cancel func()) { cancel() },
		"over":     func(func()) { time.Sleep(time.Hour) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := start(t, app("chat", func(w http.ResponseWriter, _ *http.Request) {
					conn, rw := switchOver(t, w)
					defer conn.Close()
					text, _ := rw.ReadString('\n')
					io.WriteString(conn, text)
				}))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				resp, err := rt.Env().Client.Do(upgrading(ctx, "http://chat.watt.local/"))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				end(cancel)
				synctest.Wait()
				if _, err := io.WriteString(resp.Body.(io.Writer), "still here\n"); err != nil {
					t.Error(err)
				}
				if got, err := io.ReadAll(resp.Body); string(got) != "still here\n" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			})
		})
	}
}

// shoutTCP is shout without HTTP.
func shoutTCP(ctx context.Context, _ *watt.Env, ln net.Listener) error {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return nil // told to end
		}
		go func() {
			defer conn.Close()
			text, _ := io.ReadAll(conn)
			conn.Write(bytes.ToUpper(text))
		}()
	}
}

func TestRawTCPCrossesTheMeshByDial(t *testing.T) {
	rt := start(t, watt.App{Name: "raw", Serve: shoutTCP})
	conn, err := rt.Env().Dial(t.Context(), "raw")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "hello")
	if s := statusOf(t, rt, "raw"); s.Conns != 1 {
		t.Errorf("%d connections are counted, want 1", s.Conns)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "HELLO" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	conn.Close()
	if s := statusOf(t, rt, "raw"); s.Conns != 0 {
		t.Errorf("%d connections are counted, want none", s.Conns)
	}
}

func TestLargeBodiesCrossTheMeshUnharmed(t *testing.T) {
	sent := make([]byte, 8<<20)
	rand.Read(sent)
	rt := start(t, app("echo", echo), app("early", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	}))
	for _, body := range []io.Reader{bytes.NewReader(sent), iotest.DataErrReader(bytes.NewReader(sent))} {
		resp, err := rt.Env().Client.Post("http://echo.watt.local/", "", body)
		if got := read(t, resp, err); got != string(sent) {
			t.Errorf("got another body, of %d bytes", len(got))
		}
	}
	for range 5 { // an early answer, while the body is still being sent
		resp, err := rt.Env().Client.Post("http://early.watt.local/", "", bytes.NewReader(sent))
		read(t, resp, err)
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("got %d", resp.StatusCode)
		}
	}
}

func TestSeveralMayReadAnAnswer(t *testing.T) {
	const size = 50 << 10
	rt := start(t, app("a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sized" {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		w.Write(bytes.Repeat([]byte("x"), size))
	}))
	for way, header := range map[string]string{"without a wire": "X-Any", "over a wire": "Pragma"} {
		for _, path := range []string{"/sized", "/chunked"} {
			t.Run(way+path, func(t *testing.T) {
				req := request(t.Context(), http.MethodGet, "http://a.watt.local"+path, nil)
				req.Header.Set(header, "any")
				resp, err := rt.Env().Client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				var readers sync.WaitGroup
				var got atomic.Int64
				for range 4 {
					readers.Go(func() {
						n, err := io.Copy(io.Discard, resp.Body)
						if got.Add(n); err != nil {
							t.Error(err)
						}
					})
				}
				if readers.Wait(); got.Load() != size {
					t.Errorf("got %d bytes, want %d", got.Load(), size)
				}
			})
		}
	}
}

func TestABodyThatCannotBeReadFailsTheCall(t *testing.T) {
	broken := errors.New("disk on fire")
	rt := start(t, app("echo", echo))
	body := io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<17)), iotest.ErrReader(broken))
	resp, err := rt.Env().Client.Post("http://echo.watt.local/", "", body)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("the call succeeded")
	}
	resp, err = rt.Env().Client.Post("http://echo.watt.local/", "", iotest.ErrReader(broken))
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("the call without a byte of its body succeeded")
	}
	resp, err = rt.Env().Client.Post("http://echo.watt.local/", "", strings.NewReader("fine"))
	if got := read(t, resp, err); got != "fine" {
		t.Errorf("afterwards: got %q", got)
	}
}

func TestAWorkerIsHeldUntilTheHandlerReturnsAndNoLonger(t *testing.T) {
	rt := start(t, app("users", sayHello), app("large", func(w http.ResponseWriter, _ *http.Request) {
		w.Write(make([]byte, 1<<20))
	}))
	for range 200 { // more than there are workers: bodies that nobody reads or closes hold none
		resp, err := rt.Env().Get(t.Context(), "http://users.watt.local/")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
	}
	for range 200 { // what is closed early neither
		resp, err := rt.Env().Get(t.Context(), "http://large.watt.local/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
}

func TestWhoHasLeftTheQueueIsNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		a := app("slow", func(w http.ResponseWriter, r *http.Request) {
			runs++
			work(w, r)
		})
		a.Workers, a.QueueTimeout = 1, time.Minute
		rt := start(t, a)
		first := going(t.Context(), rt, "slow.watt.local/10s")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if r := get(ctx, rt, "slow.watt.local/1s"); !errors.Is(r.err, context.DeadlineExceeded) || r.took != time.Second {
			t.Errorf("got %v after %v", r.err, r.took)
		}
		if s := statusOf(t, rt, "slow"); s.Queued != 0 || s.Gone != 1 {
			t.Errorf("queued %d, gone %d; want 0, 1", s.Queued, s.Gone)
		}
		if r := <-first; r.err != nil || runs != 1 {
			t.Errorf("%d requests were run, the first came to %v", runs, r.err)
		}
	})
}

func TestCallsToAServeAppHoldAWorkerUntilTheBodyHasEndedOrIsClosed(t *testing.T) {
	var conns atomic.Int32
	a := watt.App{Name: "own", Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
		server := &http.Server{Handler: http.HandlerFunc(sayHello), ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				conns.Add(1)
			}
		}}
		stop := context.AfterFunc(ctx, func() { server.Close() })
		defer stop()
		_ = server.Serve(ln)
		return nil
	}}
	a.Workers, a.Queue = 1, -1
	rt := start(t, a)
	for i := range 3 {
		resp, err := rt.Env().Get(t.Context(), "http://own.watt.local/")
		if err != nil {
			t.Fatal(err)
		}
		if s := statusOf(t, rt, "own"); s.Busy != 1 {
			t.Errorf("%d workers are busy, want 1", s.Busy)
		}
		if _, err := rt.Env().Get(t.Context(), "http://own.watt.local/"); !errors.Is(err, watt.ErrOverloaded) {
			t.Errorf("got %v, want ErrOverloaded", err)
		}
		if i == 0 {
			io.Copy(io.Discard, resp.Body) // to its end, which leaves the connection to the next
		} else {
			resp.Body.Close()
		}
		if s := statusOf(t, rt, "own"); s.Busy != 0 {
			t.Errorf("%d workers are busy, want none", s.Busy)
		}
		resp.Body.Close()
	}
	if n := conns.Load(); n != 2 {
		t.Errorf("got %d connections, want one for the first and second call that had a worker, and one for the third", n)
	}
}
