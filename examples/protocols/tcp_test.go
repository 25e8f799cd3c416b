package protocols_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/org/watt"
)

// serveEcho is an app that speaks a protocol of its own: it sends back what it gets, until the client
// ends its side. When ctx ends it takes nothing more, and finishes what it has.
func serveEcho(ctx context.Context, _ *watt.Env, ln net.Listener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		conns.Go(func() {
			defer func() { _ = conn.Close() }()
			defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })()
			_, _ = io.Copy(conn, conn)
		})
	}
}

// dialers are the ways to reach the app.
func dialers(rt *watt.Runtime) map[string]func(context.Context) (net.Conn, error) {
	return map[string]func(context.Context) (net.Conn, error){
		"mesh": func(ctx context.Context) (net.Conn, error) {
			return rt.Env().Dial(ctx, "echo")
		},
		"public": func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", rt.Status()[0].Addr)
		},
	}
}

func echoApp() watt.App { return watt.App{Name: "echo", Serve: serveEcho, Listen: "127.0.0.1:0"} }

// dial opens a connection for the time of the test.
func dial(t *testing.T, how func(context.Context) (net.Conn, error)) net.Conn {
	t.Helper()
	conn, err := how(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// exchange sends text and wants it back.
func exchange(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

func TestTCPEcho(t *testing.T) {
	rt, _ := start(t, echoApp())
	for name, how := range dialers(rt) {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, how)
			exchange(t, conn, "hello")
			exchange(t, conn, "again")
		})
	}
}

// TestTCPHalfClose ends the client's side first and still gets everything that was on its way.
func TestTCPHalfClose(t *testing.T) {
	rt, _ := start(t, echoApp())
	for name, how := range dialers(rt) {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, how)
			want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			sent := make(chan error, 1)
			go func() {
				_, err := conn.Write(want)
				if err == nil {
					err = conn.(interface{ CloseWrite() error }).CloseWrite()
				}
				sent <- err
			}()
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes and %v, want %d bytes and the end", len(got), err, len(want))
			}
			if err := receive(t, sent); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTCPMaxConns: what is too much is closed at once.
func TestTCPMaxConns(t *testing.T) {
	app := echoApp()
	app.MaxConns = 1
	rt, _ := start(t, app)
	ways := dialers(rt)
	exchange(t, dial(t, ways["mesh"]), "hello")
	if conn, err := ways["mesh"](deadline(t)); err == nil {
		_ = conn.Close()
		t.Error("mesh: a second connection was accepted")
	}
	if _, err := dial(t, ways["public"]).Read(make([]byte, 1)); err == nil {
		t.Error("public: a second connection was accepted")
	}
}

// TestTCPDrain ends connections that idle, and cuts none.
func TestTCPDrain(t *testing.T) {
	rt, _ := start(t, echoApp())
	var conns []net.Conn
	for _, how := range dialers(rt) {
		conn := dial(t, how)
		exchange(t, conn, "hello")
		conns = append(conns, conn)
	}
	shutdown(t, rt)
	for _, conn := range conns {
		if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("got %d bytes and %v, want the end", n, err)
		}
	}
}
