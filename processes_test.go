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
	"slices"
	"strings"
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

func TestMain(m *testing.M) {
	if !runMain() && !runProgram() {
		go lasting()
		os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")) // children end at once, also with the race detector
		watttest.Main(m, farm, mall, pair, press, ward, rebel, sloth, unready, failing, verbose, shift, bistro, shy, chatty, gauge, heist, far, poor, grumble, safe, aloof, hoarder, consumer, quitter, leaver, barred, outpost, meddler, vacant, twin, pliant)
	}
}

// farm has an app with two instances in processes of their own, which call and are called.
func farm() *watt.Runtime {
	return watt.New(
		watt.App{Name: "front", Calls: []string{"mill", "store"}, New: passing("mill")},
		watt.App{Name: "mill", Calls: []string{"store"}, Instances: 2, Isolation: watt.OwnProcess, New: newMill},
		watt.App{Name: "store", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s for %s", r.URL.Path, watt.Caller(r.Context()))
		})},
	)
}

// passing passes requests on to an app.
func passing(app string) func(context.Context, *watt.Env) (http.Handler, error) {
	return func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			resp, err := env.Get(r.Context(), "http://"+app+".watt.local"+r.URL.Path)
			if err != nil {
				watt.WriteError(w, err)
				return
			}
			defer resp.Body.Close()
			w.WriteHeader(resp.StatusCode)
			io.Copy(w, resp.Body)
		}), nil
	}
}

func newMill(_ context.Context, env *watt.Env) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%d %d %s", os.Getpid(), env.Instance, watt.Caller(r.Context()))
	})
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/panic", func(_ http.ResponseWriter, r *http.Request) {
		go panic("on purpose")
		<-r.Context().Done()
	})
	mux.HandleFunc("/wait", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	pass, err := passing("store")(nil, env)
	mux.Handle("/", pass)
	return mux, err
}

func TestAnInstanceInAProcessOfItsOwnIsCalledLikeAnyOther(t *testing.T) {
	rt := farm()
	top := watttest.Start(t, rt)
	seen := make(map[string]bool)
	for range 50 {
		status, body := top.Get("http://front.watt.local/who")
		var pid, instance int
		var caller string
		if n, _ := fmt.Sscan(body, &pid, &instance, &caller); status != 200 || n != 3 || pid == os.Getpid() || caller != "front" {
			t.Fatalf("got %d %q", status, body)
		}
		seen[body] = true
	}
	if len(seen) != 2 {
		t.Errorf("got answers from %v, want two instances", seen)
	}
	if status, body := top.Get("http://front.watt.local/grain"); status != 200 || body != "/grain for mill" {
		t.Errorf("got %d %q", status, body)
	}
}

func TestInATestWhereChildrenWouldNotFindTheirWayTheErrorSaysWhatToDo(t *testing.T) {
	t.Setenv("WATT_TEST_PROCESSES", "")
	err := farm().Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), `app "mill": Isolation: in a test, processes of their own need watttest.Main in TestMain`) {
		t.Errorf("got %v", err)
	}
}

func TestReadySaysInALineWhyAProcessWasGivenUp(t *testing.T) {
	t.Parallel()
	rt := farm()
	rt.Update("mill", func(a *watt.App) { a.Instances, a.MaxRestarts = 1, 1 })
	top := watttest.Start(t, rt)
	soon(t, "the end of all hope", func() bool {
		top.Get("http://mill.watt.local/panic")
		return statusOf(t, rt, "mill").State == "failed"
	})
	const want = `watt: app "mill": instance 0 has failed: its process has ended: panic: on purpose`
	if err := rt.Ready(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAProcessThatEndsIsRestartedAndSaysWhy(t *testing.T) {
	rt := farm()
	core, logs := observer.New(zapcore.WarnLevel)
	rt.Logger = zap.New(core)
	top := watttest.Start(t, rt)
	for path, want := range map[string]string{"/exit": "exit status 3", "/panic": "panic: on purpose"} {
		status, _ := top.Get("http://mill.watt.local" + path)
		if status != http.StatusBadGateway {
			t.Errorf("%s: got %d, want 502", path, status)
		}
		soon(t, "the restart", func() bool {
			for _, in := range statusOf(t, rt, "mill").PerInstance {
				if strings.Contains(in.LastError, want) && in.State == "ready" {
					return true
				}
			}
			return false
		})
	}
	killed := make(map[int]int)
	for _, in := range statusOf(t, rt, "mill").PerInstance {
		if in.PID <= 1 {
			t.Fatalf("instance %d is process %d", in.Instance, in.PID)
		}
		killed[in.Instance] = in.PID
		syscall.Kill(in.PID, syscall.SIGKILL)
	}
	soon(t, "an answer", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return get(ctx, rt, "mill.watt.local/who").status == http.StatusOK
	})
	soon(t, "both to be missed", func() bool { // else the shutdown tells of the kill
		return !slices.ContainsFunc(statusOf(t, rt, "mill").PerInstance, func(in watt.InstanceStatus) bool { return in.PID == killed[in.Instance] })
	})
	for instance, pid := range killed { // with the default level of the log
		lines := func(message string) *observer.ObservedLogs {
			return logs.FilterField(zap.Int("instance", instance)).FilterMessage(message)
		}
		soon(t, "the end of one with its number", func() bool { return lines("restarting").FilterField(zap.Int("pid", pid)).Len() == 1 })
		soon(t, "word of each recovery", func() bool { return lines("ready").Len() == lines("restarting").Len() })
	}
	if err := rt.Restart("mill", 1); err != nil {
		t.Error(err)
	}
}

// mall has public instances in processes of their own.
func mall() *watt.Runtime {
	return watt.New(watt.App{
		Name: "shop", Listen: "127.0.0.1:0", Instances: 3, Isolation: watt.OwnProcess, New: newMill, Calls: []string{"store"},
	}, watt.App{Name: "store", Handler: http.NotFoundHandler()})
}

func TestPublicInstancesInProcessesOfTheirOwnShareAPortAndLoseNoRequestWhenRestarted(t *testing.T) {
	rt := mall()
	top := watttest.Start(t, rt)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	ctx, cancel := context.WithCancel(t.Context())
	type outcome struct {
		instances map[string]int
		failed    []string
	}
	outcomes := make(chan outcome)
	for range 4 {
		go func() {
			o := outcome{instances: make(map[string]int)}
			for ctx.Err() == nil {
				resp, err := client.Get(top.URL("shop") + "/who")
				if err != nil {
					o.failed = append(o.failed, err.Error())
					continue
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK || err != nil {
					o.failed = append(o.failed, fmt.Sprint(resp.Status, string(body), err))
					continue
				}
				o.instances[strings.Fields(string(body))[1]]++
			}
			outcomes <- o
		}()
	}
	for range 3 {
		for i := range 3 {
			if err := rt.Restart("shop", i); err != nil {
				t.Error(err)
			}
		}
	}
	cancel()
	total := make(map[string]int)
	for range 4 {
		o := <-outcomes
		for i, n := range o.instances {
			total[i] += n
		}
		for _, f := range o.failed {
			t.Error(f)
		}
	}
	t.Log(total)
	if len(total) != 3 {
		t.Errorf("got answers from %v, want three instances", total)
	}
}

func TestARequestThatWouldWaitIsHandedToAnIdleSibling(t *testing.T) {
	rt := pair()
	top := watttest.Start(t, rt)
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	var conns []net.Conn // all at the same instance
	for len(conns) < 2 {
		conn := dialTCP(t, strings.TrimPrefix(top.URL("pair"), "http://"))
		if words(t, conn, "/who")[1] == "0" {
			conns = append(conns, conn)
		}
	}
	release := make(chan []string)
	go func() { release <- words(t, conns[0], "/hold") }()
	soon(t, "the first to be busy", func() bool { return statusOf(t, rt, "pair").Busy == 1 })
	if got := words(t, conns[1], "/who"); got[1] != "1" {
		t.Errorf("got %q, want the other instance", got)
	}
	resp, err := client.Get(top.URL("pair") + "/release")
	read(t, resp, err)
	if got := <-release; got[1] != "0" {
		t.Errorf("got %q", got)
	}
}

// words sends a request on a connection that is kept.
func words(t *testing.T, conn net.Conn, path string) []string {
	t.Helper()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: pair\r\n\r\n", path)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	return append(strings.Fields(read(t, resp, err)), "", "")
}

// pair is two public instances with one worker each.
func pair() *watt.Runtime { return holders(func(*watt.App) {}) }

// brisk is a pair that answers soon or not at all.
func brisk() *watt.Runtime { return holders(func(a *watt.App) { a.Timeout = 500 * time.Millisecond }) }

// tight is a pair where nobody waits.
func tight() *watt.Runtime { return holders(func(a *watt.App) { a.Queue = -1 }) }

func holders(change func(*watt.App)) *watt.Runtime {
	a := watt.App{
		Name: "pair", Listen: "127.0.0.1:0", Instances: 2, Workers: 1, Isolation: watt.OwnProcess, Calls: []string{"gate"}, New: newHolder,
	}
	change(&a)
	return watt.New(
		a,
		watt.App{Name: "gate", New: newGate, Workers: 8},
		watt.App{Name: "clerk", Calls: []string{"pair"}, New: passing("pair")},
	)
}

// newHolder serves /hold until somebody has asked for /release, /read until the request's body ends, /who, and what
// [addTold] has.
func newHolder(_ context.Context, env *watt.Env) (http.Handler, error) {
	mux := http.NewServeMux()
	who := func(w http.ResponseWriter) { fmt.Fprint(w, os.Getpid(), " ", env.Instance) }
	addTold(mux, env)
	mux.HandleFunc("/who", func(w http.ResponseWriter, _ *http.Request) { who(w) })
	mux.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) {
		if resp, err := env.Get(r.Context(), "http://gate.watt.local/wait"); err == nil {
			resp.Body.Close()
		}
		who(w)
	})
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != r.ContentLength {
			http.Error(w, fmt.Sprintf("got %d bytes, %v", n, err), http.StatusInternalServerError)
			return
		}
		who(w)
	})
	mux.HandleFunc("/release", func(w http.ResponseWriter, r *http.Request) {
		if resp, err := env.Get(r.Context(), "http://gate.watt.local/open"); err == nil {
			resp.Body.Close()
		}
	})
	return mux, nil
}

// newGate serves /wait, which lasts until /open.
func newGate(context.Context, *watt.Env) (http.Handler, error) {
	opened := make(chan struct{})
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/open" {
			close(opened)
			return
		}
		select {
		case <-opened:
		case <-r.Context().Done():
		}
	}), nil
}

func TestCountersSurviveTheProcessThatHasCounted(t *testing.T) {
	rt := farm()
	top := watttest.Start(t, rt)
	for range 10 {
		top.Get("http://mill.watt.local/who")
	}
	soon(t, "the count", func() bool { return statusOf(t, rt, "mill").Admitted == 10 })
	for i := range 2 {
		if err := rt.Restart("mill", i); err != nil {
			t.Error(err)
		}
	}
	top.Get("http://mill.watt.local/who")
	soon(t, "the count after the restart", func() bool { return statusOf(t, rt, "mill").Admitted == 11 })
}

func TestAChildSeesThatAnAppOfItsParentsIsFullOrCannotStart(t *testing.T) {
	rt := press()
	top := watttest.Start(t, rt)
	if status, body := top.Get("http://press.watt.local/check"); status != http.StatusOK {
		t.Errorf("got %d %s, want 200 while there is room", status, body)
	}
	held := going(t.Context(), rt, "narrow.watt.local/wait")
	soon(t, "the app to be full", func() bool { return statusOf(t, rt, "narrow").Busy == 1 })
	if status, body := top.Get("http://press.watt.local/check"); status != http.StatusServiceUnavailable {
		t.Errorf("got %d %s, want 503", status, body)
	}
	top.Get("http://press.watt.local/open") // refused too
	top.Get("http://gate.watt.local/open")
	if r := within(t, held, "the held request"); r.status != http.StatusOK {
		t.Errorf("got %+v", r)
	}
	if err := rt.Restart("narrow", 0); err == nil {
		t.Error("it has started once more")
	}
	soon(t, "the child to see it", func() bool {
		status, body := top.Get("http://press.watt.local/check")
		return status == http.StatusServiceUnavailable && strings.Contains(body, `"app":"narrow"`)
	})
	if err := rt.Restart("press", 0); err == nil {
		t.Error("it has started without the app that it calls")
	}
	soon(t, "the parent to see that", func() bool { return errors.Is(rt.Env().Check("press"), watt.ErrUnavailable) })
}

// press is an instance in a process of its own in front of an app with one worker and no queue, which starts once.
func press() *watt.Runtime {
	gate, _ := newGate(context.Background(), nil)
	var started atomic.Bool
	return watt.New(
		watt.App{Name: "press", Isolation: watt.OwnProcess, Calls: []string{"narrow"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			if err := env.Check("narrow"); errors.Is(err, watt.ErrUnavailable) {
				return nil, err
			}
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if err := env.Check("narrow"); err != nil {
					watt.WriteError(w, err)
				}
			}), nil
		}},
		watt.App{Name: "narrow", Workers: 1, Queue: -1, New: func(context.Context, *watt.Env) (http.Handler, error) {
			if started.Swap(true) {
				return nil, errors.New("on purpose")
			}
			return gate, nil
		}},
		watt.App{Name: "gate", Handler: gate},
	)
}
