//go:build linux

package watt_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// consumer takes jobs from elsewhere, in a process of its own: nobody calls it.
func consumer() *watt.Runtime {
	return watt.New(watt.App{Name: "consumer", Isolation: watt.OwnProcess, Serve: func(ctx context.Context, _ *watt.Env, _ net.Listener) error {
		<-ctx.Done()
		return nil
	}})
}

func TestAServeAppInAProcessOfItsOwnThatNobodyCallsIsReadyWhenItRuns(t *testing.T) {
	rt := consumer()
	watttest.Start(t, rt)
	if err := rt.Ready(); err != nil {
		t.Error(err)
	}
}

// quitter's Serve ends with its first connection. Its Cleanup waits until the gate is open.
func quitter() *watt.Runtime {
	return watt.New(watt.App{
		Name: "quitter", Isolation: watt.OwnProcess, MaxRestarts: 1, Critical: true, QueueTimeout: time.Minute, Calls: []string{"gate"},
		Serve: func(ctx context.Context, env *watt.Env, ln net.Listener) error {
			env.Cleanup(func() error {
				text(env.Get(context.Background(), "http://gate.watt.local/wait"))
				return nil
			})
			defer context.AfterFunc(ctx, func() { ln.Close() })()
			if conn, err := ln.Accept(); err == nil {
				conn.Close()
			}
			if ctx.Err() != nil {
				return nil
			}
			return errors.New("on purpose")
		},
	}, watt.App{Name: "gate", New: newGate})
}

func TestAServeThatEndsEndsItsProcessWhichTheParentReplacesOrGivesUp(t *testing.T) {
	rt := quitter()
	top := watttest.Start(t, rt)
	top.Get("http://gate.watt.local/open")
	ran := make(chan error, 1)
	go func() { ran <- rt.Run(t.Context()) }()
	connect := func() {
		conn, err := rt.Env().Dial(t.Context(), "quitter")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, conn)
		conn.Close()
	}
	before := statusOf(t, rt, "quitter").PerInstance[0].PID
	connect()
	soon(t, "another process", func() bool {
		in := statusOf(t, rt, "quitter").PerInstance[0]
		return in.State == "ready" && in.PID != before
	})
	if in := statusOf(t, rt, "quitter").PerInstance[0]; in.Generation != 2 || in.Restarts["ended"] != 1 || in.LastError != "on purpose" {
		t.Errorf("got %+v", in)
	}
	connect()
	if err := within(t, ran, "the end of Run"); err == nil || !strings.HasSuffix(err.Error(), "instance 0 has failed: on purpose") {
		t.Errorf("got %v, want that of a critical app", err)
	}
}

func TestWhoeverConnectsWhileAProcessWhoseServeHasEndedCleansUpGetsTheNext(t *testing.T) {
	rt := quitter()
	top := watttest.Start(t, rt)
	conn, err := rt.Env().Dial(t.Context(), "quitter")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	soon(t, "the end to be known", func() bool { return statusOf(t, rt, "quitter").State == "draining" })
	connected := make(chan uint64, 1)
	go func() {
		conn, err := rt.Env().Dial(t.Context(), "quitter")
		if err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
		connected <- statusOf(t, rt, "quitter").PerInstance[0].Generation
	}()
	top.Get("http://gate.watt.local/open")
	if got := within(t, connected, "a connection"); got != 2 {
		t.Errorf("got one in generation %d", got)
	}
}

// leaver's Serve accepts nothing more after its first connection, and goes on with that.
func leaver() *watt.Runtime {
	return watt.New(watt.App{
		Name: "leaver", Isolation: watt.OwnProcess, QueueTimeout: time.Minute, Listen: "127.0.0.1:0",
		Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
			conn, err := ln.Accept()
			if err != nil {
				return err
			}
			defer conn.Close()
			ln.Close()
			io.WriteString(conn, "!")
			<-ctx.Done()
			return nil
		},
	})
}

// In its process there will be no other that could.
func TestAConnectionThatTheServeOfAProcessDoesNotAcceptAnyMoreIsClosed(t *testing.T) {
	rt := leaver()
	watttest.Start(t, rt)
	first, err := rt.Env().Dial(t.Context(), "leaver")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := first.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	second := dialTCP(t, statusOf(t, rt, "leaver").Addr)
	if _, err := io.Copy(io.Discard, second); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// barred has a public side with TLS that net/http does not serve.
func barred() *watt.Runtime {
	return watt.New(watt.App{
		Name: "barred", Isolation: watt.OwnProcess, MaxRestarts: 1, Handler: http.NotFoundHandler(), Listen: "127.0.0.1:0",
		TLS: &tls.Config{
			CipherSuites:   []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}, // HTTP/2 needs another, too
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") },
		},
	})
}

func TestADoorThatEndsInAProcessOfItsOwnEndsThat(t *testing.T) {
	rt := barred()
	watttest.Start(t, rt)
	soon(t, "the instance to be given up", func() bool {
		err := rt.Ready()
		return err != nil && strings.Contains(err.Error(), "instance 0 has failed: its door has ended: http2: ")
	})
}
