package watt_test

import (
	"context"
	"net/http"
	"reflect"
	"syscall"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

func TestConnectionsThatWaitToBeAcceptedAreSeen(t *testing.T) {
	bound, finish := make(chan struct{}), make(chan struct{})
	rt := watt.New(watt.App{Name: "a", Listen: "127.0.0.1:0", New: func(context.Context, *watt.Env) (http.Handler, error) {
		close(bound)
		<-finish
		return http.HandlerFunc(silent), nil
	}})
	started := make(chan error, 1)
	go func() { started <- rt.Start(t.Context()) }()
	within(t, bound, "New")
	for range 2 {
		dialTCP(t, statusOf(t, rt, "a").Addr)
	}
	soon(t, "two connections in the queue", func() bool { return statusOf(t, rt, "a").PerListener[0].Queued == 2 })
	close(finish)
	if err := within(t, started, "the start"); err != nil {
		t.Error(err)
	}
	soon(t, "both to be accepted", func() bool {
		l := statusOf(t, rt, "a").PerListener[0]
		return l.Queued == 0 && l.Accepted == 2
	})
	if err := rt.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestWhatAProcessHasCountedOutlivesIt(t *testing.T) {
	rt := farm()
	top := watttest.Start(t, rt)
	if err := rt.Update("mill", func(a *watt.App) { a.Instances = 1 }); err != nil {
		t.Fatal(err)
	}
	mill := func() watt.InstanceStatus { return statusOf(t, rt, "mill").PerInstance[0] }
	ask := func(n int) {
		for range n {
			top.Get("http://front.watt.local/grain")
		}
	}
	want := func(n uint64) {
		t.Helper()
		soon(t, "all to be counted", func() bool {
			s, calls := mill(), callerOf(t, rt, "store", "mill")
			return s.Requests["GET"]["2xx"] == n && s.Duration.Count == n && calls.Duration.Count == n && calls.ReceivedBytes == n*uint64(len("/grain for mill")) &&
				callerOf(t, rt, "mill", "front").Duration.Count == n
		})
	}
	ask(5)
	want(5)
	if err := rt.Restart("mill", 0); err != nil {
		t.Fatal(err)
	}
	want(5)
	ask(2)
	want(7)
	syscall.Kill(mill().PID, syscall.SIGKILL)
	soon(t, "the third generation", func() bool { return mill().Generation == 3 && mill().State == "ready" })
	ask(1)
	want(8)
	if got, want := mill().Restarts, map[string]uint64{"asked": 1, "killed": 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("got restarts %v, want %v", got, want)
	}
	soon(t, "processor time", func() bool {
		ask(1)
		return mill().CPUTime > 0
	})
	if got := mill().Memory; got < 1<<20 || got > 1<<32 {
		t.Errorf("got %d bytes of memory", got)
	}
}

func TestEachProcessHasAListenerThatGetsConnections(t *testing.T) {
	rt := mall()
	top := watttest.Start(t, rt)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for range 30 {
		resp, err := client.Get(top.URL("shop") + "/who")
		read(t, resp, err)
	}
	soon(t, "30 connections over three listeners", func() bool {
		var sum uint64
		for _, l := range statusOf(t, rt, "shop").PerListener {
			if !l.Chosen || l.Queued != 0 {
				return false
			}
			sum += l.Accepted
		}
		return sum == 30 && len(statusOf(t, rt, "shop").PerListener) == 3
	})
}
