//go:build linux

package watt_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// alone is a ward with one instance, for which requests wait.
func alone() *watt.Runtime {
	rt := ward()
	rt.Update("ward", func(a *watt.App) { a.Instances, a.Queue, a.QueueTimeout, a.Timeout = 1, 1024, time.Minute, time.Minute })
	return rt
}

// deafen stops the only instance of a ward and fills its control socket: more callers have tried to reach it than fit
// there, until their deadline. It returns the instance's process, and how long the last of them took.
func deafen(t *testing.T, rt *watt.Runtime) (pid int, last time.Duration) {
	t.Helper()
	pid = statusOf(t, rt, "ward").PerInstance[0].PID
	stop(t, pid)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	var calls sync.WaitGroup
	for range 600 {
		calls.Go(func() { wantErr(t, get(ctx, rt, "ward.watt.local/well").err, context.DeadlineExceeded) })
	}
	calls.Wait()
	return pid, time.Since(began)
}

func TestCallsOfAStoppedInstanceEndAtTheirDeadline(t *testing.T) {
	t.Parallel()
	rt := alone()
	top := watttest.Start(t, rt)
	pid, took := deafen(t, rt)
	syscall.Kill(pid, syscall.SIGCONT)
	if took > 6*time.Second {
		t.Errorf("they took %v, want little more than 300ms, and not the 10 s after which nobody waits for it to listen", took)
	}
	if status, body := top.Get("http://ward.watt.local/well"); status != http.StatusOK {
		t.Errorf("got %d %s", status, body)
	}
	if now := statusOf(t, rt, "ward").PerInstance[0].PID; now != pid {
		t.Errorf("it was replaced: got process %d, want %d", now, pid)
	}
}

func TestShutdownDoesNotWaitForAStoppedInstance(t *testing.T) {
	t.Parallel()
	rt := alone()
	rt.ShutdownTimeout = 300 * time.Millisecond
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	deafen(t, rt)
	began := time.Now()
	if err := rt.Shutdown(context.Background()); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("got %v, want that it was killed", err)
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("it took %v, want 1.3s", took)
	}
}

func TestWhatTakesTooLongAtAShutdownIsCutByTheChild(t *testing.T) {
	t.Parallel()
	rt := alone()
	rt.ShutdownTimeout = 300 * time.Millisecond
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	call := going(t.Context(), rt, "ward.watt.local/stuck")
	soon(t, "it to be in progress", func() bool { return statusOf(t, rt, "ward").Busy == 1 })
	err := rt.Shutdown(context.Background())
	want := `watt: app "ward", instance 0: 1 request or connection was cut: it took too long: ShutdownTimeout of 300ms has passed`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	within(t, call, "the end of the call")
}

func TestASilentInstanceIsGivenNothing(t *testing.T) {
	t.Parallel()
	rt := alone()
	core, logs := observer.New(zapcore.WarnLevel)
	rt.Logger = zap.New(core)
	top := watttest.Start(t, rt)
	in := func() watt.InstanceStatus { return statusOf(t, rt, "ward").PerInstance[0] }
	pid := in().PID
	stop(t, pid)
	soon(t, "the silence to be noticed", func() bool { return in().State == "silent" })
	call := going(t.Context(), rt, "ward.watt.local/well")
	conns := make([]net.Conn, 100)
	for i := range conns {
		conns[i] = dialTCP(t, strings.TrimPrefix(top.URL("ward"), "http://"))
		fmt.Fprint(conns[i], "GET /well HTTP/1.1\r\nHost: ward\r\n\r\n")
	}
	soon(t, "all of them to wait in the queue", func() bool { return statusOf(t, rt, "ward").PerListener[0].Queued == len(conns) })
	syscall.Kill(pid, syscall.SIGCONT)
	for _, conn := range conns {
		answered(t, conn)
	}
	if r := within(t, call, "the answer to the call"); r.status != http.StatusOK {
		t.Errorf("got %+v", r)
	}
	if now := in(); now.PID != pid {
		t.Errorf("it was replaced: %s", now.LastError)
	}
	for _, message := range []string{"shows no sign of life: it gets nothing more until it does", "shows itself again"} {
		if logs.FilterMessage(message).Len() == 0 {
			t.Errorf("the log does not say %q", message)
		}
	}
}

func TestAWaitForAnInstanceEndsInTime(t *testing.T) {
	t.Parallel()
	rt := alone()
	watttest.Start(t, rt)
	in := func() watt.InstanceStatus { return statusOf(t, rt, "ward").PerInstance[0] }
	stop(t, in().PID)
	soon(t, "the silence to be noticed", func() bool { return in().State == "silent" })
	for name, test := range map[string]struct {
		queue, timeout time.Duration
		want           error
	}{
		"QueueTimeout": {100 * time.Millisecond, time.Minute, watt.ErrUnavailable},
		"Timeout":      {time.Minute, 100 * time.Millisecond, context.DeadlineExceeded},
	} {
		rt.Update("ward", func(a *watt.App) { a.QueueTimeout, a.Timeout = test.queue, test.timeout })
		r := within(t, going(t.Context(), rt, "ward.watt.local/well"), "the end of the call")
		var call *watt.CallError
		if !errors.Is(r.err, test.want) || !errors.As(r.err, &call) || call.Started {
			t.Errorf("%s: got %v, want %v of a call that has not started", name, r.err, test.want)
		}
	}
	syscall.Kill(in().PID, syscall.SIGCONT)
}

func TestWhyACallOfAnotherProcessIsGivenUpDoesNotSayThatItHasNotStarted(t *testing.T) {
	t.Parallel()
	rt := alone()
	watttest.Start(t, rt)
	ctx, cancel := context.WithCancelCause(t.Context())
	called := going(ctx, rt, "ward.watt.local/stuck")
	soon(t, "it to be in progress", func() bool { return statusOf(t, rt, "ward").Busy == 1 })
	cancel(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}) // another connection's
	err := within(t, called, "the end of the call").err
	if call, known := errors.AsType[*watt.CallError](err); !known || !call.Started || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a call that has started", err)
	}
}

func TestAConnectionThatTheParentHasTakenIsGivenToWhomeverComesUpFirst(t *testing.T) {
	t.Parallel()
	rt := alone()
	rt.Update("ward", func(a *watt.App) { a.Instances = 2 })
	top := watttest.Start(t, rt)
	for i := range 2 { // while the second is there, the parent waits for what comes to the first
		if err := rt.Drain("ward", i); err != nil {
			t.Fatal(err)
		}
	}
	conns := make([]net.Conn, 20)
	for i := range conns {
		conns[i] = dialTCP(t, strings.TrimPrefix(top.URL("ward"), "http://"))
		fmt.Fprint(conns[i], "GET /well HTTP/1.1\r\nHost: ward\r\n\r\n")
	}
	soon(t, "the parent to have taken one", func() bool {
		all := statusOf(t, rt, "ward").PerListener
		return all[0].Queued+all[1].Queued == len(conns)-1
	})
	if err := rt.Restart("ward", 0); err != nil {
		t.Fatal(err)
	}
	for _, conn := range conns {
		answered(t, conn)
	}
}

func TestConnectionsThatStillWaitWhenTheirInstanceIsRemovedAreGivenToWhomeverComesUp(t *testing.T) {
	t.Parallel()
	rt := alone()
	rt.Update("ward", func(a *watt.App) { a.Instances = 2 })
	top := watttest.Start(t, rt)
	for i := range 2 {
		if err := rt.Drain("ward", i); err != nil {
			t.Fatal(err)
		}
	}
	conns := make([]net.Conn, 400) // half of them at each
	for i := range conns {
		conns[i] = dialTCP(t, strings.TrimPrefix(top.URL("ward"), "http://"))
		fmt.Fprint(conns[i], "GET /well HTTP/1.1\r\nHost: ward\r\n\r\n")
	}
	soon(t, "them to wait in the queues", func() bool {
		all := statusOf(t, rt, "ward").PerListener
		return all[0].Queued+all[1].Queued >= len(conns)-2 && all[1].Queued > len(conns)/4
	})
	removed := make(chan error, 1)
	go func() { removed <- rt.Update("ward", func(a *watt.App) { a.Instances = 1 }) }()
	soon(t, "the removal to begin", func() bool { return len(statusOf(t, rt, "ward").PerInstance) == 1 })
	if err := rt.Restart("ward", 0); err != nil {
		t.Fatal(err)
	}
	for _, conn := range conns {
		answered(t, conn)
	}
	if err := within(t, removed, "the end of the removal"); err != nil {
		t.Error(err)
	}
}

func TestInstancesOfASharedListenerComeAndGoTogether(t *testing.T) {
	t.Parallel()
	rt := alone()
	rt.Update("ward", func(a *watt.App) { a.Instances = 2 })
	rt.Listen = new(net.ListenConfig).Listen
	top := watttest.Start(t, rt)
	for _, step := range []func(string, int) error{rt.Drain, rt.Restart} {
		done := make(chan error, 2)
		for i := range 2 {
			go func() { done <- step("ward", i) }()
		}
		for range 2 {
			if err := within(t, done, "both to have done it"); err != nil {
				t.Error(err)
			}
		}
	}
	updated := make(chan error, 1)
	go func() { updated <- rt.Update("ward", func(a *watt.App) { a.Instances = 1 }) }()
	if err := within(t, updated, "the update"); err != nil {
		t.Error(err)
	}
	conn := dialTCP(t, strings.TrimPrefix(top.URL("ward"), "http://"))
	fmt.Fprint(conn, "GET /well HTTP/1.1\r\nHost: ward\r\n\r\n")
	if got := answered(t, conn); got[0] != "0" {
		t.Errorf("got %q, want the one that is left", got)
	}
}
