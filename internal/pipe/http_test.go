package pipe_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/pipe"
)

// serve runs a server on a new listener until the test ends, and returns a transport that counts its dials.
func serve(t *testing.T, handler http.Handler) (transport *http.Transport, dials *atomic.Int32) {
	t.Helper()
	l := newListener(t)
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	dials = new(atomic.Int32)
	transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		dials.Add(1)
		return l.Dial(ctx, "caller:1", nil)
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := server.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		<-done
	})
	return transport, dials
}

func TestHTTPKeepsAPipeAliveFromRequestToRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, dials := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.RemoteAddr)
		}))
		client := &http.Client{Transport: transport}
		for range 100 {
			response, err := client.Get("http://callee/")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(response.Body); string(got) != "caller:1" || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
			response.Body.Close()
		}
		if got := dials.Load(); got != 1 {
			t.Errorf("got %d dials, want 1", got)
		}
	})
}

func TestHTTPSendsLargeBodiesBothWaysAtOnce(t *testing.T) {
	transport, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	}))
	client := &http.Client{Transport: transport}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			body := bytes.Repeat([]byte{byte(i), 1, 2, 3}, 1<<18)
			response, err := client.Post("http://callee/", "", bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			if got, err := io.ReadAll(response.Body); !bytes.Equal(got, body) || err != nil {
				t.Errorf("got %d bytes, %v, want the %d that were sent", len(got), err, len(body))
			}
		})
	}
	wg.Wait()
}

func TestHTTPRequestsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, _ := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done() // the server notices that the client hung up
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://callee/", nil)
		start := time.Now()
		_, err := transport.RoundTrip(request)
		if got := time.Since(start); err == nil || got != 30*time.Second {
			t.Errorf("got %v after %v, want a timeout after 30s", err, got)
		}
	})
}

// The reply comes after the client has closed its half: a proxy without CloseWrite loses it.
func TestAnUpgradedPipeClosesItsHalvesSeparatelyThroughAProxy(t *testing.T) {
	backend, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
		got, err := io.ReadAll(buffered)
		fmt.Fprintf(conn, "got %s, %v", got, err)
	}))
	front := newListener(t)
	proxy := &http.Server{Handler: &httputil.ReverseProxy{
		Transport: backend,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "backend"}) },
	}}
	done := make(chan struct{})
	go func() { defer close(done); proxy.Serve(front) }()
	defer func() { proxy.Close(); <-done }()

	conn := dial(t, front)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
	reader := bufio.NewReader(conn)
	if response, err := http.ReadResponse(reader, nil); err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", response, err)
	}
	io.WriteString(conn, "hello")
	conn.CloseWrite()
	if got, err := io.ReadAll(reader); string(got) != "got hello, <nil>" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAServerThatTimesOutHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipe.Listen(new(pipe.Buffers), "callee:80")
		server := &http.Server{ReadHeaderTimeout: 10 * time.Second}
		done := make(chan struct{})
		go func() { defer close(done); server.Serve(l) }()
		defer func() { server.Close(); <-done }()
		start := time.Now()
		conn := dial(t, l)
		io.Copy(conn, strings.NewReader("GET / HTTP/1.1\r\nHost:"))
		_, err := io.ReadAll(conn)
		if got := time.Since(start); err != nil || got != 10*time.Second {
			t.Errorf("got %v after %v, want the end after 10s", err, got)
		}
	})
}
