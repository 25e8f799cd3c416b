//go:build linux

package watt_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// vacant is a public instance with a handler, and one with Serve, for which nobody waits long.
func vacant() *watt.Runtime {
	return watt.New(
		watt.App{
			Name: "hotel", Listen: "127.0.0.1:0", Isolation: watt.OwnProcess, QueueTimeout: 100 * time.Millisecond, MaxRestarts: 1,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "welcome")
				if r.URL.Path == "/stay" {
					http.NewResponseController(w).Flush()
					<-r.Context().Done()
				}
			}),
		},
		watt.App{
			Name: "hostel", Listen: "127.0.0.1:0", Isolation: watt.OwnProcess, QueueTimeout: 100 * time.Millisecond,
			Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
				defer context.AfterFunc(ctx, func() { ln.Close() })()
				for {
					if _, err := ln.Accept(); err != nil {
						return nil
					}
				}
			},
		},
	)
}

func TestPublicClientsAreRefusedWhenNoInstanceIsThere(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	const long = time.Second
	rt := vacant()
	rt.Update("hotel", func(a *watt.App) { a.QueueTimeout = long })
	rt.Logger = zap.New(core)
	top := watttest.Start(t, rt)
	if err := errors.Join(rt.Drain("hotel", 0), rt.Drain("hostel", 0)); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		began := time.Now()
		resp, err := http.Get(top.URL("hotel") + "/")
		body := read(t, resp, err)
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !resp.Close ||
			!strings.Contains(body, `"app":"hotel"`) {
			t.Errorf("got %s, %v, %s", resp.Status, resp.Header, body)
		}
		if took := time.Since(began); i > 0 && took >= long {
			t.Errorf("the wait was over, and it took %v", took)
		}
		conn := dialTCP(t, strings.TrimPrefix(top.URL("hostel"), "http://"))
		if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("got %d bytes, %v, want the end", n, err)
		}
	}
	if got := statusOf(t, rt, "hotel").Refused; got != 3 {
		t.Errorf("got %d refused, want 3", got)
	}
	if err := rt.Restart("hotel", 0); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(top.URL("hotel") + "/")
	if got := read(t, resp, err); got != "welcome" {
		t.Errorf("got %s", got)
	}
	const wait = 200 * time.Millisecond // more than a drain takes
	rt.Update("hotel", func(a *watt.App) { a.QueueTimeout = wait })
	began := time.Now()
	if err := rt.Drain("hotel", 0); err != nil {
		t.Fatal(err)
	}
	resp, err = http.Get(top.URL("hotel") + "/")
	if read(t, resp, err); resp.StatusCode != http.StatusServiceUnavailable || time.Since(began) < wait {
		t.Errorf("got %s after %v, want that whoever comes now waits anew", resp.Status, time.Since(began))
	}
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	refused := uint64(0)
	for _, line := range logs.FilterMessage("shed requests").FilterField(zap.String("app", "hotel")).All() {
		refused += line.ContextMap()["requests"].(uint64)
	}
	if refused != 4 {
		t.Errorf("the log tells of %d, want 4", refused)
	}
}

func TestPublicClientsWaitFromWhenTheLastInstanceHasGone(t *testing.T) {
	const wait = 200 * time.Millisecond // more than a drain takes
	rt := vacant()
	rt.Update("hotel", func(a *watt.App) { a.Instances, a.QueueTimeout = 2, wait })
	top := watttest.Start(t, rt)
	var began time.Time
	for i := range 2 {
		began = time.Now()
		if err := rt.Drain("hotel", i); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := http.Get(top.URL("hotel") + "/")
	if read(t, resp, err); resp.StatusCode != http.StatusServiceUnavailable || time.Since(began) < wait {
		t.Errorf("got %s after %v", resp.Status, time.Since(began))
	}
}

func TestAClientThatIsRefusedMayKeepItsBody(t *testing.T) {
	rt := vacant()
	top := watttest.Start(t, rt)
	if err := rt.Drain("hotel", 0); err != nil {
		t.Fatal(err)
	}
	answer := raw(t, strings.TrimPrefix(top.URL("hotel"), "http://"), "POST / HTTP/1.1\r\nHost: hotel\r\nContent-Length: 10\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 503 ") {
		t.Errorf("got %s", answer)
	}
}

func TestAClientThatSaysNothingDoesNotOutliveTheRuntimeThatWouldRefuseIt(t *testing.T) {
	rt := vacant()
	top := watttest.Start(t, rt)
	if err := rt.Drain("hotel", 0); err != nil {
		t.Fatal(err)
	}
	conn := dialTCP(t, strings.TrimPrefix(top.URL("hotel"), "http://"))
	soon(t, "it to be counted", func() bool { return statusOf(t, rt, "hotel").Refused == 1 })
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	conn.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %d bytes, %v, want the end", n, err)
	}
}

func TestThePortIsClosedWhileTheLastInstanceDrains(t *testing.T) {
	rt := vacant()
	top := watttest.Start(t, rt)
	addr := strings.TrimPrefix(top.URL("hotel"), "http://")
	guest := dialTCP(t, addr)
	io.WriteString(guest, "GET /stay HTTP/1.1\r\nHost: hotel\r\n\r\n")
	guest.Read(make([]byte, 1))
	stopped := make(chan error, 1)
	go func() { stopped <- rt.Shutdown(context.Background()) }()
	soon(t, "a refusal", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return errors.Is(err, syscall.ECONNREFUSED)
		}
		conn.Close()
		return false
	})
	select {
	case err := <-stopped:
		t.Errorf("the runtime has ended with a request in progress: %v", err)
	default:
	}
	guest.Close()
	if err := within(t, stopped, "the end"); err != nil {
		t.Error(err)
	}
}

func TestPublicClientsOfAnAppThatWasGivenUpAreRefusedAtOnce(t *testing.T) {
	rt := vacant()
	top := watttest.Start(t, rt)
	rt.Update("hotel", func(a *watt.App) { a.QueueTimeout = time.Minute })
	for range 2 {
		pid := statusOf(t, rt, "hotel").PerInstance[0].PID
		if pid <= 1 { // which would be this process and all that it belongs to
			t.Fatalf("got process %d", pid)
		}
		syscall.Kill(pid, syscall.SIGKILL)
		soon(t, "its end", func() bool {
			in := statusOf(t, rt, "hotel").PerInstance[0]
			return in.PID != pid && (in.State == "ready" || in.State == "failed")
		})
	}
	soon(t, "it to be given up", func() bool { return statusOf(t, rt, "hotel").State == "failed" })
	client := http.Client{Timeout: patience}
	resp, err := client.Get(top.URL("hotel") + "/")
	if read(t, resp, err); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %s", resp.Status)
	}
}

func TestPublicClientsThatWaitForAnInstanceAreRefusedByAShutdown(t *testing.T) {
	rt := vacant()
	rt.Update("hotel", func(a *watt.App) { a.QueueTimeout = time.Minute })
	top := watttest.Start(t, rt)
	if err := rt.Drain("hotel", 0); err != nil {
		t.Fatal(err)
	}
	var clients []net.Conn
	for range 4 {
		conn := dialTCP(t, strings.TrimPrefix(top.URL("hotel"), "http://"))
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: hotel\r\n\r\n")
		clients = append(clients, conn)
	}
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for _, conn := range clients {
		conn.SetReadDeadline(time.Now().Add(time.Second))
		if answer, err := io.ReadAll(conn); !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") {
			t.Errorf("got %q, %v", answer, err)
		}
	}
}
