//go:build linux

package watt_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
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
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
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

// sloth is never ready.
func sloth() *watt.Runtime {
	return watt.New(watt.App{
		Name: "sloth", Isolation: watt.OwnProcess, StartTimeout: 300 * time.Millisecond,
		New: func(ctx context.Context, _ *watt.Env) (http.Handler, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
}

func TestAChildThatNeverBecomesReadyIsAnErrorOfTheStart(t *testing.T) {
	t.Parallel()
	rt := sloth()
	err := rt.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), `app "sloth"`) || !strings.Contains(err.Error(), "not ready in time") {
		t.Errorf("got %v", err)
	}
	wantErr(t, err, context.DeadlineExceeded)
	if left := children(t); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
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
