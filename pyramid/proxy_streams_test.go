package pyramid_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

// versions are those of HTTP that a client may speak without encryption.
func versions() map[string]*http.Protocols {
	return map[string]*http.Protocols{"HTTP/1": nil, "HTTP/2": h2c()}
}

// dialogue answers each line with a line, as soon as that has come.
func dialogue(w http.ResponseWriter, r *http.Request) {
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		fmt.Fprintf(w, "%s!\n", lines.Text())
		http.NewResponseController(w).Flush()
	}
}

func TestRequestAndAnswerStreamAtTheSameTime(t *testing.T) {
	f := startFront(t, watt.App{Protocols: both()}, handling("talk", dialogue))
	for name, protocols := range versions() {
		t.Run(name, func(t *testing.T) {
			c := client(t, protocols)
			body, out := io.Pipe()
			req := f.request(t, "POST", "/talk", body)
			go io.WriteString(out, "0\n")
			resp := send(t, c, req)
			in := bufio.NewReader(resp.Body)
			for i := range 100 {
				if got, err := in.ReadString('\n'); got != fmt.Sprintf("%d!\n", i) {
					t.Fatalf("got %q, %v", got, err)
				}
				fmt.Fprintf(out, "%d\n", i+1)
			}
			in.ReadString('\n')
			out.Close()
			if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
				t.Errorf("got %q, %v", rest, err)
			}
		})
	}
}

func TestEventsComeWithoutDelayAndHoldNoWorker(t *testing.T) {
	next := make(chan string)
	f := startFront(t, watt.App{Protocols: both(), Workers: 1}, watt.App{Name: "feed", Workers: 1, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			for {
				select {
				case data := <-next:
					fmt.Fprintf(w, "data: %s\n\n", data)
					http.NewResponseController(w).Flush()
				case <-r.Context().Done():
					return
				}
			}
		})})
	for name, protocols := range versions() {
		t.Run(name, func(t *testing.T) {
			c := client(t, protocols)
			resp := send(t, c, f.request(t, "GET", "/feed", nil)) // before there is an event
			in := bufio.NewReader(resp.Body)
			for _, want := range []string{"one", "two"} {
				next <- want
				if got, err := in.ReadString('\n'); got != "data: "+want+"\n" {
					t.Errorf("got %q, %v", got, err)
				}
				in.ReadString('\n')
			}
			soon(t, "the workers", func() bool { return f.statusOf(t, "gateway").Busy == 0 && f.statusOf(t, "feed").Busy == 0 })
			resp.Body.Close()
			soon(t, "the end", func() bool { return f.statusOf(t, "feed").Conns == 0 })
		})
	}
	f.wantSilence(t, zap.WarnLevel)
}

func TestEventsAreCutWhenTheEntrypointDrains(t *testing.T) {
	over := make(chan struct{})
	f := newFront(t, handling("feed", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: one\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(over)
	}))
	resp := f.do(t, "GET", "/feed", nil)
	in := bufio.NewReader(resp.Body)
	if got, err := in.ReadString('\n'); got != "data: one\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := f.rt.Restart("gateway", 0); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(in); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want a stream that is cut", err)
	}
	within(t, over, "the end of the app's request")
}

func TestEventsThatTheEntrypointHasNoRoomForAreRefused(t *testing.T) {
	f := startFront(t, watt.App{MaxConns: -1, Protocols: both()}, handling("feed", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: one\n\n")
	}))
	for name, protocols := range versions() {
		resp := send(t, client(t, protocols), f.request(t, "GET", "/feed", nil))
		wantNotice(t, resp, all(t, resp), http.StatusServiceUnavailable, "")
		if resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: got no Retry-After", name)
		}
	}
}

func TestAWebSocketThatTheEntrypointHasNoMoreRoomForIsRefused(t *testing.T) {
	var f *front
	f = newFront(t, handling("socket", func(w http.ResponseWriter, _ *http.Request) {
		if err := f.rt.Update("gateway", func(a *watt.App) { a.MaxConns = -1 }); err != nil {
			t.Error(err)
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		rw.Flush()
		io.Copy(io.Discard, rw)
	}))
	resp, body := f.raw(t, "GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	wantNotice(t, resp, body, http.StatusServiceUnavailable, "")
	soon(t, "the end", func() bool { return f.statusOf(t, "gateway").Conns == 0 && f.statusOf(t, "socket").Conns == 0 })
	f.wantSilence(t, zap.WarnLevel)
}

func TestWhatHasNoLengthComesWithoutDelay(t *testing.T) {
	goOn := make(chan struct{})
	f := startFront(t, watt.App{Protocols: both()}, handling("slow", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "first")
		http.NewResponseController(w).Flush()
		<-goOn
		io.WriteString(w, "second")
	}))
	for name, protocols := range versions() {
		t.Run(name, func(t *testing.T) {
			c := client(t, protocols)
			resp := send(t, c, f.request(t, "GET", "/slow", nil))
			got := make([]byte, len("first"))
			if _, err := io.ReadFull(resp.Body, got); string(got) != "first" {
				t.Errorf("got %q, %v", got, err)
			}
			goOn <- struct{}{}
			if got := all(t, resp); got != "second" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// chat upgrades to a WebSocket and sends back what it reads, until the client ends its direction. Then it says
// goodbye.
func chat(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Sec-Websocket-Accept", r.Header.Get("Sec-Websocket-Key"))
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.Copy(conn, rw)
	io.WriteString(conn, "goodbye")
}

// hangUp upgrades to a WebSocket, says goodbye, and is gone.
func hangUp(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
	w.Header().Set("Connection", "Upgrade")
	w.WriteHeader(http.StatusSwitchingProtocols)
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		io.WriteString(conn, "goodbye")
		conn.Close()
	}
}

func TestWebsocketsPass(t *testing.T) {
	f := startFront(t, watt.App{Workers: 1}, watt.App{Name: "chat", Workers: 1, Handler: http.HandlerFunc(chat)})
	conn := f.dial(t)
	io.WriteString(conn, "GET /chat/room HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: abc\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if h := resp.Header; resp.StatusCode != http.StatusSwitchingProtocols || h.Get("Upgrade") != "websocket" || h.Get("Sec-Websocket-Accept") != "abc" {
		t.Fatalf("got %s, %v", resp.Status, h)
	}
	for i := range 3 {
		want := fmt.Sprintf("message %d\n", i)
		io.WriteString(conn, want)
		if got, err := in.ReadString('\n'); got != want {
			t.Errorf("got %q, %v", got, err)
		}
	}
	soon(t, "the workers", func() bool { return f.statusOf(t, "gateway").Busy == 0 && f.statusOf(t, "chat").Busy == 0 })
	conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(in); string(got) != "goodbye" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	soon(t, "the end", func() bool { return f.statusOf(t, "chat").Conns == 0 && f.statusOf(t, "gateway").Conns == 0 })
	f.wantSilence(t, zap.WarnLevel)
}

func TestWebsocketsAreCutWhenTheEntrypointDrains(t *testing.T) {
	f := newFront(t, handling("chat", chat))
	conn := f.dial(t)
	io.WriteString(conn, "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", resp, err)
	}
	if err := f.rt.Restart("gateway", 0); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(in); string(got) != "" || err != nil {
		t.Errorf("got %q, %v, want the end alone", got, err)
	}
	soon(t, "the end", func() bool { return f.statusOf(t, "chat").Conns == 0 && f.statusOf(t, "gateway").Conns == 0 })
}

func TestAWebsocketThatTheAppHasEndedIsCutWhenTheEntrypointDrains(t *testing.T) {
	f := newFront(t, handling("chat", hangUp))
	conn := f.dial(t)
	io.WriteString(conn, "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", resp, err)
	}
	if got, err := io.ReadAll(in); string(got) != "goodbye" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if err := f.rt.Restart("gateway", 0); err != nil { // though the client has not closed its end
		t.Error(err)
	}
	soon(t, "the end", func() bool { return f.statusOf(t, "gateway").Conns == 0 })
	f.wantSilence(t, zap.WarnLevel)
}

func TestTheClientOfAWebsocketThatTheAppHasEndedIsWaitedForShortly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(pyramid.New(watt.App{Name: "gateway"}, handling("chat", hangUp))...)
		watttest.Start(t, rt)
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://gateway.watt.local/chat", http.NoBody)
		req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
		resp, err := rt.Env().Client.Do(req)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %v, %v", resp, err)
		}
		defer resp.Body.Close()
		began := time.Now()
		if got, err := io.ReadAll(resp.Body); string(got) != "goodbye" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("the end has come after %v", d)
		}
		time.Sleep(time.Minute)
		if n := rt.Status()[0].Conns; n != 0 {
			t.Errorf("a minute later the gateway has %d connections", n)
		}
	})
}

// Half a connection is one to protocols other than WebSockets, which only callers in the mesh may ask for.
func TestTheClientOfAnotherProtocolMayTalkOnWhenTheAppHasSaidAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := make(chan string, 1)
		rt := watt.New(pyramid.New(watt.App{Name: "gateway"}, handling("log", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "log")
			w.WriteHeader(http.StatusSwitchingProtocols)
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.(interface{ CloseWrite() error }).CloseWrite()
			all, _ := io.ReadAll(rw)
			heard <- string(all)
		}))...)
		watttest.Start(t, rt)
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://gateway.watt.local/log", http.NoBody)
		req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"log"}}
		resp, err := rt.Env().Client.Do(req)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %v, %v", resp, err)
		}
		if got, err := io.ReadAll(resp.Body); len(got) != 0 || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		time.Sleep(time.Minute)
		if _, err := io.WriteString(resp.Body.(io.Writer), "line"); err != nil {
			t.Error(err)
		}
		resp.Body.Close()
		if got := <-heard; got != "line" {
			t.Errorf("the app has heard %q", got)
		}
	})
}

func TestAWebsocketWhoseClientDoesNotReadIsCutWhenTheEntrypointDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(pyramid.New(watt.App{Name: "gateway"}, handling("chat", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			for err == nil {
				_, err = io.WriteString(conn, strings.Repeat("message", 1000))
			}
		}))...)
		watttest.Start(t, rt)
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://gateway.watt.local/chat", http.NoBody)
		req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
		resp, err := rt.Env().Client.Do(req)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %v, %v", resp, err)
		}
		defer resp.Body.Close()
		synctest.Wait()
		began := time.Now()
		if err := rt.Restart("gateway", 0); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the drain took %v", took)
		}
	})
}

func TestAWebsocketThatCannotBePassedOnIsClosed(t *testing.T) {
	f := startFront(t, watt.App{New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		proxy := pyramid.Proxy(env, "chat")
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			proxy.ServeHTTP(struct{ http.ResponseWriter }{w}, r) // as careless middleware has it, which hides Hijack
		}), nil
	}}, handling("chat", chat))
	resp, _ := f.raw(t, "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if resp.StatusCode != http.StatusBadGateway {
		t.Errorf("got %s", resp.Status)
	}
	soon(t, "the end", func() bool { return f.statusOf(t, "chat").Conns == 0 })
}

func TestAnAppMayDeclineAWebsocket(t *testing.T) {
	f := newFront(t, telling("chat", "no"))
	resp, body := f.raw(t, "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if resp.StatusCode != http.StatusOK || body != "no" {
		t.Errorf("got %s %q", resp.Status, body)
	}
}

// grpcEcho sends each message back, and the status in trailers, as a gRPC server does.
func grpcEcho(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" || r.URL.Path != "/pkg.Service/Method" {
		http.Error(w, "not gRPC", http.StatusUnsupportedMediaType)
		return
	}
	w.Header().Set("Content-Type", "application/grpc+proto")
	w.Header().Set("Trailer", "Grpc-Status")
	http.NewResponseController(w).Flush()
	message := make([]byte, 5+3)
	for {
		if _, err := io.ReadFull(r.Body, message); err != nil {
			break
		}
		_, _ = w.Write(message)
		http.NewResponseController(w).Flush()
	}
	w.Header().Set("Grpc-Status", "0")
	w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
}

func TestGRPCPasses(t *testing.T) {
	f := startFront(t, watt.App{Protocols: both(), New: serving(func(env *watt.Env) http.Handler { return pyramid.Proxy(env, "bank") }).New}, handling("bank", grpcEcho))
	body, out := io.Pipe()
	go io.WriteString(out, "\x00\x00\x00\x00\x03one")
	resp := send(t, client(t, h2c()), f.request(t, "POST", "/pkg.Service/Method", body, "Content-Type", "application/grpc+proto", "Te", "trailers"))
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "application/grpc+proto" {
		t.Fatalf("got %s %q", resp.Status, got)
	}
	message := make([]byte, 8)
	for _, next := range []string{"two", ""} {
		if _, err := io.ReadFull(resp.Body, message); err != nil {
			t.Fatal(err)
		}
		if next != "" {
			io.WriteString(out, "\x00\x00\x00\x00\x03"+next)
		}
	}
	if string(message[5:]) != "two" {
		t.Errorf("got %q", message)
	}
	out.Close()
	if rest := all(t, resp); rest != "" {
		t.Errorf("got %q", rest)
	}
	if h := resp.Trailer; h.Get("Grpc-Status") != "0" || h.Get("Grpc-Message") != "fine" {
		t.Errorf("got %v", h)
	}
}

func TestTrailersPassBothWays(t *testing.T) {
	f := startFront(t, watt.App{Protocols: both()}, handling("sum", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Trailer", "X-Announced")
		n, _ := io.Copy(w, r.Body)
		w.Header().Set("X-Announced", strconv.FormatInt(n, 10))
		w.Header().Set(http.TrailerPrefix+"X-Got", fmt.Sprint(r.Trailer))
	}))
	for name, protocols := range versions() {
		t.Run(name, func(t *testing.T) {
			c := client(t, protocols)
			for _, size := range []int{1, 100_000} {
				req := f.request(t, "POST", "/sum", io.MultiReader(strings.NewReader(strings.Repeat("a", size))))
				req.Trailer = http.Header{"X-Sum": {"42"}, "X-Watt-User": {"1"}, "X-Forwarded-For": {"1.2.3.4"}, "X-Real-Ip": {"1.2.3.4"}}
				resp := send(t, c, req)
				if got := all(t, resp); len(got) != size {
					t.Errorf("got %d bytes, want %d", len(got), size)
				}
				if got := resp.Trailer; got.Get("X-Announced") != strconv.Itoa(size) || got.Get("X-Got") != "map[X-Sum:[42]]" {
					t.Errorf("got %v", got)
				}
			}
		})
	}
}

func TestInformationalAnswersPass(t *testing.T) {
	f := startFront(t, watt.App{Protocols: both()}, handling("hints", func(w http.ResponseWriter, r *http.Request) {
		for _, link := range []string{"</a.css>", "</b.css>"} {
			w.Header().Set("Link", link)
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.Header().Del("Link")
		w.WriteHeader(http.StatusProcessing)
		_, _ = io.Copy(w, r.Body)
	}))
	for name, protocols := range versions() {
		t.Run(name, func(t *testing.T) {
			c := client(t, protocols)
			var got []string
			req := f.request(t, "GET", "/hints", nil)
			req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
					got = append(got, fmt.Sprint(code, h["Link"]))
					return nil
				},
			}))
			resp := send(t, c, req)
			all(t, resp)
			if want := []string{"103 [</a.css>]", "103 [</b.css>]", "102 []"}; !slices.Equal(got, want) || resp.Header["Link"] != nil {
				t.Errorf("got %v and %v, want %v", got, resp.Header["Link"], want)
			}
		})
	}
}

func TestAClientIsAskedForItsBodyOnlyWhenTheAppReads(t *testing.T) {
	f := newFront(t, handling("picky", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		_, _ = io.Copy(w, r.Body)
	}))
	for path, want := range map[string]int{"/picky/no": http.StatusForbidden, "/picky/yes": http.StatusContinue} {
		conn := f.dial(t)
		io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want {
			t.Errorf("%s: got %s, want %d", path, resp.Status, want)
		}
		if want != http.StatusContinue {
			continue
		}
		io.WriteString(conn, "body")
		for resp.StatusCode == http.StatusContinue { // both the app and the gateway's server may ask
			if resp, err = http.ReadResponse(in, nil); err != nil {
				t.Fatal(err)
			}
		}
		if got := all(t, resp); got != "body" {
			t.Errorf("got %s %q", resp.Status, got)
		}
	}
}
