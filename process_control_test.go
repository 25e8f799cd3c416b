//go:build linux

package watt_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// rebel is an instance in a process of its own that turns against the control socket.
func rebel() *watt.Runtime {
	return watt.New(watt.App{
		Name: "rebel", Isolation: watt.OwnProcess, Instances: 2, MaxRestarts: -1, Timeout: 2 * time.Second,
		New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			mux := http.NewServeMux()
			mux.HandleFunc("/well", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, env.Instance) })
			mux.HandleFunc("/garbage", func(_ http.ResponseWriter, r *http.Request) {
				onUnixSockets(func(fd int) { syscall.Write(fd, []byte("\x00\x00\x00\x00\x05hello")) })
				<-r.Context().Done()
			})
			mux.HandleFunc("/huge", func(_ http.ResponseWriter, r *http.Request) {
				onUnixSockets(func(fd int) { syscall.Write(fd, []byte("\xff\xff\xff\xff\xff")) })
				<-r.Context().Done()
			})
			mux.HandleFunc("/strange", func(_ http.ResponseWriter, r *http.Request) {
				say(`{"kind":"coup"}`)
				<-r.Context().Done()
			})
			mux.HandleFunc("/hangup", func(_ http.ResponseWriter, r *http.Request) {
				onUnixSockets(func(fd int) { syscall.Shutdown(fd, syscall.SHUT_WR) })
				<-r.Context().Done()
			})
			return mux, nil
		},
	})
}

// onUnixSockets does something to the control socket, and to what else of its kind is open.
func onUnixSockets(do func(fd int)) {
	entries, _ := os.ReadDir("/proc/self/fd")
	var fds []int
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		fds = append(fds, fd)
	}
	slices.Sort(fds)
	for _, fd := range fds {
		if family, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_DOMAIN); err == nil && family == syscall.AF_UNIX {
			do(fd)
		}
	}
}

func TestAChildThatIsOutOfHandIsEndedAndReplaced(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/garbage": "malformed message",
		"/huge":    "is malformed",
		"/strange": `unknown message "coup"`,
		"/hangup":  "it has closed its control socket",
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			rt := rebel()
			top := watttest.Start(t, rt)
			call := going(t.Context(), rt, "rebel.watt.local"+path)
			soon(t, "the restart", func() bool {
				for _, in := range statusOf(t, rt, "rebel").PerInstance {
					if in.Generation == 2 && in.State == "ready" {
						return strings.Contains(in.LastError, want)
					}
				}
				return false
			})
			if r := within(t, call, "the end of its request"); r.err == nil {
				t.Errorf("got %+v, want an error", r)
			}
			if status, body := top.Get("http://rebel.watt.local/well"); status != http.StatusOK {
				t.Errorf("got %d %s", status, body)
			}
		})
	}
}

// sloth's New does not return.
func sloth() *watt.Runtime {
	return watt.New(watt.App{
		Name: "sloth", Isolation: watt.OwnProcess, StartTimeout: 3 * time.Second,
		New: func(ctx context.Context, _ *watt.Env) (http.Handler, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
}

// unready's readiness check fails.
func unready() *watt.Runtime {
	return watt.New(watt.App{
		Name: "unready", Isolation: watt.OwnProcess, StartTimeout: 3 * time.Second, ReadyPath: "/ready", Handler: http.NotFoundHandler(),
	})
}

func TestAChildThatNeverBecomesReadyIsAnErrorOfTheStartThatSaysWhy(t *testing.T) {
	t.Parallel()
	for app, c := range map[string]struct {
		topology func() *watt.Runtime
		want     string
	}{
		"sloth":   {sloth, "New did not return in time: StartTimeout of 3s has passed: context deadline exceeded"},
		"unready": {unready, "not ready in time: StartTimeout of 3s has passed: context deadline exceeded; the last check: /ready answered 404 Not Found: \"404 page not found\""},
	} {
		t.Run(app, func(t *testing.T) {
			t.Parallel()
			err := c.topology().Start(t.Context())
			if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("watt: app %q: start: %s", app, c.want)) {
				t.Errorf("got %v", err)
			}
			wantErr(t, err, context.DeadlineExceeded)
			if left := children(t, app); len(left) > 0 {
				t.Errorf("processes are left: %v", left)
			}
		})
	}
}

// failing's New fails.
func failing() *watt.Runtime {
	return watt.New(watt.App{
		Name: "failing", Isolation: watt.OwnProcess, Instances: 2,
		New: func(context.Context, *watt.Env) (http.Handler, error) {
			return nil, fmt.Errorf("no database in process %t", watt.IsChild())
		},
	})
}

func TestAnErrorOfNewInAChildIsTheErrorOfTheStart(t *testing.T) {
	t.Parallel()
	err := failing().Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no database in process true") {
		t.Errorf("got %v", err)
	}
}

// verbose's New fails with an error that no message has room for.
func verbose() *watt.Runtime {
	return watt.New(watt.App{Name: "verbose", Isolation: watt.OwnProcess, New: func(context.Context, *watt.Env) (http.Handler, error) {
		return nil, fmt.Errorf("no database: %s", strings.Repeat("\x00", 100<<10))
	}})
}

func TestALongErrorOfNewInAChildIsShortened(t *testing.T) {
	stderr := os.Stderr
	t.Cleanup(func() { os.Stderr = stderr })
	os.Stderr, _ = os.OpenFile(os.DevNull, os.O_WRONLY, 0) // for the child, which says all of it
	err := verbose().Start(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), `watt: app "verbose": start: no database: `) || len(err.Error()) > 10<<10 ||
		!strings.HasSuffix(err.Error(), "bytes more") {
		t.Errorf("got %.200v", err)
	}
}

// chatty logs to stderr.
func chatty() *watt.Runtime {
	rt := watt.New(watt.App{Name: "chatty", Isolation: watt.OwnProcess, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		env.Logger.Info("New was called")
		return http.NotFoundHandler(), nil
	}})
	rt.Logger = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(os.Stderr), zap.InfoLevel))
	return rt
}

func TestOnlyTheParentTellsTheStepsOfAChildsLife(t *testing.T) {
	rt := chatty()
	rt.Logger = nil
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stderr := os.Stderr
	os.Stderr = w
	err = rt.Start(t.Context())
	os.Stderr = stderr
	if err := errors.Join(err, rt.Shutdown(t.Context())); err != nil {
		t.Fatal(err)
	}
	w.Close()
	said, _ := io.ReadAll(r)
	if !strings.Contains(string(said), "New was called") || strings.Count(string(said), "\n") != 1 {
		t.Errorf("got %s, want what New has said", said)
	}
}

// gauge tells the level of the log, and says whatever it is asked.
func gauge() *watt.Runtime {
	var rt *watt.Runtime
	rt = watt.New(watt.App{Name: "gauge", Isolation: watt.OwnProcess, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, rt.Level)
	})})
	level := zap.NewAtomicLevelAt(zap.ErrorLevel)
	rt.Level = &level
	return rt
}

func TestAllProcessesHaveTheLevelOfTheFirst(t *testing.T) {
	t.Parallel()
	rt := gauge()
	rt.Level.SetLevel(zap.WarnLevel) // its main begins with another one
	watttest.Start(t, rt)
	level := func() string { return text(rt.Env().Get(t.Context(), "http://gauge.watt.local/")) }
	if got := level(); got != "warn" {
		t.Errorf("got %q of a child that has begun", got)
	}
	if err := rt.SetLevel(zap.DebugLevel); err != nil || rt.Level.Level() != zap.DebugLevel {
		t.Fatalf("got %v, %v", rt.Level, err)
	}
	soon(t, "the level of the child", func() bool { return level() == "debug" })
	if err := rt.Restart("gauge", 0); err != nil {
		t.Fatal(err)
	}
	if got := level(); got != "debug" {
		t.Errorf("got %q of the next child", got)
	}
}

// Loggers are silenced by a level above all, and logr has more below.
func TestAllProcessesHaveTheLevelOfTheFirstThoughItHasNoName(t *testing.T) {
	t.Parallel()
	rt := gauge()
	rt.Level.SetLevel(zap.DebugLevel - 1)
	watttest.Start(t, rt)
	level := func() string { return text(rt.Env().Get(t.Context(), "http://gauge.watt.local/")) }
	if got := level(); got != "Level(-2)" {
		t.Errorf("got %q of a child that has begun", got)
	}
	if err := rt.SetLevel(zap.FatalLevel + 1); err != nil {
		t.Fatal(err)
	}
	soon(t, "the level of the child", func() bool { return level() == "Level(6)" })
	if in := statusOf(t, rt, "gauge").PerInstance[0]; in.Generation != 1 {
		t.Errorf("got %+v, want that it has not ended", in)
	}
}

func TestSetLevelIsForWhoeverHasALevel(t *testing.T) {
	rt := gauge()
	if err := errors.Join(rt.SetLevel(zap.InfoLevel), rt.Shutdown(t.Context()), rt.SetLevel(zap.DebugLevel)); err != nil || rt.Level.Level() != zap.DebugLevel {
		t.Errorf("got %v, %v of one that does not run", rt.Level, err)
	}
	rt.Level = nil
	if err := rt.SetLevel(zap.InfoLevel); err == nil || !strings.Contains(err.Error(), "Runtime.Level is not set") {
		t.Errorf("got %v without a level", err)
	}
}

// heist has an instance in a process of its own that asks for connections which its app may not have, past its own
// runtime. What it gets is in the book.
func heist() *watt.Runtime {
	var vault, lobby atomic.Int64
	counting := func(n *atomic.Int64) func(context.Context, *watt.Env, net.Listener) error {
		return func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
			defer context.AfterFunc(ctx, func() { ln.Close() })()
			for {
				conn, err := ln.Accept()
				if err != nil {
					return nil
				}
				n.Add(1)
				conn.Close()
			}
		}
	}
	return watt.New(
		watt.App{Name: "thief", Isolation: watt.OwnProcess, Calls: []string{"lobby"}, New: func(context.Context, *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				say(fmt.Sprintf(`{"kind":"dial","data":{"ID":1000000,"App":%q,"Instance":-1,"Handed":%t,"Trunk":%t}}`, r.URL.Path[1:], q.Has("handed"), q.Has("trunk")))
			}), nil
		}},
		watt.App{Name: "vault", Serve: counting(&vault)},
		watt.App{Name: "lobby", Serve: counting(&lobby)},
		watt.App{Name: "book", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, vault.Load(), " ", lobby.Load()) })},
	)
}

// say writes messages on the control socket, which is the first of its kind.
func say(texts ...string) {
	var all []byte
	for _, text := range texts {
		all = append(binary.BigEndian.AppendUint32(append(all, 0), uint32(len(text))), text...)
	}
	said := false
	onUnixSockets(func(fd int) {
		if !said {
			syscall.Write(fd, all)
			said = true
		}
	})
}

func TestTheParentGivesAChildOnlyConnectionsThatItsAppMayHave(t *testing.T) {
	t.Parallel()
	rt := heist()
	top := watttest.Start(t, rt)
	for _, app := range []string{"vault", "vault?handed", "vault?trunk", "vault?handed&trunk", "nobody", "lobby", "lobby", "lobby"} {
		if status, body := top.Get("http://thief.watt.local/" + app); status != http.StatusOK {
			t.Errorf("got %d %s", status, body)
		}
	}
	soon(t, "the connections that it may have", func() bool {
		_, body := top.Get("http://book.watt.local/")
		return strings.HasSuffix(body, " 3")
	})
	if _, body := top.Get("http://book.watt.local/"); body != "0 3" {
		t.Errorf("got %q connections, want 0 and 3", body)
	}
}
