package watt_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
)

func TestEveryLineOfAnAppCarriesAppAndInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		m := &mortal{live: func(ctx context.Context, life int) error {
			if life > 1 {
				<-ctx.Done()
				return nil
			}
			return errors.New("on purpose")
		}}
		rt := watt.New(m.app(nil), watt.App{Name: "a", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			env.Logger.Info("the app's own")
			return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("on purpose") }), nil
		}})
		rt.Logger = zap.New(core)
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		get(t.Context(), rt, "a.watt.local/")
		if err := rt.Restart("a", 0); err != nil {
			t.Error(err)
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		ofInstance := map[string]int{"ready": 4, "drained": 4, "restarting": 1, "the app's own": 2, "handler panicked": 1}
		for _, line := range logs.All() {
			fields := line.ContextMap()
			if _, ok := fields["app"]; !ok && line.Message != "all apps are ready" {
				t.Errorf("without app: %s %v", line.Message, fields)
			}
			if _, ok := fields["instance"]; ofInstance[line.Message] != 0 && !ok {
				t.Errorf("without instance: %s %v", line.Message, fields)
			}
			if line.Level > zapcore.WarnLevel && line.Message != "handler panicked" {
				t.Errorf("an error in an ordinary life: %s %v", line.Message, fields)
			}
		}
		for message, want := range ofInstance {
			if got := logs.FilterMessage(message).Len(); got != want {
				t.Errorf("got %d lines %q, want %d", got, message, want)
			}
		}
		restart := logs.FilterMessage("restarting").All()[0].ContextMap()
		if delay, ok := restart["delay"].(time.Duration); restart["error"] != "on purpose" || !ok || delay <= 0 || delay > 100*time.Millisecond {
			t.Errorf("the restart's line has no cause or delay: %v", restart)
		}
	})
}

func TestWhatIsShedIsSummedUpInALineNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, logs := logging(t, zapcore.WarnLevel, working("a", one(-1, time.Second)))
		running := going(t.Context(), rt, "a.watt.local/20s")
		synctest.Wait()
		for range 100 { // ten seconds
			wantErr(t, rt.Env().Check("a"), watt.ErrOverloaded) // a look is no request
			wantErr(t, get(t.Context(), rt, "a.watt.local/").err, watt.ErrOverloaded)
			time.Sleep(100 * time.Millisecond)
		}
		<-running
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		sum := uint64(0)
		for _, line := range logs.FilterMessage("shed requests").All() {
			n, _ := line.ContextMap()["requests"].(uint64)
			sum += n
		}
		if lines := logs.Len(); lines > 3 || sum != 100 {
			t.Errorf("got %d lines that sum up %d requests, want at most 3 for 100", lines, sum)
		}
	})
}

func TestAConnectionThatADrainRefusesIsNotSaidToBeShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		rt, logs := logging(t, zapcore.WarnLevel, app("talk", func(http.ResponseWriter, *http.Request) { <-finish }))
		held := going(t.Context(), rt, "talk.watt.local/")
		synctest.Wait()
		over := make(chan error)
		go func() { over <- rt.Shutdown(t.Context()) }()
		synctest.Wait()
		_, err := rt.Env().Client.Do(upgrading(t.Context(), "http://talk.watt.local/"))
		wantErr(t, err, watt.ErrUnavailable)
		_, err = rt.Env().Dial(t.Context(), "talk")
		wantErr(t, err, watt.ErrUnavailable)
		close(finish)
		<-held
		if err := <-over; err != nil {
			t.Error(err)
		}
		if lines := logs.FilterMessage("shed requests").All(); len(lines) > 0 || statusOf(t, rt, "talk").ConnsShed > 0 {
			t.Errorf("got %v, want nothing of what a drain has refused", lines)
		}
	})
}

func TestARushOfFailuresIsTenLinesAndASum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, logs := logging(t, zapcore.WarnLevel, app("a", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/panic" {
				panic("on purpose")
			}
			watt.WriteError(w, errors.New("on purpose"))
		}))
		for range 3 {
			for range 25 {
				get(t.Context(), rt, "a.watt.local/")
			}
			get(t.Context(), rt, "a.watt.local/panic") // which has a line of its own, and is no other
			time.Sleep(10 * time.Second)
		}
		get(t.Context(), rt, "a.watt.local/")
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		alone, sums := logs.FilterMessage("request failed").Len(), logs.FilterMessage("more requests failed").All()
		if alone != 31 || len(sums) != 3 || sums[0].ContextMap()["requests"] != uint64(15) {
			t.Errorf("got %d lines of one, and %v, want 31, and 3 of 15", alone, sums)
		}
	})
}

// descriptors returns how many files the process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0 // not a system that tells
	}
	return len(open)
}

// ours returns the stacks of the goroutines that run code of watt.
func ours() string {
	var all strings.Builder
	pprof.Lookup("goroutine").WriteTo(&all, 2)
	var found []string
	for stack := range strings.SplitSeq(all.String(), "\n\n") {
		if strings.Contains(stack, "github.com/org/watt.") || strings.Contains(stack, "net/http.(*") {
			found = append(found, stack)
		}
	}
	return strings.Join(found, "\n\n")
}

func TestWhenRunHasReturnedNothingIsLeft(t *testing.T) {
	http.DefaultClient.CloseIdleConnections()
	before, goroutines := descriptors(t), runtime.NumGoroutine()
	core, logs := observer.New(zapcore.ErrorLevel)
	for range 2 {
		rt := watt.New(
			watt.App{Name: "web", Listen: "127.0.0.1:0", Calls: []string{"users", "raw"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					for _, app := range []string{"users", "raw"} {
						if resp, err := env.Get(r.Context(), "http://"+app+".watt.local/1ms"); err == nil {
							resp.Body.Close()
						}
					}
				}), nil
			}},
			working("users", nil),
			watt.App{Name: "raw", Listen: "127.0.0.1:0", Serve: answering},
		)
		rt.Admin = &http.Server{Addr: "127.0.0.1:0", Handler: http.NotFoundHandler()}
		rt.Logger = zap.New(core)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- rt.Run(ctx) }()
		for rt.Ready() != nil {
			runtime.Gosched()
		}
		client := &http.Client{Transport: &http.Transport{}}
		for _, app := range []string{"web", "raw"} {
			resp, err := client.Get("http://" + statusOf(t, rt, app).Addr + "/1ms") // kept open
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		idle, err := net.Dial("tcp", statusOf(t, rt, "web").Addr) // never sends anything
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		idle.Close()
		client.CloseIdleConnections()
	}
	for _, line := range logs.All() {
		t.Errorf("an error in an ordinary life: %s %v", line.Message, line.ContextMap())
	}
	for deadline := time.Now().Add(patience); ours() != "" && time.Now().Before(deadline); {
		runtime.Gosched() // the client's own goroutines, and those that have only to return
	}
	if stacks := ours(); stacks != "" {
		t.Errorf("%d goroutines before, %d after:\n%s", goroutines, runtime.NumGoroutine(), stacks)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// startHurried starts an app with two seconds for each request, and a log to look at.
func startHurried(t *testing.T) (*watt.Runtime, *observer.ObservedLogs) {
	t.Helper()
	rt, logs := logging(t, zapcore.WarnLevel, working("a", func(a *watt.App) { a.Timeout = 2 * time.Second }))
	return rt, logs
}

func TestTheLogTellsTimeoutFromTheCallersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, logs := startHurried(t)
		for within, want := range map[time.Duration]string{
			time.Second: "context deadline exceeded",
			time.Minute: "Timeout of 2s has passed: context deadline exceeded",
		} {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			wantErr(t, get(ctx, rt, "a.watt.local/1m").err, context.DeadlineExceeded)
			synctest.Wait()
			if all := logs.TakeAll(); len(all) != 1 || all[0].ContextMap()["error"] != want {
				t.Errorf("got %v, want one line with %q", all, want)
			}
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestOfATimeoutThatHasChangedMeanwhileTheOneThatHasPassedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, logs := startHurried(t)
		late := going(t.Context(), rt, "a.watt.local/1m")
		synctest.Wait()
		if err := rt.Update("a", func(a *watt.App) { a.Timeout = 10 * time.Second }); err != nil {
			t.Error(err)
		}
		r := <-late
		wantTook(t, r.took, 2*time.Second)
		synctest.Wait()
		told := []string{fmt.Sprint(r.err)}
		for _, line := range logs.TakeAll() {
			told = append(told, fmt.Sprint(line.ContextMap()["error"]))
		}
		if len(told) != 2 || !strings.Contains(told[0], "its Timeout of 2s") || !strings.Contains(told[1], "Timeout of 2s") {
			t.Errorf("got %q, want a Timeout of 2s in the error and in a line", told)
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatNobodyElseTellsOfIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, logs := logging(t, zapcore.WarnLevel,
			watt.App{Name: "a", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch r.URL.Path {
					case "/away":
						watt.WriteError(w, fmt.Errorf("%w: database is locked", watt.ErrUnavailable))
					case "/forbidden":
						_, err := env.Get(r.Context(), "http://b.watt.local/")
						watt.WriteError(w, err)
					}
				}), nil
			}},
			watt.App{Name: "b", Handler: http.NotFoundHandler()},
		)
		for range 3 {
			if r := get(t.Context(), rt, "a.watt.local/away"); r.status != http.StatusServiceUnavailable {
				t.Errorf("got %+v", r)
			}
		}
		if r := get(t.Context(), rt, "a.watt.local/forbidden"); r.status != http.StatusForbidden {
			t.Errorf("got %+v", r)
		}
		time.Sleep(10 * time.Second)
		summed := logs.FilterMessage("answered requests with 503").All()
		if len(summed) != 1 || summed[0].ContextMap()["requests"] != uint64(3) || summed[0].ContextMap()["app"] != "a" ||
			!strings.Contains(fmt.Sprint(summed[0].ContextMap()["last"]), "database is locked") {
			t.Errorf("got %v", summed)
		}
		if failed := logs.FilterMessage("request failed").All(); len(failed) != 1 || !strings.Contains(fmt.Sprint(failed[0].ContextMap()["error"]), `add "b" to Calls`) {
			t.Errorf("got %v", failed)
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// wrapped hides a writer as middleware does.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestWhatWriteErrorAnswersWith500IsLogged(t *testing.T) {
	rt, logs := logging(t, zapcore.DebugLevel, watt.App{Name: "a", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := errors.New("no such table")
		if r.URL.Path == "/busy" {
			err = watt.ErrOverloaded
		}
		watt.WriteError(wrapped{w}, err)
	})})
	get(t.Context(), rt, "a.watt.local/rows")
	get(t.Context(), rt, "a.watt.local/busy")
	lines := logs.FilterMessage("request failed").All()
	if len(lines) != 1 {
		t.Fatalf("got %d lines, want one: an overload is summed up elsewhere", len(lines))
	}
	fields := lines[0].ContextMap()
	if fields["error"] != "no such table" || fields["request"] != "GET /rows" || fields["app"] != "a" {
		t.Errorf("got %v", fields)
	}
}

func TestDialsThatAreShedAreSummedUpInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, logs := logging(t, zapcore.WarnLevel, working("a", func(a *watt.App) { a.MaxConns = 1 }))
		conn, err := rt.Env().Dial(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		for range 7 {
			_, err := rt.Env().Dial(t.Context(), "a")
			wantErr(t, err, watt.ErrOverloaded)
		}
		time.Sleep(time.Minute)
		conn.Close()
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		lines := logs.FilterMessage("shed requests").All()
		if len(lines) != 1 || lines[0].ContextMap()["requests"] != uint64(7) {
			t.Errorf("got %v, want one line that sums up 7", lines)
		}
	})
}

func TestWhoFindsNoSeatUnderMaxConnsIsSummedUpInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, logs := logging(t, zapcore.WarnLevel, watt.App{Name: "a", MaxConns: -1, Handler: linger(make(chan string, 1))})
		for range 3 {
			_, err := open(t.Context(), t, rt, "/upgrade")
			wantErr(t, err, watt.ErrOverloaded)
			if r := get(t.Context(), rt, "a.watt.local/stream"); r.status != http.StatusServiceUnavailable {
				t.Errorf("got %+v", r)
			}
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if s := rt.Status()[0]; s.ConnsShed != 6 {
			t.Errorf("%d are counted, want 6", s.ConnsShed)
		}
		lines := logs.All()
		if len(lines) != 1 || lines[0].ContextMap()["requests"] != uint64(6) || !strings.Contains(fmt.Sprint(lines[0].ContextMap()["last"]), "MaxConns") {
			t.Errorf("got %v, want one line that sums up 6 and says why", lines)
		}
	})
}

// TestAConnectionThatADrainClosesAsItIsTakenOverIsNotInTheLog, nor counted as upgraded or as more than one request, and its
// client is told nothing, whatever its handler says.
func TestAConnectionThatADrainClosesAsItIsTakenOverIsNotInTheLog(t *testing.T) {
	for name, say := range map[string]func(http.ResponseWriter, error){
		"nothing":    func(http.ResponseWriter, error) {},
		"WriteError": watt.WriteError,
		"http.Error": func(w http.ResponseWriter, err error) { http.Error(w, err.Error(), http.StatusInternalServerError) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := app("a", func(w http.ResponseWriter, r *http.Request) {
					watt.LongLived(r.Context()) // so that it has a seat
					<-r.Context().Done()
					time.Sleep(5 * time.Second)
					_, _, err := http.NewResponseController(w).Hijack()
					wantErr(t, err, watt.ErrUnavailable)
					say(w, err)
				})
				a.Timeout = -1
				rt, logs := logging(t, zapcore.InfoLevel, a)
				conn, err := rt.Env().Dial(t.Context(), "a")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				synctest.Wait()
				if err := rt.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				if got, err := io.ReadAll(conn); len(got) != 0 || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
				for _, line := range logs.All() {
					if strings.Contains(line.Message, "hijacked") || line.Level > zapcore.InfoLevel {
						t.Errorf("got %q %v", line.Message, line.ContextMap())
					}
				}
				if got := fmt.Sprint(statusOf(t, rt, "a").PerInstance[0].Requests); got != "map[GET:map[5xx:1]]" {
					t.Errorf("counted are %s", got)
				}
			})
		})
	}
}
