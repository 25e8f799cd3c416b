//go:build linux

package watt_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// Calls between processes share a connection, or have one of their own if they need it. What a call is, and what
// becomes of it, is the same on both ways.

// ways are both, by what makes a request take them.
func ways() map[string]func(*http.Request) {
	return map[string]func(*http.Request){
		"together": func(*http.Request) {},
		"alone":    func(req *http.Request) { req.Close = true },
	}
}

// twin has an app in a process of its own, and one in the first, which are called by main and from another process.
func twin() *watt.Runtime {
	target := watt.App{Workers: 8, Queue: -1, Timeout: 900 * time.Millisecond, Calls: []string{"book"}, New: newTarget}
	far, home := target, target
	far.Name, far.Isolation = "far", watt.OwnProcess
	home.Name = "home"
	return watt.New(
		watt.App{Name: "scout", Isolation: watt.OwnProcess, Calls: []string{"far", "home", "server", "far-server"}, New: newScout},
		far, home,
		watt.App{Name: "server", Serve: serveWords},
		watt.App{Name: "far-server", Isolation: watt.OwnProcess, Serve: serveWords},
		watt.App{Name: "book", New: newBook},
	)
}

// serveWords is an app that brings its own server.
func serveWords(ctx context.Context, _ *watt.Env, ln net.Listener) error {
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "words") })}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(ln); ctx.Err() == nil {
		return err
	}
	return nil
}

// newBook counts who has come, at any path, and tells how many at /.
func newBook(context.Context, *watt.Env) (http.Handler, error) {
	var come atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			come.Add(1)
		}
		fmt.Fprint(w, come.Load())
	}), nil
}

// newScout calls an app from its own process as main does.
func newScout(_ context.Context, env *watt.Env) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("/{way}/{app}/{path}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, tried(r.Context(), env, r.PathValue("way"), r.PathValue("app"), r.PathValue("path")))
	})
	return mux, nil
}

// tried calls an app one way, and returns what comes of it.
func tried(ctx context.Context, env *watt.Env, way, app, path string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	by, _ := ctx.Deadline()
	req := request(ctx, http.MethodGet, "http://"+app+".watt.local/"+path+"?by="+strconv.FormatInt(by.UnixNano(), 10), http.NoBody)
	req.Header.Set("X-Watt-Timeout", "1") // which only watt may say, as what follows
	req.Header.Set("X-Watt-Caller", "somebody")
	ways()[way](req)
	resp, err := env.Client.Do(req)
	if err != nil {
		return outcome(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Sprint(resp.StatusCode, " ", len(body), " ", outcome(err))
	}
	return strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", string(body), resp.Header.Get("X-Watt-Refused"), resp.Trailer.Get("X-Sum")))
}

// outcome describes the error of a call.
func outcome(err error) string {
	call, known := errors.AsType[*watt.CallError](err)
	if !known {
		return err.Error()
	}
	kinds := map[string]error{
		"overloaded": watt.ErrOverloaded, "unavailable": watt.ErrUnavailable, "died": watt.ErrInstanceDied,
		"late": context.DeadlineExceeded, "canceled": context.Canceled, "not allowed": watt.ErrNotAllowed,
	}
	said := []string{call.Caller + ">" + call.App}
	for kind, err := range kinds {
		if errors.Is(call, err) {
			said = append(said, kind)
		}
	}
	slices.Sort(said[1:])
	return fmt.Sprint(strings.Join(said, " "), " started=", call.Started, " timeout=", call.Timeout(), " retry=", call.RetryAfter >= time.Second)
}

func newTarget(_ context.Context, env *watt.Env) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("/told", func(w http.ResponseWriter, r *http.Request) {
		want, _ := strconv.ParseInt(r.URL.Query().Get("by"), 10, 64)
		by, limited := r.Context().Deadline()
		answerBy, _ := watt.AnswerBy(r.Context())
		fmt.Fprintf(w, "%q %s %t %t %v%v%v%v%v", watt.Caller(r.Context()), r.RemoteAddr, limited && by.Sub(time.Unix(0, want)).Abs() < 5*time.Second,
			time.Until(answerBy) < time.Second, r.Header["Traceparent"], r.Header["Tracestate"], r.Header["Baggage"], r.Header["X-Request-Id"], r.Header["X-Watt-Timeout"])
	})
	mux.HandleFunc("/agent", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header["User-Agent"]) })
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("on purpose") })
	mux.HandleFunc("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("/half", func(w http.ResponseWriter, _ *http.Request) {
		flushing{w}.Write([]byte("half"))
		panic("on purpose")
	})
	mux.HandleFunc("/late", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/refused", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Watt-Refused", "overloaded") // passed on from somewhere: it has been run
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/sum", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		flushing{w}.Write([]byte("of "))
		w.Header().Set("X-Sum", "7")
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		flushing{w}.Write([]byte("begun"))
		begun(r.Context(), env)
		<-r.Context().Done()
	})
	mux.HandleFunc("/hold", func(_ http.ResponseWriter, r *http.Request) {
		begun(r.Context(), env)
		<-r.Context().Done()
	})
	return mux, nil
}

// begun notes in the book that a request has begun.
func begun(ctx context.Context, env *watt.Env) { text(env.Get(ctx, "http://book.watt.local/begun")) }

// fates are what becomes of calls of a target, by its paths. They name the caller and the app, and for /told the caller's
// address and traces.
func fates() map[string]func(caller, app, address, traces string) string {
	died := func(caller, app, _, _ string) string {
		return caller + ">" + app + " died started=true timeout=false retry=false"
	}
	always := func(want string) func(_, _, _, _ string) string {
		return func(_, _, _, _ string) string { return want }
	}
	return map[string]func(caller, app, address, traces string) string{
		"told": func(caller, _, address, traces string) string {
			return fmt.Sprintf("200 %q %s.watt.local:80 true true %s[]", caller, address, traces)
		},
		"panic": always(`500 {"type":"about:blank","title":"Internal Server Error","status":500}`),
		"abort": died,
		"half":  func(caller, app, _, _ string) string { return "200 4 " + died(caller, app, "", "") },
		"late": func(caller, app, _, _ string) string {
			return caller + ">" + app + " late started=true timeout=true retry=false"
		},
		"refused": always("503"),
		"sum":     always("200 of 7"),
	}
}

func TestACallIsTheSameOnBothWaysBetweenProcesses(t *testing.T) {
	t.Parallel()
	rt := twin()
	watttest.Start(t, rt)
	header := http.Header{
		"Traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, "Tracestate": {"s=1"}, "Baggage": {"a=1"}, "X-Request-Id": {"id"},
	}
	traces := fmt.Sprintf("%v%v%v%v", header["Traceparent"], header["Tracestate"], header["Baggage"], header["X-Request-Id"])
	for way := range ways() {
		for path, fate := range fates() {
			if got, want := tried(t.Context(), rt.Env(), way, "far", path), fate("", "far", "main", "[][][][]"); got != want {
				t.Errorf("%s, far/%s by main: got %s, want %s", way, path, got, want)
			}
			for _, app := range []string{"far", "home"} {
				if got, want := scouted(t.Context(), rt, way, app, path, header), fate("scout", app, "scout", traces); got != want {
					t.Errorf("%s, %s/%s by scout: got %s, want %s", way, app, path, got, want)
				}
			}
		}
	}
}

func TestAnAppWithAServerOfItsOwnIsCalledByOtherProcesses(t *testing.T) {
	t.Parallel()
	rt := twin()
	watttest.Start(t, rt)
	for way := range ways() {
		if got := tried(t.Context(), rt.Env(), way, "far-server", "x"); got != "200 words" {
			t.Errorf("%s, by main: got %s", way, got)
		}
		for _, app := range []string{"server", "far-server"} {
			if got := scouted(t.Context(), rt, way, app, "x", http.Header{}); got != "200 words" {
				t.Errorf("%s, %s by scout: got %s", way, app, got)
			}
		}
	}
}

// scouted has the scout call an app.
func scouted(ctx context.Context, rt *watt.Runtime, way, app, path string, header http.Header) string {
	req := request(ctx, http.MethodGet, "http://scout.watt.local/"+way+"/"+app+"/"+path, http.NoBody)
	req.Header = header.Clone()
	return text(rt.Env().Client.Do(req))
}

// both calls an app by main, if that is in another process, and by the scout.
func both(rt *watt.Runtime, app string) map[string]func(ctx context.Context, way, path string) string {
	callers := map[string]func(ctx context.Context, way, path string) string{
		"scout": func(ctx context.Context, way, path string) string {
			return scouted(ctx, rt, way, app, path, http.Header{})
		},
	}
	if app != "home" {
		callers[""] = func(ctx context.Context, way, path string) string { return tried(ctx, rt.Env(), way, app, path) }
	}
	return callers
}

func TestACallOfAnotherProcessThatHasNoRoomSaysWhenToTryAgainOnBothWays(t *testing.T) {
	t.Parallel()
	rt := twin()
	setTimeouts(t, rt, time.Minute)
	for _, app := range []string{"far", "home"} {
		rt.Update(app, func(a *watt.App) { a.Workers = 1 })
	}
	watttest.Start(t, rt)
	for _, app := range []string{"far", "home"} {
		ctx, cancel := context.WithCancel(t.Context())
		held := going(ctx, rt, app+".watt.local/hold")
		soon(t, "the only worker to be taken", func() bool { return statusOf(t, rt, app).Busy == 1 })
		for way := range ways() {
			for caller, call := range both(rt, app) {
				want := caller + ">" + app + " overloaded started=false timeout=false retry=true"
				if got := call(t.Context(), way, "told"); got != want {
					t.Errorf("%s: got %s, want %s", way, got, want)
				}
			}
		}
		cancel()
		within(t, held, "the end of the call")
		soon(t, "the worker to be free", func() bool { return statusOf(t, rt, app).Busy == 0 })
	}
}

// setTimeouts gives the apps that are called another Timeout, before they start.
func setTimeouts(t *testing.T, rt *watt.Runtime, d time.Duration) {
	t.Helper()
	for _, app := range []string{"far", "home"} {
		if err := rt.Update(app, func(a *watt.App) { a.Timeout = d }); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATargetThatIsNoneConcernsItsCallAloneOnBothWays(t *testing.T) {
	t.Parallel()
	rt := twin()
	setTimeouts(t, rt, time.Minute)
	watttest.Start(t, rt)
	for _, app := range []string{"far", "home"} {
		ctx, cancel := context.WithCancel(t.Context())
		held := going(ctx, rt, app+".watt.local/hold")
		soon(t, "a call to be in progress", func() bool { return statusOf(t, rt, app).Busy == 1 })
		for way, take := range ways() {
			req := request(t.Context(), http.MethodGet, "http://"+app+".watt.local/told", http.NoBody)
			req.URL.RawPath = "%2Ftold" // what is left of /prefix%2Ftold without the prefix
			take(req)
			resp, err := rt.Env().Client.Do(req)
			if err != nil {
				t.Errorf("%s, %s: %v", way, app, err)
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusBadRequest { // as net/http's server answers
				t.Errorf("%s, %s: got %s, want 400", way, app, resp.Status)
			}
		}
		cancel()
		wantErr(t, within(t, held, "the end of the call").err, context.Canceled)
		soon(t, "the handler to have ended", func() bool { return statusOf(t, rt, app).Busy == 0 })
	}
}

func TestARequestThatIsToNameNoAgentNamesNoneOnBothWays(t *testing.T) {
	t.Parallel()
	rt := twin()
	watttest.Start(t, rt)
	for _, app := range []string{"far", "home"} {
		for way, take := range ways() {
			req := request(t.Context(), http.MethodGet, "http://"+app+".watt.local/agent", http.NoBody)
			req.Header["User-Agent"] = nil
			take(req)
			if got := text(rt.Env().Client.Do(req)); got != "[]" {
				t.Errorf("%s, %s: got %s, want []", way, app, got)
			}
		}
	}
}

func TestTheHandlerOfACallThatIsGivenUpHearsOfItOnBothWays(t *testing.T) {
	t.Parallel()
	rt := twin()
	setTimeouts(t, rt, time.Minute)
	watttest.Start(t, rt)
	for _, app := range []string{"far", "home"} {
		for way := range ways() {
			for caller, call := range both(rt, app) {
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					call(ctx, way, "hold")
				}()
				soon(t, "it to be in progress", func() bool { return statusOf(t, rt, app).Busy == 1 })
				cancel()
				within(t, ended, "the end of the call")
				soon(t, fmt.Sprintf("%s, %s by %q: the handler to have ended", way, app, caller), func() bool { return statusOf(t, rt, app).Busy == 0 })
			}
		}
	}
}

func TestACallThatAnInstanceHasBegunWhenItDiesIsNotRepeatedOnBothWays(t *testing.T) {
	t.Parallel()
	rt := twin()
	setTimeouts(t, rt, time.Minute)
	rt.Update("far", func(a *watt.App) { a.Instances = 2 })
	watttest.Start(t, rt)
	come := 0
	all := func() []watt.InstanceStatus { return statusOf(t, rt, "far").PerInstance }
	for way := range ways() {
		for caller, call := range both(rt, "far") {
			for _, path := range []string{"hold", "stream"} {
				soon(t, "both instances", func() bool { return all()[0].State == "ready" && all()[1].State == "ready" })
				got := make(chan string, 1)
				go func() { got <- call(t.Context(), way, path) }()
				come++
				soon(t, "it to have begun", func() bool { return get(t.Context(), rt, "book.watt.local/").body == strconv.Itoa(come) })
				var pid int
				soon(t, "it to be seen where", func() bool {
					for _, in := range all() {
						if in.Busy == 1 {
							pid = in.PID
						}
					}
					return pid > 1
				})
				syscall.Kill(pid, syscall.SIGKILL)
				want := caller + ">far died started=true timeout=false retry=false"
				fate := within(t, got, "the end of the call")
				if path == "stream" { // what was flushed may still have been in the process
					fate = strings.TrimPrefix(strings.TrimPrefix(fate, "200 0 "), "200 5 ")
				}
				if fate != want {
					t.Errorf("%s, %s: got %s, want %s", way, path, fate, want)
				}
				if now := get(t.Context(), rt, "book.watt.local/").body; now != strconv.Itoa(come) {
					t.Errorf("%s, %s: begun %s times, want once", way, path, now)
				}
				soon(t, "its end to be seen, before it would be taken for the next one's, or the shutdown tell of it", func() bool {
					return all()[0].Restarts["killed"]+all()[1].Restarts["killed"] == uint64(come)
				})
			}
		}
	}
}

func TestCallsOfAnAppThatIsAwayWaitAsLongAsTheQueueAllowsOnBothWays(t *testing.T) {
	t.Parallel()
	const wait = 500 * time.Millisecond
	for name, before := range map[string]func(*watt.Runtime, string){
		"its door is known": func(rt *watt.Runtime, app string) {
			for way := range ways() {
				scouted(t.Context(), rt, way, app, "told", http.Header{})
			}
		},
		"it is not": func(*watt.Runtime, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rt := twin()
			for _, app := range []string{"far", "home"} {
				rt.Update(app, func(a *watt.App) { a.Timeout, a.Queue, a.QueueTimeout = time.Minute, 100, wait })
			}
			watttest.Start(t, rt)
			for _, app := range []string{"far", "home"} {
				before(rt, app)
				if err := rt.Drain(app, 0); err != nil {
					t.Fatal(err)
				}
				for way := range ways() {
					began := time.Now()
					ended := make(chan string)
					for range 10 {
						go func() { ended <- scouted(t.Context(), rt, way, app, "told", http.Header{}) }()
					}
					for range 10 {
						want := "scout>" + app + " unavailable started=false timeout=false retry="
						if got := within(t, ended, "the end of a call"); !strings.HasPrefix(got, want) {
							t.Errorf("%s: got %s, want %s", way, got, want)
						}
					}
					if took := time.Since(began); took < wait || took > 6*wait { // one after the other they would take ten times as long
						t.Errorf("%s to %s: they took %v, want %v", way, app, took, wait)
					}
				}
			}
		})
	}
}

func TestTimeoutEndsACallOfAnInstanceThatIsStoppedOnBothWays(t *testing.T) {
	t.Parallel()
	rt := twin()
	setTimeouts(t, rt, 400*time.Millisecond)
	watttest.Start(t, rt)
	var ended []<-chan string
	var wants []string
	pid := statusOf(t, rt, "far").PerInstance[0].PID
	for way := range ways() { // so that the connections are there
		for _, call := range both(rt, "far") {
			call(t.Context(), way, "told")
		}
	}
	stop(t, pid)
	began := time.Now()
	for way := range ways() {
		for caller, call := range both(rt, "far") {
			got := make(chan string, 1)
			go func() { got <- call(t.Context(), way, "told") }()
			ended, wants = append(ended, got), append(wants, caller+">far late started=true timeout=true retry=false")
		}
	}
	for i := range ended {
		if got := within(t, ended[i], "the end of a call"); got != wants[i] {
			t.Errorf("got %s, want %s", got, wants[i])
		}
	}
	if took := time.Since(began); took > 1900*time.Millisecond { // sooner than the silence is noticed
		t.Errorf("it took %v, want 400ms", took)
	}
	syscall.Kill(pid, syscall.SIGCONT)
}

func TestAnInstanceThatEndsDoesNotWaitForOtherProcessesThatKeepTheirConnectionsOnBothWays(t *testing.T) {
	t.Parallel()
	rt := twin()
	watttest.Start(t, rt)
	for way := range ways() {
		soon(t, way+": a drain that soon ends what is kept", func() bool {
			scouted(t.Context(), rt, way, "far", "told", http.Header{})
			began := time.Now()
			err := rt.Drain("far", 0)
			took := time.Since(began)
			if err := errors.Join(err, rt.Restart("far", 0)); err != nil {
				t.Error(err)
			}
			return took < 500*time.Millisecond
		})
	}
}

// What a server has not read when it closes the connection is an error of its other end, in place of the end of the answer.
func TestTheAnswerToHeadersThatAreTooLongIsWholeOnBothWays(t *testing.T) {
	t.Parallel()
	rt := twin()
	watttest.Start(t, rt)
	for name, way := range ways() {
		req := request(t.Context(), http.MethodGet, "http://far.watt.local/agent", http.NoBody)
		req.Header.Set("X-Long", strings.Repeat("x", 4<<20))
		way(req)
		resp, err := rt.Env().Client.Do(req)
		if got := read(t, resp, err); err == nil && (resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge || got != "431 Request Header Fields Too Large") {
			t.Errorf("%s: got %d %q", name, resp.StatusCode, got)
		}
	}
}
