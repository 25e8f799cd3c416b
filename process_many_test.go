//go:build linux

package watt_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// shift has four instances with nothing to do, in processes of their own.
func shift() *watt.Runtime {
	return watt.New(watt.App{Name: "shift", Listen: "127.0.0.1:0", Instances: 4, Isolation: watt.OwnProcess, Handler: http.NotFoundHandler()})
}

func TestAThousandRestartsLeaveNothingBehind(t *testing.T) {
	restarts := 1000
	if racing { // which takes long to start, and tells nothing of what is left
		restarts = 40
	}
	before := descriptors(t)
	t.Run("restarts", func(t *testing.T) {
		rt := shift()
		watttest.Start(t, rt)
		open := descriptors(t)
		var mu sync.Mutex
		var all []int
		var work sync.WaitGroup
		for i := range 4 {
			work.Go(func() {
				for range restarts / 4 {
					pid := statusOf(t, rt, "shift").PerInstance[i].PID
					if err := rt.Restart("shift", i); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					all = append(all, pid)
					mu.Unlock()
				}
			})
		}
		work.Wait()
		soon(t, "the descriptors of the restarts to be closed", func() bool { return descriptors(t) <= open })
		live := statusOf(t, rt, "shift").PerInstance
		for _, p := range processes(t) {
			ours := slices.ContainsFunc(live, func(in watt.InstanceStatus) bool { return in.PID == p.pid })
			if p.parent == os.Getpid() && slices.Contains(all, p.pid) && !ours {
				t.Errorf("process %d is left, in state %s", p.pid, p.state)
			}
		}
	})
	soon(t, "all descriptors to be closed", func() bool { return descriptors(t) <= before })
	for _, p := range processes(t) {
		if p.parent == os.Getpid() {
			t.Errorf("process %d is left, in state %s", p.pid, p.state)
		}
	}
}

func TestInstancesComeAndGoUnderLoad(t *testing.T) {
	t.Parallel()
	rt := ward()
	top := watttest.Start(t, rt)
	f := startFlow(t, rt, top)
	for _, n := range []int{5, 1, 4, 2} {
		f.more(t, 50)
		if err := rt.Update("ward", func(a *watt.App) { a.Instances = n }); err != nil {
			t.Error(err)
		}
		if got := len(statusOf(t, rt, "ward").PerInstance); got != n {
			t.Errorf("got %d instances, want %d", got, n)
		}
		if got := len(statusOf(t, rt, "ward").PerListener); got != n {
			t.Errorf("got %d listeners, want %d", got, n)
		}
	}
	f.end()
	last := startFlow(t, rt, top)
	last.more(t, 200)
	last.end()
	for _, failed := range append(f.failures(), last.failures()...) {
		t.Error(failed)
	}
	if seen := last.instances(); len(seen) != 2 {
		t.Errorf("got answers from %v, want two instances", seen)
	}
}

func TestNewLimitsReachInstancesThatRun(t *testing.T) {
	t.Parallel()
	rt := alone()
	watttest.Start(t, rt)
	if err := rt.Update("ward", func(a *watt.App) { a.Workers, a.Queue = 1, -1 }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	held := going(ctx, rt, "ward.watt.local/stuck")
	soon(t, "it to be in progress", func() bool { return statusOf(t, rt, "ward").Busy == 1 })
	wantErr(t, get(t.Context(), rt, "ward.watt.local/well").err, watt.ErrOverloaded)
	cancel()
	within(t, held, "the end of the call")
}

func TestNewLimitsReachRawConnectionsToOtherProcesses(t *testing.T) {
	t.Parallel()
	rt := far()
	watttest.Start(t, rt)
	dial := func() error {
		conn, err := rt.Env().Dial(t.Context(), "echo")
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return err
	}
	for _, most := range []int{1, 2, -1} {
		if err := rt.Update("echo", func(a *watt.App) { a.MaxConns = most }); err != nil {
			t.Fatal(err)
		}
		if most > 0 {
			if err := dial(); err != nil {
				t.Errorf("%d: %v", most, err)
			}
		}
		wantErr(t, dial(), watt.ErrOverloaded)
	}
}

// pliant has an app in a process of its own, with limits that nothing reaches.
func pliant() *watt.Runtime {
	return watt.New(watt.App{
		Name: "pliant", Isolation: watt.OwnProcess, Workers: 1, Queue: 1, QueueTimeout: time.Hour, Timeout: time.Hour,
		DrainTimeout: time.Millisecond, New: newPliant,
	})
}

func newPliant(context.Context, *watt.Env) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("/held", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/soon", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(200 * time.Millisecond):
			fmt.Fprint(w, "done")
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/by", func(w http.ResponseWriter, r *http.Request) {
		by, _ := watt.AnswerBy(r.Context())
		fmt.Fprint(w, time.Until(by) < 2*time.Minute)
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 1\n\n")
	})
	return mux, nil
}

func TestEveryNewLimitReachesAnInstanceThatRuns(t *testing.T) {
	t.Parallel()
	rt := pliant()
	watttest.Start(t, rt)
	if err := rt.Update("pliant", func(a *watt.App) {
		a.QueueTimeout, a.Timeout, a.DrainTimeout, a.MaxConns = time.Millisecond, time.Minute, time.Minute, -1
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if got := get(ctx, rt, "pliant.watt.local/by"); got.body != "true" {
		t.Errorf("Timeout: got %v", got)
	}
	if got := get(ctx, rt, "pliant.watt.local/events"); got.status != http.StatusServiceUnavailable {
		t.Errorf("MaxConns: got %v", got)
	}
	busy := func() bool { return statusOf(t, rt, "pliant").Busy == 1 }
	held := going(ctx, rt, "pliant.watt.local/held")
	soon(t, "it to be in progress", busy)
	wantErr(t, within(t, going(t.Context(), rt, "pliant.watt.local/by"), "the end of its wait").err, watt.ErrOverloaded)
	cancel()
	within(t, held, "the end of the call")
	soon(t, "the worker", func() bool { return !busy() })

	slow := going(t.Context(), rt, "pliant.watt.local/soon")
	soon(t, "it to be in progress", busy)
	if err := rt.Restart("pliant", 0); err != nil {
		t.Error(err)
	}
	if got := within(t, slow, "the answer"); got.body != "done" {
		t.Errorf("DrainTimeout: got %v", got)
	}
}

func TestANewReadyPathAndStartTimeoutHoldForTheNextProcess(t *testing.T) {
	t.Parallel()
	rt := pliant()
	watttest.Start(t, rt)
	if err := rt.Update("pliant", func(a *watt.App) { a.ReadyPath, a.StartTimeout = "/missing", time.Second }); err != nil {
		t.Fatal(err)
	}
	if err := rt.Restart("pliant", 0); err == nil || !strings.Contains(err.Error(), "/missing") || !strings.Contains(err.Error(), "404") {
		t.Errorf("got %v", err)
	}
	if err := rt.Update("pliant", func(a *watt.App) { a.ReadyPath = "/by" }); err != nil {
		t.Fatal(err)
	}
	soon(t, "it to be ready", func() bool { return rt.Ready() == nil })
}

// meddler asks from a process of its own whether all is ready, or does what only the first process can.
func meddler() *watt.Runtime {
	var rt *watt.Runtime
	rt = watt.New(watt.App{Name: "meddler", Isolation: watt.OwnProcess, New: func(context.Context, *watt.Env) (http.Handler, error) {
		began := rt.Ready()
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/start":
				fmt.Fprint(w, rt.Start(r.Context()))
			case "/began":
				fmt.Fprint(w, began)
			case "/ready":
				fmt.Fprint(w, rt.Ready())
			case "/change":
				fmt.Fprint(w, rt.Update("meddler", func(a *watt.App) { a.Workers++ }))
			case "/restart":
				fmt.Fprint(w, rt.Restart("meddler", 0))
			case "/drain":
				fmt.Fprint(w, rt.Drain("meddler", 0))
			case "/end":
				fmt.Fprint(w, rt.Shutdown(r.Context()))
			}
		}), nil
	}}, watt.App{Name: "away", Handler: http.NotFoundHandler()})
	return rt
}

func TestAnInstanceCanNeitherChangeNorEndItsApp(t *testing.T) {
	top := watttest.Start(t, meddler())
	for path, want := range map[string]string{
		"/change":  "watt: Update: this is the process of an instance: only the first process can do that",
		"/restart": "watt: Restart: this is the process of an instance: only the first process can do that",
		"/drain":   "watt: Drain: this is the process of an instance: only the first process can do that",
		"/end":     "watt: Shutdown: this is the process of an instance: only the first process can do that",
		"/start":   "watt: the runtime runs already: it starts only once",
		"/began":   `watt: app "meddler" is starting`,
		"/ready":   "<nil>",
	} {
		if _, body := top.Get("http://meddler.watt.local" + path); body != want {
			t.Errorf("%s: got %s, want %s", path, body, want)
		}
	}
}

// bistro has a waiter in a process of its own, who waits for a cook in this one.
func bistro() *watt.Runtime {
	return watt.New(
		watt.App{Name: "waiter", Isolation: watt.OwnProcess, Calls: []string{"cook"}, New: passing("cook")},
		watt.App{Name: "cook", Timeout: 50 * time.Millisecond, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(200 * time.Millisecond):
			case <-r.Context().Done():
			}
		})},
	)
}

func TestNewLimitsReachCallersInOtherProcesses(t *testing.T) {
	t.Parallel()
	rt := bistro()
	top := watttest.Start(t, rt)
	served := func() int {
		status, _ := top.Get("http://waiter.watt.local/")
		return status
	}
	if got := served(); got != http.StatusGatewayTimeout {
		t.Errorf("got %d, want 504", got)
	}
	if err := rt.Update("cook", func(a *watt.App) { a.Timeout = time.Minute }); err != nil {
		t.Fatal(err)
	}
	soon(t, "the instance to know", func() bool { return served() == http.StatusOK })
	if err := rt.Restart("waiter", 0); err != nil {
		t.Fatal(err)
	}
	if got := served(); got != http.StatusOK {
		t.Errorf("got %d from one that has come later, want 200", got)
	}
}

func TestNoConnectionIsMeantForAnInstanceThatIsDown(t *testing.T) {
	t.Parallel()
	rt := ward()
	watttest.Start(t, rt)
	chosen := func(want ...bool) func() bool {
		return func() bool {
			for i, l := range statusOf(t, rt, "ward").PerListener {
				if l.Chosen != want[i] {
					return false
				}
			}
			return true
		}
	}
	soon(t, "all to be chosen", chosen(true, true, true))
	if err := rt.Drain("ward", 1); err != nil {
		t.Error(err)
	}
	soon(t, "the others to be chosen", chosen(true, false, true))
	pid := statusOf(t, rt, "ward").PerInstance[2].PID
	stop(t, pid)
	soon(t, "the one that shows itself to be chosen", chosen(true, false, false))
	syscall.Kill(pid, syscall.SIGCONT)
	if err := rt.Restart("ward", 1); err != nil {
		t.Error(err)
	}
	soon(t, "all to be chosen again", chosen(true, true, true))
}

func TestAnInstanceThatWasAddedAndCannotStartIsTakenBack(t *testing.T) {
	t.Parallel()
	rt := shy()
	watttest.Start(t, rt)
	err := rt.Update("shy", func(a *watt.App) { a.Instances = 2 })
	if s := statusOf(t, rt, "shy"); err == nil || len(s.PerInstance) != 1 || s.Instances != 1 || s.State != "ready" {
		t.Errorf("got %v, %d instances of %d, %s", err, len(s.PerInstance), s.Instances, s.State)
	}
}

// shy starts only as instance 0.
func shy() *watt.Runtime {
	return watt.New(watt.App{Name: "shy", Isolation: watt.OwnProcess, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		if env.Instance > 0 {
			return nil, watt.ErrUnavailable
		}
		return http.NotFoundHandler(), nil
	}})
}

func TestARestartThatARemovalEndsSaysNothingOfWhatMainDoes(t *testing.T) {
	rt := ward()
	watttest.Start(t, rt)
	restarted := make(chan error, 1)
	for range 20 {
		generation := statusOf(t, rt, "ward").PerInstance[2].Generation
		go func() { restarted <- rt.Restart("ward", 2) }()
		soon(t, "the start of the next", func() bool {
			in := statusOf(t, rt, "ward").PerInstance[2]
			return in.State == "starting" || in.Generation > generation
		})
		if err := rt.Update("ward", func(a *watt.App) { a.Instances = 2 }); err != nil {
			t.Error(err)
		}
		if err := within(t, restarted, "the restart"); err != nil && (!errors.Is(err, watt.ErrUnavailable) || strings.Contains(err.Error(), "in time")) {
			t.Error(err)
		}
		if err := rt.Update("ward", func(a *watt.App) { a.Instances = 3 }); err != nil {
			t.Error(err)
		}
	}
}

func TestMoreInstancesThanThePageHasRoomForAreAMistake(t *testing.T) {
	rt := shift()
	if err := rt.Update("shift", func(a *watt.App) { a.Instances = 65 }); err != nil {
		t.Fatal(err)
	}
	if err := rt.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "Instances: at most 64") {
		t.Errorf("got %v, want a mistake in Instances", err)
	}
}
