//go:build linux

package watt_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// ward has three public instances in processes of their own, which can be made ill.
func ward() *watt.Runtime {
	return watt.New(watt.App{
		Name: "ward", Listen: "127.0.0.1:0", Instances: 3, Workers: 4, Isolation: watt.OwnProcess, MaxRestarts: -1,
		Timeout: 3 * time.Second, DrainTimeout: time.Minute, MemoryLimit: 400 << 20, New: newPatient,
	})
}

// hasty is a ward that does not wait long for what does not end.
func hasty() *watt.Runtime {
	rt := ward()
	rt.Update("ward", func(a *watt.App) { a.DrainTimeout = time.Second })
	return rt
}

func newPatient(_ context.Context, env *watt.Env) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("/well", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, env.Instance) })
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/panic", func(_ http.ResponseWriter, r *http.Request) {
		go panic("on purpose")
		<-r.Context().Done()
	})
	mux.HandleFunc("/fatal", func(http.ResponseWriter, *http.Request) {
		shared := make(map[int]int)
		for range 8 {
			go func() {
				for i := 0; ; i++ {
					shared[i%8] = i
				}
			}()
		}
		select {}
	})
	mux.HandleFunc("/memory", func(http.ResponseWriter, *http.Request) {
		debug.SetGCPercent(-1)
		var all [][]byte
		for {
			all = append(all, make([]byte, 16<<20))
			for i := range all[len(all)-1] {
				all[len(all)-1][i] = 1
			}
		}
	})
	mux.HandleFunc("/loop", func(http.ResponseWriter, *http.Request) {
		for {
			continue
		}
	})
	mux.HandleFunc("/stuck", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/say", func(http.ResponseWriter, *http.Request) {
		fmt.Println("to stdout")
		fmt.Fprintln(os.Stderr, "to stderr")
	})
	addShare(mux)
	mux.HandleFunc("/flood", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 4 << 10 {
			fmt.Fprintf(os.Stderr, "line %d %s\n", i, strings.Repeat("x", 1014))
		}
		fmt.Fprint(w, env.Instance)
	})
	return mux, nil
}

// flow is what becomes of requests that come all the time: half over the mesh, half over fresh public connections.
type flow struct {
	stop         context.CancelFunc
	done         sync.WaitGroup
	mesh, public way
	mu           sync.Mutex
	failed       []string
	seen         map[string]bool // instances that have answered
}

// way is one of the two that requests of a flow take.
type way struct {
	client *http.Client
	url    string
	ok     atomic.Int64
}

const flows = 4 // requests at a time

func startFlow(t *testing.T, rt *watt.Runtime, top *watttest.Topology) *flow {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &flow{stop: stop, seen: make(map[string]bool)}
	f.mesh.client, f.mesh.url = rt.Env().Client, "http://ward.watt.local/well"
	f.public.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	f.public.url = top.URL("ward") + "/well"
	for range flows / 2 {
		for _, w := range []*way{&f.mesh, &f.public} {
			f.done.Go(func() {
				for ctx.Err() == nil {
					f.one(ctx, w)
				}
			})
		}
	}
	t.Cleanup(f.end)
	return f
}

func (f *flow) one(flowing context.Context, w *way) {
	ctx, cancel := context.WithTimeout(flowing, 3*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, w.url, http.NoBody)
	resp, err := w.client.Do(req)
	text := ""
	if err == nil {
		var body []byte
		body, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		text = string(body)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case flowing.Err() != nil:
	case err == nil && resp.StatusCode == http.StatusOK:
		w.ok.Add(1)
		f.seen[text] = true
	case err != nil:
		f.failed = append(f.failed, err.Error())
	default:
		f.failed = append(f.failed, resp.Status+" "+text)
	}
}

// more waits until at least n more requests were answered, half of them either way.
func (f *flow) more(t *testing.T, n int64) {
	t.Helper()
	more(t, "the flow over the mesh to go on", &f.mesh.ok, n/2)
	more(t, "the flow of public requests to go on", &f.public.ok, n/2)
}

func (f *flow) failures() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.failed...)
}

// instances returns which instances have answered since the last time.
func (f *flow) instances() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.seen
	f.seen = make(map[string]bool)
	return seen
}

func (f *flow) end() {
	f.stop()
	f.done.Wait()
}

// recovered waits until every instance is ready, and returns the last error of the one that has been restarted.
func recovered(t *testing.T, rt *watt.Runtime, before uint64) string {
	t.Helper()
	soon(t, "the restart", func() bool {
		s := statusOf(t, rt, "ward")
		ready := 0
		for _, in := range s.PerInstance {
			if in.State == "ready" {
				ready++
			}
		}
		return s.Restarts > before && ready == len(s.PerInstance)
	})
	for _, in := range statusOf(t, rt, "ward").PerInstance {
		if in.LastError != "" && in.Generation > 1 {
			return in.LastError
		}
	}
	return ""
}

func TestAnInstanceThatEndsTakesOnlyItsOwnRequestsAlong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ill  func(rt *watt.Runtime, pid int)
		want string // of the first line of the last error
	}{
		"kill -9":         {sending(syscall.SIGKILL), "killed by SIGKILL"},
		"kill -SEGV":      {sending(syscall.SIGSEGV), "SIGSEGV: segmentation violation"},
		"os.Exit":         {visit("/exit"), "exit status 3"},
		"spawned panic":   {visit("/panic"), "panic: on purpose"},
		"fatal error":     {visit("/fatal"), "fatal error: concurrent map writes"},
		"too much memory": {visit("/memory"), "memory"},
		"kill -ABRT":      {sending(syscall.SIGABRT), "SIGABRT: abort"},
	} {
		if racing && name == "too much memory" { // there is no limit then
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rt := ward()
			top := watttest.Start(t, rt)
			f := startFlow(t, rt, top)
			f.more(t, 50)
			c.ill(rt, statusOf(t, rt, "ward").PerInstance[1].PID)
			why := recovered(t, rt, 0)
			f.more(t, 50)
			f.end()
			if failed := f.failures(); len(failed) > flows {
				t.Errorf("%d requests have failed, of %d at a time:\n%s", len(failed), flows, strings.Join(failed, "\n"))
			}
			first, rest, _ := strings.Cut(why, "\n")
			crashed := strings.Contains(first, "killed by SIGSEGV") && strings.Contains(rest, c.want) // while Go told of the signal
			if !strings.Contains(first, c.want) && !crashed {
				t.Errorf("got the last error %q, want %q in its first line", first, c.want)
			}
			if s := statusOf(t, rt, "ward"); s.Restarts != 1 {
				t.Errorf("got %d restarts, want 1", s.Restarts)
			}
		})
	}
}

// sending sends a signal to one instance.
func sending(s syscall.Signal) func(*watt.Runtime, int) {
	return func(_ *watt.Runtime, pid int) { syscall.Kill(pid, s) }
}

// visit asks any instance for a path from which it does not come back.
func visit(path string) func(*watt.Runtime, int) {
	return func(rt *watt.Runtime, _ int) { get(context.Background(), rt, "ward.watt.local"+path) }
}

func TestAStoppedInstanceIsPassedOverUntilItGoesOn(t *testing.T) {
	t.Parallel()
	rt := ward()
	top := watttest.Start(t, rt)
	f := startFlow(t, rt, top)
	f.more(t, 50)
	stopped, began := statusOf(t, rt, "ward").PerInstance[1], time.Now()
	stop(t, stopped.PID)
	state := func(want string) func() bool {
		return func() bool { return statusOf(t, rt, "ward").PerInstance[1].State == want }
	}
	soon(t, "the silence to be noticed", state("silent"))
	if since := statusOf(t, rt, "ward").PerInstance[1].Since; since.Before(began) {
		t.Errorf("it is silent since %v before it was stopped", began.Sub(since))
	}
	f.more(t, 20) // what had gone to it before may still fail
	before := len(f.failures())
	f.instances()
	f.more(t, 200)
	if now := f.failures(); len(now) > before+flows {
		t.Errorf("%d requests have failed after the silence was noticed:\n%s", len(now)-before, strings.Join(now[before:], "\n"))
	}
	if seen := f.instances(); seen["1"] || !seen["0"] || !seen["2"] {
		t.Errorf("got answers from %v, want 0 and 2", seen)
	}
	syscall.Kill(stopped.PID, syscall.SIGCONT)
	soon(t, "it to be ready again", state("ready"))
	soon(t, "its answers", func() bool { return f.instances()["1"] })
	if in := statusOf(t, rt, "ward").PerInstance[1]; in.PID != stopped.PID {
		t.Errorf("it was restarted: got process %d, want %d", in.PID, stopped.PID)
	}
}

func TestAnAppWhoseProcessesAreAllStoppedIsNotReady(t *testing.T) {
	t.Parallel()
	rt := ward()
	watttest.Start(t, rt)
	for _, in := range statusOf(t, rt, "ward").PerInstance {
		stop(t, in.PID)
	}
	soon(t, "the silence to be noticed", func() bool { return statusOf(t, rt, "ward").State == "silent" })
	if err := rt.Ready(); err == nil || !strings.Contains(err.Error(), `app "ward" is silent`) {
		t.Errorf("got %v", err)
	}
	for _, in := range statusOf(t, rt, "ward").PerInstance {
		syscall.Kill(in.PID, syscall.SIGCONT)
	}
	soon(t, "it to be ready again", func() bool { return rt.Ready() == nil })
}

func TestAStoppedInstanceIsKilledWhenItHasToEnd(t *testing.T) {
	t.Parallel()
	rt := hasty()
	watttest.Start(t, rt)
	pid := statusOf(t, rt, "ward").PerInstance[0].PID
	stop(t, pid)
	if err := rt.Restart("ward", 0); err != nil {
		t.Error(err)
	}
	s := statusOf(t, rt, "ward")
	if s.PerInstance[0].PID == pid || s.Abandoned != 1 || s.Restarts != 0 {
		t.Errorf("got process %d (was %d), Abandoned %d, Restarts %d", s.PerInstance[0].PID, pid, s.Abandoned, s.Restarts)
	}
	if syscall.Kill(pid, 0) == nil {
		t.Errorf("process %d still lives", pid)
	}
}

func TestAnInstanceWithAllWorkersStuckLeavesTheOthersAlone(t *testing.T) {
	t.Parallel()
	rt := ward()
	rt.Update("ward", func(a *watt.App) { a.Timeout = time.Minute })
	top := watttest.Start(t, rt)
	var conns []net.Conn // to one instance
	soon(t, "as many connections to an instance as it has workers", func() bool {
		conn := dialTCP(t, strings.TrimPrefix(top.URL("ward"), "http://"))
		fmt.Fprint(conn, "GET /well HTTP/1.1\r\nHost: ward\r\n\r\n")
		if answered(t, conn)[0] == "1" {
			conns = append(conns, conn)
		}
		return len(conns) == 4
	})
	for _, conn := range conns {
		fmt.Fprint(conn, "GET /stuck HTTP/1.1\r\nHost: ward\r\n\r\n")
	}
	soon(t, "all its workers to be stuck", func() bool { return statusOf(t, rt, "ward").PerInstance[1].Busy == 4 })
	f := startFlow(t, rt, top)
	for range 40 { // of which some get there
		f.one(t.Context(), &f.public)
	}
	f.more(t, 100)
	f.end()
	if failed := f.failures(); len(failed) > 0 {
		t.Errorf("%d requests have failed:\n%s", len(failed), strings.Join(failed, "\n"))
	}
	if seen := f.instances(); seen["1"] {
		t.Errorf("got answers from %v, want none of the one that is stuck", seen)
	}
	for _, conn := range conns {
		conn.Close()
	}
	soon(t, "its workers to be free", func() bool { return statusOf(t, rt, "ward").Busy == 0 })
	if s := statusOf(t, rt, "ward"); s.Restarts != 0 {
		t.Errorf("got %d restarts, want none: being busy is no reason", s.Restarts)
	}
}

func TestAnEndlessLoopKeepsItsWorkerUntilTheInstanceIsRestarted(t *testing.T) {
	t.Parallel()
	rt := hasty()
	top := watttest.Start(t, rt)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	loop := going(ctx, rt, "ward.watt.local/loop")
	soon(t, "the loop to begin", func() bool { return statusOf(t, rt, "ward").Busy == 1 })
	cancel()
	wantErr(t, within(t, loop, "the end of a call that was given up").err, context.Canceled)
	f := startFlow(t, rt, top)
	f.more(t, 100)
	f.end()
	looping := func() (all []watt.InstanceStatus) {
		for _, in := range statusOf(t, rt, "ward").PerInstance {
			if in.Busy > 0 {
				all = append(all, in)
			}
		}
		return all
	}
	soon(t, "the loop to be all there is", func() bool { return len(looping()) == 1 })
	if err := rt.Restart("ward", looping()[0].Instance); err != nil {
		t.Error(err)
	}
	if left := looping(); len(left) > 0 {
		t.Errorf("still busy: %+v", left)
	}
	if failed := f.failures(); len(failed) > 0 {
		t.Errorf("%d requests have failed:\n%s", len(failed), strings.Join(failed, "\n"))
	}
}

func TestAFloodOfStderrPassesAndOnlyItsEndIsKept(t *testing.T) {
	rt := ward()
	top := watttest.Start(t, rt)
	stderr := os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	passed := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, r)
		passed <- n
	}()
	os.Stderr = w
	restarted := rt.Restart("ward", 0) // with the stderr of now
	os.Stderr = stderr
	if restarted != nil {
		t.Error(restarted)
	}
	soon(t, "instance 0 to be flooded", func() bool {
		_, body := top.Get("http://ward.watt.local/flood")
		return body == "0"
	})
	syscall.Kill(statusOf(t, rt, "ward").PerInstance[0].PID, syscall.SIGKILL)
	why := recovered(t, rt, 0)
	if len(why) < 32<<10 || len(why) > 66<<10 || !strings.Contains(why, "\nline 4070 ") || !strings.Contains(why, "\nline 4095 ") {
		t.Errorf("got %d bytes of last error, which begins %.100q, want 64 KiB or a little more, with the last lines", len(why), why)
	}
	w.Close()
	if n := within(t, passed, "the end of the flood"); n < 4<<20 {
		t.Errorf("%d bytes have passed, want 4 MiB", n)
	}
}

func TestWhatInstancesWriteIsGivenToOutput(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	got := make(map[string]bool)
	rt := ward()
	rt.Output = func(app string, instance int, line string) {
		mu.Lock()
		defer mu.Unlock()
		got[fmt.Sprintf("%s %d: %s", app, instance, line)] = true
	}
	top := watttest.Start(t, rt)
	top.Get("http://ward.watt.local/say")
	said := func(where string) bool {
		mu.Lock()
		defer mu.Unlock()
		for i := range 3 {
			if got[fmt.Sprintf("ward %d: to %s", i, where)] {
				return true
			}
		}
		return false
	}
	soon(t, "both lines", func() bool { return said("stdout") && said("stderr") })
}

// muted starts a ward whose Output is stuck until the test ends. Its instances have said something.
func muted(t *testing.T, rt *watt.Runtime) *watttest.Topology {
	t.Helper()
	stuck := make(chan struct{})
	rt.Output = func(string, int, string) { <-stuck }
	top := watttest.Start(t, rt)
	t.Cleanup(func() { close(stuck) })
	for range 20 {
		top.Get("http://ward.watt.local/say")
	}
	return top
}

func TestInstancesAreRestartedWhileOutputIsStuck(t *testing.T) {
	t.Parallel()
	rt := ward()
	core, logs := observer.New(zapcore.WarnLevel)
	rt.Logger = zap.New(core)
	muted(t, rt)
	for _, in := range statusOf(t, rt, "ward").PerInstance {
		syscall.Kill(in.PID, syscall.SIGKILL)
	}
	began := time.Now()
	soon(t, "none to be ready", func() bool { return rt.Ready() != nil })
	if took := time.Since(began); took > 1500*time.Millisecond { // what is stuck is left behind after 2 s
		t.Errorf("Ready saw after %v that all had ended", took)
	}
	soon(t, "all to be replaced", func() bool {
		s := statusOf(t, rt, "ward")
		for _, in := range s.PerInstance {
			if in.Generation != 2 || in.State != "ready" {
				return false
			}
		}
		return true
	})
	if n := logs.FilterMessageSnippet("no sign of life").Len(); n > 0 {
		t.Errorf("%d of those that had ended were said to show no sign of life", n)
	}
}

func TestAnInstanceThatEndsInTimeWasNotKilledThoughOutputIsStuck(t *testing.T) {
	t.Parallel()
	rt := ward()
	rt.Update("ward", func(a *watt.App) { a.DrainTimeout = 800 * time.Millisecond })
	muted(t, rt)
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAListenerIsEmptiedThoughTheOutputOfItsInstanceWasStuck(t *testing.T) {
	t.Parallel()
	rt := ward()
	rt.Update("ward", func(a *watt.App) { a.Instances, a.DrainTimeout = 2, 800*time.Millisecond })
	muted(t, rt)
	if err := rt.Update("ward", func(a *watt.App) { a.Instances = 1 }); err != nil {
		t.Error(err)
	}
}

func TestStrangersDoNotWaitForAnInstanceThatHasEndedWhoseOutputIsStuck(t *testing.T) {
	t.Parallel()
	rt := ward()
	rt.Update("ward", func(a *watt.App) { a.Instances = 2 })
	top := muted(t, rt)
	syscall.Kill(statusOf(t, rt, "ward").PerInstance[0].PID, syscall.SIGKILL)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 20 {
		began := time.Now()
		resp, err := client.Get(top.URL("ward") + "/well")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if took := time.Since(began); took > 1500*time.Millisecond { // what is stuck is left behind after 2 s
			t.Errorf("an answer took %v", took)
		}
	}
}

func TestWhyAnInstanceHasPanickedIsKnownThoughOutputIsStuck(t *testing.T) {
	t.Parallel()
	rt := ward()
	rt.Update("ward", func(a *watt.App) { a.Instances = 1 })
	muted(t, rt)
	rt.Env().Client.Get("http://ward.watt.local/panic")
	soon(t, "its replacement", func() bool {
		in := statusOf(t, rt, "ward").PerInstance[0]
		return in.Generation == 2 && in.State == "ready"
	})
	if said := statusOf(t, rt, "ward").PerInstance[0].LastError; !strings.Contains(said, "panic: on purpose") {
		t.Errorf("got %q", said)
	}
}
