//go:build linux

package watt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// poor is an instance in a process of its own that can run out of descriptors.
func poor() *watt.Runtime {
	return watt.New(watt.App{Name: "poor", Isolation: watt.OwnProcess, Instances: 1, New: newPoor})
}

func newPoor(context.Context, *watt.Env) (http.Handler, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
	mux.HandleFunc("/spend", func(w http.ResponseWriter, _ *http.Request) {
		none := limit
		none.Cur = noMore
		unix.Setrlimit(unix.RLIMIT_NOFILE, &none)
		fmt.Fprint(w, os.Getpid())
	})
	mux.HandleFunc("/earn", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		fmt.Fprint(w, os.Getpid())
	})
	return mux, nil
}

func TestAChildWithoutDescriptorsGoesOnWithWhatItHas(t *testing.T) {
	rt := poor()
	top := watttest.Start(t, rt)
	kept, err := rt.Env().Dial(t.Context(), "poor") // a client keeps one only if nothing is late
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	kept.SetDeadline(time.Now().Add(3 * patience))
	answers := bufio.NewReader(kept)
	io.WriteString(kept, "POST /spend HTTP/1.1\r\nHost: poor\r\nContent-Length: 0\r\n\r\n")
	resp, err := http.ReadResponse(answers, nil)
	pid := read(t, resp, err)
	io.WriteString(kept, "POST /earn HTTP/1.1\r\nHost: poor\r\nTransfer-Encoding: chunked\r\n\r\n")
	soon(t, "it to be in progress", func() bool { return statusOf(t, rt, "poor").Busy == 1 })
	if r := within(t, going(t.Context(), rt, "poor.watt.local/pid"), "the end of a call on a new connection"); r.err == nil {
		t.Errorf("got %+v, want an error", r)
	}
	io.WriteString(kept, "0\r\n\r\n")
	resp, err = http.ReadResponse(answers, nil)
	if got := read(t, resp, err); got != pid {
		t.Errorf("got %q from the request in progress, want %s", got, pid)
	}
	if _, after := top.Get("http://poor.watt.local/pid"); after != pid {
		first, _, _ := strings.Cut(statusOf(t, rt, "poor").PerInstance[0].LastError, "\n")
		t.Errorf("the process is %s, was %s: %s", after, pid, first)
	}
}

// grumble has an app that says much when it ends, and jury calls it; both live in processes of their own.
func grumble() *watt.Runtime {
	return watt.New(
		watt.App{Name: "jury", Isolation: watt.OwnProcess, Calls: []string{"grumble"}, New: passing("grumble")},
		watt.App{Name: "grumble", Isolation: watt.OwnProcess, MaxRestarts: 1, QueueTimeout: time.Minute, New: func(context.Context, *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				os.Stderr.WriteString(strings.Repeat("I have more to say\n", 8<<10))
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}), nil
		}},
	)
}

func TestACallToAnAppThatWasGivenUpFailsAtOnceAlsoFromAChild(t *testing.T) {
	rt := grumble()
	stderr := os.Stderr
	t.Cleanup(func() { os.Stderr = stderr })
	os.Stderr, _ = os.OpenFile(os.DevNull, os.O_WRONLY, 0) // for what it says
	top := watttest.Start(t, rt)
	soon(t, "it to be given up", func() bool {
		s := statusOf(t, rt, "grumble")
		if s.State == "ready" {
			get(t.Context(), rt, "grumble.watt.local/")
		}
		return s.State == "failed"
	})
	began := time.Now()
	if status, body := top.Get("http://jury.watt.local/"); status != http.StatusServiceUnavailable {
		t.Errorf("got %d %.200s, want 503", status, body)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("it took %v", took)
	}
}

// keeper answers with the statuses that it is given.
type keeper chan int

func (k keeper) ServeHTTP(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(<-k) }

// guarded has a public instance in a process of its own that starts when a keeper lets it.
func guarded(k keeper) *watt.Runtime {
	return watt.New(
		watt.App{
			Name: "safe", Listen: "127.0.0.1:0", Isolation: watt.OwnProcess, Calls: []string{"keeper"},
			New: func(ctx context.Context, env *watt.Env) (http.Handler, error) {
				mux := http.NewServeMux()
				kept, err := passing("keeper")(ctx, env)
				mux.Handle("/kept", kept)
				if err == nil {
					_, err = watt.JSON[struct{}](env.Get(ctx, "http://keeper.watt.local/"))
				}
				return mux, err
			},
		},
		watt.App{Name: "keeper", Handler: k},
	)
}

func safe() *watt.Runtime { return guarded(nil) }

func TestConnectionsOutliveAStartThatFails(t *testing.T) {
	k := make(keeper, 1)
	k <- http.StatusNoContent
	rt := guarded(k)
	top := watttest.Start(t, rt)
	restarted := make(chan error, 1)
	go func() { restarted <- rt.Restart("safe", 0) }()
	soon(t, "it to start again", func() bool { return statusOf(t, rt, "keeper").Busy == 1 })
	conns := make([]net.Conn, 8)
	for i := range conns {
		conns[i] = dialTCP(t, strings.TrimPrefix(top.URL("safe"), "http://"))
		fmt.Fprint(conns[i], "GET / HTTP/1.1\r\nHost: safe\r\n\r\n")
	}
	k <- http.StatusInternalServerError
	if err := within(t, restarted, "the restart"); err == nil {
		t.Error("it has started")
	}
	k <- http.StatusNoContent
	for _, conn := range conns {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		read(t, resp, err)
	}
}

func TestConnectionsOfAnInstanceThatWasAddedAndStartsStillAreServedByOthers(t *testing.T) {
	t.Parallel()
	k := make(keeper, 1)
	k <- http.StatusNoContent
	rt := guarded(k)
	rt.Update("safe", func(a *watt.App) { a.QueueTimeout = time.Minute })
	top := watttest.Start(t, rt)
	starting := func(n int) func() bool { return func() bool { return statusOf(t, rt, "keeper").Busy == n } }
	restarted, added := make(chan error, 1), make(chan error, 1)
	go func() { restarted <- rt.Restart("safe", 0) }()
	soon(t, "the first to start again", starting(1))
	go func() { added <- rt.Update("safe", func(a *watt.App) { a.Instances = 2 }) }()
	soon(t, "the second to start", starting(2))
	conns := make([]net.Conn, 16) // the kernel gives all of them to the first once in 65536 times
	for i := range conns {
		conns[i] = dialTCP(t, strings.TrimPrefix(top.URL("safe"), "http://"))
		fmt.Fprint(conns[i], "GET / HTTP/1.1\r\nHost: safe\r\n\r\n")
	}
	k <- http.StatusNoContent
	if err := within(t, restarted, "the restart"); err != nil {
		t.Fatal(err)
	}
	for _, conn := range conns {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		read(t, resp, err)
	}
	k <- http.StatusInternalServerError
	if err := within(t, added, "the start of the second"); err == nil {
		t.Error("it has started")
	}
}

func TestNewLimitsReachAnInstanceThatStarts(t *testing.T) {
	t.Parallel()
	k := make(keeper, 1)
	k <- http.StatusNoContent
	rt := guarded(k)
	watttest.Start(t, rt)
	kept := func() bool { return statusOf(t, rt, "keeper").Busy == 1 }
	restarted := make(chan error, 1)
	go func() { restarted <- rt.Restart("safe", 0) }()
	soon(t, "it to start again", kept)
	if err := rt.Update("safe", func(a *watt.App) { a.Workers, a.Queue = 1, -1 }); err != nil {
		t.Fatal(err)
	}
	k <- http.StatusNoContent
	if err := within(t, restarted, "the restart"); err != nil {
		t.Fatal(err)
	}
	first := going(t.Context(), rt, "safe.watt.local/kept")
	soon(t, "its only worker to be busy", kept)
	wantErr(t, within(t, going(t.Context(), rt, "safe.watt.local/kept"), "the end of another call").err, watt.ErrOverloaded)
	k <- http.StatusOK
	within(t, first, "the end of the call")
}

// aloof has two public instances in processes of their own that accept one connection each.
func aloof() *watt.Runtime {
	return watt.New(watt.App{
		Name: "aloof", Listen: "127.0.0.1:0", Instances: 2, Isolation: watt.OwnProcess, DrainTimeout: 2 * time.Second,
		Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
			defer context.AfterFunc(ctx, func() { ln.Close() })()
			if conn, err := ln.Accept(); err == nil {
				defer conn.Close()
			}
			<-ctx.Done()
			return nil
		},
	})
}

func TestAnInstanceThatAcceptsNoMoreHearsThatItIsToDrain(t *testing.T) {
	rt := aloof()
	top := watttest.Start(t, rt)
	for range 700 { // more than wait within the instances
		dialTCP(t, strings.TrimPrefix(top.URL("aloof"), "http://"))
	}
	soon(t, "connections that wait for either", func() bool {
		all := statusOf(t, rt, "aloof").PerListener
		return all[0].Queued > 10 && all[1].Queued > 10
	})
	for i := range 2 { // while one is down its connections go to the other
		if err := rt.Restart("aloof", 1-i); err != nil {
			t.Error(err)
		}
	}
	if n := statusOf(t, rt, "aloof").Abandoned; n != 0 {
		t.Errorf("%d instances were killed", n)
	}
}

// hoard has an instance in a process of its own that asks for as many connections as it may wait for, to an app that
// starts when a keeper lets it; then it asks for one more. At /late those that it has asked for are for a moment, and it
// answers once one more may wait.
func hoard(k keeper) *watt.Runtime {
	return watt.New(
		watt.App{Name: "hoard", Isolation: watt.OwnProcess, Calls: []string{"late"}, New: func(ctx context.Context, env *watt.Env) (http.Handler, error) {
			pass, err := passing("late")(ctx, env)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/late" {
					askLate(r.Context(), env)
					return
				}
				var asked []string
				for i := range 1024 {
					asked = append(asked, fmt.Sprintf(`{"kind":"dial","data":{"ID":%d,"App":"late","Instance":-1}}`, 1000000+i))
				}
				say(asked...)
				pass.ServeHTTP(w, r)
			}), err
		}},
		watt.App{Name: "late", QueueTimeout: time.Minute, New: func(context.Context, *watt.Env) (http.Handler, error) {
			<-k
			return http.NotFoundHandler(), nil
		}},
	)
}

func askLate(ctx context.Context, env *watt.Env) {
	ask := func(within time.Duration, told bool) error {
		limit := time.Hour
		if told { // the parent too
			limit = within
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		if !told {
			defer time.AfterFunc(within, cancel).Stop()
		}
		_, err := env.Dial(ctx, "late")
		return err
	}
	var all sync.WaitGroup
	for _, told := range []bool{true, false} {
		for range 1024 {
			all.Go(func() { _ = ask(50*time.Millisecond, told) })
		}
		all.Wait()
		for errors.Is(ask(100*time.Millisecond, true), watt.ErrOverloaded) {
			continue
		}
	}
}

func hoarder() *watt.Runtime { return hoard(nil) }

func TestAChildThatWaitsForTooManyConnectionsIsRefusedMoreAtOnce(t *testing.T) {
	k := make(keeper, 1)
	k <- http.StatusOK
	rt := hoard(k)
	top := watttest.Start(t, rt)
	restarted := make(chan error, 1)
	go func() { restarted <- rt.Restart("late", 0) }()
	soon(t, "it to start again", func() bool { return statusOf(t, rt, "late").State == "starting" })
	within(t, going(t.Context(), rt, "hoard.watt.local/late"), "the parent to forget what nobody waits for")
	if status, body := top.Get("http://hoard.watt.local/"); status != http.StatusServiceUnavailable {
		t.Errorf("got %d %s, want 503", status, body)
	}
	k <- http.StatusOK
	if err := within(t, restarted, "the restart"); err != nil {
		t.Error(err)
	}
}

// TestAStartThatCannotHaveItsProcessesKeepsNoShutdownWaiting: also one that comes while that turns out.
func TestAStartThatCannotHaveItsProcessesKeepsNoShutdownWaiting(t *testing.T) {
	apps := []watt.App{{Name: "hungry", Profile: watt.CPUBound, Isolation: watt.InProcess, Workers: 1000, Handler: http.NotFoundHandler()}}
	for i := range 1025 { // for whose instances the page has no room
		apps = append(apps, watt.App{Name: fmt.Sprint("app-", i), Isolation: watt.OwnProcess, Handler: http.NotFoundHandler()})
	}
	rt := watt.New(apps...)
	ended := make(chan error, 2)
	shutdown := func() { ended <- rt.Shutdown(context.Background()) }
	core, _ := observer.New(zapcore.WarnLevel)
	rt.Logger = zap.New(core, zap.Hooks(func(zapcore.Entry) error { // hungry is warned of
		go shutdown()
		soon(t, "the shutdown to have begun", func() bool { return strings.Contains(rt.Ready().Error(), "shutting down") })
		return nil
	}))
	if err := rt.Start(t.Context()); err == nil {
		t.Fatal("it starts")
	}
	go shutdown()
	if err := within(t, ended, "the end of the shutdown"); err != nil {
		t.Error(err)
	}
}
