package watt_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// TestWhoComesDuringAShutdownIsAnsweredOrRefused has clients that come again at once until they are refused. Whoever has got
// a connection before that, be it one that waits to be accepted, is answered.
func TestWhoComesDuringAShutdownIsAnsweredOrRefused(t *testing.T) {
	for name, made := range map[string]func() *watt.Runtime{
		"in process": func() *watt.Runtime {
			return watt.New(watt.App{Name: "shift", Listen: "127.0.0.1:0", Handler: http.NotFoundHandler()})
		},
		"processes": shift,
	} {
		t.Run(name, func(t *testing.T) { leave(t, made(), 64, new(http.Transport)) })
		t.Run(name+", with few who keep no connection", func(t *testing.T) { // so that at times there is none
			leave(t, made(), 2, &http.Transport{DisableKeepAlives: true})
		})
	}
}

// leave shuts the runtime down while clients come.
func leave(t *testing.T, rt *watt.Runtime, n int, transport *http.Transport) {
	t.Helper()
	url := watttest.Start(t, rt).URL("shift")
	var answers atomic.Int64
	var clients sync.WaitGroup
	for range n {
		clients.Go(func() {
			client := &http.Client{Transport: transport.Clone()}
			defer client.CloseIdleConnections()
			for {
				resp, err := client.Get(url)
				if errors.Is(err, syscall.ECONNREFUSED) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusNotFound {
					t.Errorf("got %s", resp.Status)
				}
				answers.Add(1)
			}
		})
	}
	more(t, "all clients to have come", &answers, 500)
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	clients.Wait()
}

// TestASocketThatOthersHaveTooGoesOnAfterAShutdown has a runtime listen with what it was given, as by a service manager or
// the program before it, of which the socket is too.
func TestASocketThatOthersHaveTooGoesOnAfterAShutdown(t *testing.T) {
	for name, rt := range map[string]*watt.Runtime{
		"in process": watt.New(watt.App{Name: "shift", Listen: "127.0.0.1:0", Handler: http.NotFoundHandler()}),
		"processes":  shift(),
	} {
		t.Run(name, func(t *testing.T) {
			var config net.ListenConfig
			config.SetMultipathTCP(false)
			theirs, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			rt.Listen = func(context.Context, string, string) (net.Listener, error) {
				file, err := theirs.(*net.TCPListener).File()
				if err != nil {
					return nil, err
				}
				defer file.Close()
				return net.FileListener(file)
			}
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			resp, err := client.Get(watttest.Start(t, rt).URL("shift"))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if err := rt.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			conn, err := net.DialTimeout("tcp", theirs.Addr().String(), 3*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ours, err := theirs.Accept()
			if err != nil {
				t.Fatal(err)
			}
			ours.Close()
		})
	}
}

// TestConnectionsThatServeHasNotAcceptedAreServedWhenItDrains has a Serve that accepts again only once the port is closed.
func TestConnectionsThatServeHasNotAcceptedAreServedWhenItDrains(t *testing.T) {
	closed := make(chan struct{})
	rt := watt.New(watt.App{Name: "desk", Listen: "127.0.0.1:0", Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
		context.AfterFunc(ctx, func() { ln.Close() })
		for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
			<-closed
			io.WriteString(conn, "served")
			conn.Close()
		}
		return nil
	}})
	url := watttest.Start(t, rt).URL("desk")
	addr := strings.TrimPrefix(url, "http://")
	var guests []net.Conn
	for range 5 {
		guest, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer guest.Close()
		guests = append(guests, guest)
	}
	soon(t, "all guests to be there", func() bool { return statusOf(t, rt, "desk").PublicConns == len(guests) })
	stopped := make(chan error, 1)
	go func() { stopped <- rt.Shutdown(context.Background()) }()
	soon(t, "a refusal", func() bool {
		conn, err := net.DialTimeout("tcp", addr, 10*time.Millisecond)
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	close(closed)
	for _, guest := range guests {
		if said, err := io.ReadAll(guest); string(said) != "served" {
			t.Errorf("got %q, %v", said, err)
		}
	}
	if err := within(t, stopped, "the end"); err != nil {
		t.Error(err)
	}
}
