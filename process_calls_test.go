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
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// far has an app in a process of its own that speaks all that HTTP/1.1 has, and one that brings its own protocol; both
// are called by main, and by an app in another process.
func far() *watt.Runtime {
	return watt.New(
		watt.App{Name: "near", Isolation: watt.OwnProcess, Calls: []string{"speaker", "echo", "home"}, New: newNear},
		watt.App{Name: "speaker", Isolation: watt.OwnProcess, Timeout: 5 * time.Second, New: newSpeaker},
		watt.App{Name: "echo", Isolation: watt.OwnProcess, Serve: serveEcho},
		watt.App{Name: "home", New: newSpeaker},
	)
}

func newSpeaker(_ context.Context, env *watt.Env) (http.Handler, error) {
	calls := prometheus.NewCounter(prometheus.CounterOpts{Name: "speaker_calls_total", Help: "Calls."})
	env.Metrics.MustRegister(calls)
	ended := make(chan error, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/of", func(w http.ResponseWriter, r *http.Request) {
		calls.Inc()
		deadline, ok := r.Context().Deadline()
		fmt.Fprint(w, watt.Caller(r.Context()), " ", ok && time.Until(deadline) < time.Minute, " ",
			r.Header.Get("Traceparent"), " ", r.Header.Get("X-Watt-Timeout"))
	})
	mux.HandleFunc("/copy", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		http.NewResponseController(w).EnableFullDuplex()
		n, _ := io.Copy(flushing{w}, r.Body)
		w.Header().Set("X-Sum", strconv.FormatInt(n, 10))
	})
	mux.HandleFunc("/proto", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, " ", watt.Caller(r.Context())) })
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 20<<10)) })
	mux.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "after the hints")
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: 1\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		ended <- r.Context().Err()
	})
	mux.HandleFunc("/ended", func(w http.ResponseWriter, r *http.Request) {
		select {
		case err := <-ended:
			fmt.Fprint(w, err)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/upgrade", func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			watt.WriteError(w, err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
		text, _ := rw.ReadString('\n')
		io.WriteString(conn, "you said "+text)
	})
	return mux, nil
}

// flushing flushes after every write.
type flushing struct{ w http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	http.NewResponseController(f.w).Flush()
	return n, err
}

func serveEcho(ctx context.Context, _ *watt.Env, ln net.Listener) error {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		open.Go(func() {
			defer conn.Close()
			fmt.Fprintf(conn, "hello %s\n", conn.RemoteAddr())
			io.Copy(conn, conn)
		})
	}
}

// newNear does from its own process what the tests do from main's, and says how that went.
func newNear(_ context.Context, env *watt.Env) (http.Handler, error) {
	mux := http.NewServeMux()
	for _, app := range []string{"speaker", "home"} {
		mux.HandleFunc("/"+app+"/{what}", func(w http.ResponseWriter, r *http.Request) {
			for _, s := range speeches() {
				if s.name == r.PathValue("what") {
					fmt.Fprint(w, s.speak(r.Context(), env, app))
				}
			}
		})
	}
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, echoed(r.Context(), env)) })
	mux.HandleFunc("/nowhere", func(w http.ResponseWriter, r *http.Request) {
		_, unknown := env.Get(r.Context(), "http://nobody.watt.local/")
		_, refused := env.Dial(r.Context(), "near")
		fmt.Fprint(w, errors.Is(unknown, watt.ErrNoSuchApp), errors.Is(refused, watt.ErrNotAllowed))
	})
	return mux, nil
}

// speeches are ways to call an app, and what comes of them.
func speeches() []speech {
	return []speech{
		{"caller", func(ctx context.Context, env *watt.Env, app string) string {
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			req := request(ctx, http.MethodGet, "http://"+app+".watt.local/of", http.NoBody)
			req.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
			resp, err := env.Client.Do(req)
			return env.App + ":" + text(resp, err)
		}, "%[1]s:%[1]s true 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 "},
		{"copy", func(ctx context.Context, env *watt.Env, app string) string {
			r, w := io.Pipe()
			go io.WriteString(w, "one\n")
			resp, err := env.Client.Do(request(ctx, http.MethodPost, "http://"+app+".watt.local/copy", r))
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close()
			said := bufio.NewReader(resp.Body)
			one, _ := said.ReadString('\n') // it comes back before the next is sent
			io.WriteString(w, "two\n")
			two, _ := said.ReadString('\n')
			w.Close()
			io.Copy(io.Discard, said)
			return one + two + resp.Trailer.Get("X-Sum")
		}, "one\ntwo\n8"},
		{"grpc", func(ctx context.Context, env *watt.Env, app string) string {
			req := request(ctx, http.MethodPost, "http://"+app+".watt.local/proto", http.NoBody)
			req.Header.Set("Content-Type", "application/grpc")
			resp, err := env.Client.Do(req)
			return text(resp, err)
		}, "HTTP/2.0 %[1]s"},
		{"hints", func(ctx context.Context, env *watt.Env, app string) string {
			var hints []string
			ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, h.Get("Link")))
				return nil
			}})
			resp, err := env.Get(ctx, "http://"+app+".watt.local/hints")
			return text(resp, err) + fmt.Sprint(hints)
		}, "after the hints[103</style.css>]"},
		{"events", func(ctx context.Context, env *watt.Env, app string) string {
			leaving, leave := context.WithCancel(ctx)
			defer leave()
			resp, err := env.Get(leaving, "http://"+app+".watt.local/events")
			if err != nil {
				return err.Error()
			}
			first, _ := bufio.NewReader(resp.Body).ReadString('\n')
			leave()
			resp.Body.Close()
			resp, err = env.Get(ctx, "http://"+app+".watt.local/ended")
			return first + text(resp, err)
		}, "data: 1\ncontext canceled"},
		{"upgrade", func(ctx context.Context, env *watt.Env, app string) string {
			resp, err := env.Client.Do(upgrading(ctx, "http://"+app+".watt.local/upgrade"))
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close()
			conn, ok := resp.Body.(io.ReadWriter)
			if !ok {
				return resp.Status
			}
			io.WriteString(conn, "hello\n")
			said, _ := io.ReadAll(conn)
			return string(said)
		}, "you said hello\n"},
	}
}

type speech struct {
	name  string
	speak func(ctx context.Context, env *watt.Env, app string) string
	want  string
}

// echoed returns what a raw connection to echo says.
func echoed(ctx context.Context, env *watt.Env) string {
	conn, err := env.Dial(ctx, "echo")
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	io.WriteString(conn, "ping\n")
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	said, _ := io.ReadAll(conn)
	return string(said)
}

func TestWhatHTTPIsReachesOtherProcessesAndComesFromThem(t *testing.T) {
	t.Parallel()
	rt := far()
	top := watttest.Start(t, rt)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, s := range speeches() {
		want := func(app string) string {
			if strings.Contains(s.want, "%") {
				return fmt.Sprintf(s.want, app)
			}
			return s.want
		}
		if got := s.speak(ctx, rt.Env(), "speaker"); got != want("") {
			t.Errorf("%s, to a child: got %q, want %q", s.name, got, want(""))
		}
		for _, app := range []string{"speaker", "home"} {
			if _, got := top.Get("http://near.watt.local/" + app + "/" + s.name); got != want("near") {
				t.Errorf("%s, from a child to %s: got %q, want %q", s.name, app, got, want("near"))
			}
		}
	}
	if got := echoed(ctx, rt.Env()); got != "hello main.watt.local:80\nping\n" {
		t.Errorf("to a child: got %q", got)
	}
	if _, got := top.Get("http://near.watt.local/echo"); got != "hello near.watt.local:80\nping\n" {
		t.Errorf("from a child: got %q", got)
	}
	if _, got := top.Get("http://near.watt.local/nowhere"); got != "true true" {
		t.Errorf("what may not be called: got %q", got)
	}
}

// elsewhereVariable has the URL of an app elsewhere, for children too.
const elsewhereVariable = "WATT_TEST_ELSEWHERE"

// outpost has an app in a process of its own that calls one elsewhere.
func outpost() *watt.Runtime {
	return watt.New(
		watt.App{Name: "outpost", Isolation: watt.OwnProcess, Calls: []string{"elsewhere"}, New: passing("elsewhere")},
		watt.App{Name: "elsewhere", URL: os.Getenv(elsewhereVariable)},
	)
}

func TestAnAppInAProcessOfItsOwnCallsOneElsewhere(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }))
	defer elsewhere.Close()
	t.Setenv(elsewhereVariable, elsewhere.URL)
	top := watttest.Start(t, outpost())
	if status, body := top.Get("http://outpost.watt.local/far"); status != http.StatusOK || body != "/far" {
		t.Errorf("got %d %s", status, body)
	}
}

func TestADeadlineIsKeptInAnotherProcess(t *testing.T) {
	t.Parallel()
	rt := far()
	watttest.Start(t, rt)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r := get(ctx, rt, "speaker.watt.local/ended")
	wantErr(t, r.err, context.DeadlineExceeded)
	soon(t, "the handler to have ended too", func() bool { return statusOf(t, rt, "speaker").Busy == 0 })
}

func TestWhatChildrenHaveRegisteredIsGathered(t *testing.T) {
	t.Parallel()
	rt := far()
	top := watttest.Start(t, rt)
	for range 3 {
		top.Get("http://speaker.watt.local/of")
	}
	top.Get("http://home.watt.local/of")
	counts := func() map[string]float64 {
		families, err := rt.Gather()
		if err != nil {
			t.Error(err)
		}
		found := make(map[string]float64)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "speaker_calls_total" {
					found[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
		return found
	}
	if got := counts(); got["speaker"] != 3 || got["home"] != 1 {
		t.Errorf("got %v, want 3 and 1", got)
	}
	pid := statusOf(t, rt, "speaker").PerInstance[0].PID
	stop(t, pid)
	defer syscall.Kill(pid, syscall.SIGCONT)
	began := time.Now()
	if got := counts(); len(got) != 1 || got["home"] != 1 {
		t.Errorf("got %v, want home's alone", got)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a stopped child has held it up for %v", took)
	}
}

func TestNoneOf200QueuedConnectionsIsLostWhenTheirInstanceIsRemoved(t *testing.T) {
	t.Parallel()
	rt := hasty()
	top := watttest.Start(t, rt)
	if err := rt.Update("ward", func(a *watt.App) { a.Instances = 2 }); err != nil {
		t.Fatal(err)
	}
	pid := statusOf(t, rt, "ward").PerInstance[1].PID
	stop(t, pid)
	var conns []net.Conn
	for range 400 { // half of them wait for the one that is stopped
		conn := dialTCP(t, strings.TrimPrefix(top.URL("ward"), "http://"))
		io.WriteString(conn, "GET /well HTTP/1.1\r\nHost: ward\r\nConnection: close\r\n\r\n")
		conns = append(conns, conn)
	}
	if err := rt.Update("ward", func(a *watt.App) { a.Instances = 1 }); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("got %v, want to hear that it was killed", err)
	}
	for i, conn := range conns {
		conn.SetDeadline(time.Now().Add(patience)) // which was from when it was dialled
		answer, err := io.ReadAll(conn)
		if err != nil || !strings.HasSuffix(string(answer), "\r\n\r\n0") {
			t.Fatalf("connection %d: got %q, %v", i, answer, err)
		}
	}
}

func TestStreamsAndRawConnectionsOfAChildThatFindNoSeatAreCounted(t *testing.T) {
	t.Parallel()
	rt := far()
	rt.Update("speaker", func(a *watt.App) { a.MaxConns = -1 })
	watttest.Start(t, rt)
	if r := get(t.Context(), rt, "speaker.watt.local/events"); r.status != http.StatusServiceUnavailable {
		t.Errorf("got %+v, want 503", r)
	}
	_, err := rt.Env().Dial(t.Context(), "speaker")
	wantErr(t, err, watt.ErrOverloaded)
	soon(t, "the page to show both", func() bool { return statusOf(t, rt, "speaker").ConnsShed == 2 })
	if err := rt.Restart("speaker", 0); err != nil {
		t.Error(err)
	}
	if n := statusOf(t, rt, "speaker").ConnsShed; n != 2 {
		t.Errorf("after a restart there are %d, want 2", n)
	}
}

func TestCallsWaitWhileTheOnlyInstanceIsRestarted(t *testing.T) {
	t.Parallel()
	rt := far()
	rt.Update("speaker", func(a *watt.App) { a.QueueTimeout, a.Timeout = time.Minute, time.Minute }) // the detector makes it slow
	watttest.Start(t, rt)
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	var answered atomic.Int64
	for path, want := range map[string]string{"speaker.watt.local/proto": "HTTP/1.1 ", "near.watt.local/speaker/hints": "after the hints"} {
		for range 4 {
			calls.Go(func() {
				for ctx.Err() == nil {
					if r := get(t.Context(), rt, path); r.err != nil || !strings.HasPrefix(r.body, want) {
						t.Errorf("%s: got %q, %v", path, r.body, r.err)
					}
					answered.Add(1)
				}
			})
		}
	}
	for range 5 {
		if err := rt.Restart("speaker", 0); err != nil {
			t.Error(err)
		}
		more(t, "calls to be answered again", &answered, 100)
	}
	cancel()
	calls.Wait()
}

func TestCallsOfAnAppThatIsAwayWaitAtTheSameTime(t *testing.T) {
	t.Parallel()
	rt := far()
	rt.Update("speaker", func(a *watt.App) { a.QueueTimeout = time.Second })
	watttest.Start(t, rt)
	if err := rt.Drain("speaker", 0); err != nil {
		t.Fatal(err)
	}
	const path = "near.watt.local/speaker/hints"
	alone := get(t.Context(), rt, path)
	many := make([]<-chan result, 16)
	for i := range many {
		many[i] = going(t.Context(), rt, path)
	}
	for _, c := range many {
		if r := <-c; r.err != nil || !strings.Contains(r.body, watt.ErrUnavailable.Error()) || r.took > 8*alone.took { // one after the other the last would take 16 times as long
			t.Errorf("got %q, %v after %v, alone after %v", r.body, r.err, r.took, alone.took)
		}
	}
}

func TestAnInstanceThatEndsAnswersWhatHasReachedIt(t *testing.T) {
	t.Parallel()
	rt := far()
	watttest.Start(t, rt)
	for range 5 {
		var callers sync.WaitGroup
		for range 30 {
			conn, err := rt.Env().Dial(t.Context(), "speaker")
			if err != nil {
				t.Fatal(err)
			}
			callers.Go(func() {
				defer conn.Close()
				for answers := bufio.NewReader(conn); ; {
					if _, err := io.WriteString(conn, "GET /proto HTTP/1.1\r\nHost: speaker\r\n\r\n"); err != nil {
						return // nobody has seen it
					}
					resp, err := http.ReadResponse(answers, nil)
					if read(t, resp, err); err != nil {
						return
					}
					if resp.StatusCode != http.StatusOK {
						if refused := resp.Header.Get("X-Watt-Refused"); refused != "unavailable" {
							t.Errorf("got %s, %q", resp.Status, refused)
						}
						return
					}
				}
			})
		}
		if err := rt.Restart("speaker", 0); err != nil {
			t.Error(err)
		}
		callers.Wait()
	}
}

func TestAnInstanceThatEndsDoesNotWaitForCallersThatKeepTheirConnections(t *testing.T) {
	t.Parallel()
	rt := far()
	watttest.Start(t, rt)
	soon(t, "a drain that soon ends what is kept", func() bool {
		conn, err := rt.Env().Dial(t.Context(), "speaker")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		began, drained := time.Now(), make(chan error, 1)
		go func() { drained <- rt.Drain("speaker", 0) }()
		io.Copy(io.Discard, conn)
		took := time.Since(began)
		if err := errors.Join(<-drained, rt.Restart("speaker", 0)); err != nil {
			t.Error(err)
		}
		return took < 500*time.Millisecond
	})
}

func TestTheBodyOfACallThatNoProcessTakesIsClosed(t *testing.T) {
	t.Parallel()
	rt := tight()
	rt.Update("pair", func(a *watt.App) { a.Instances = 1 })
	watttest.Start(t, rt)
	held := going(t.Context(), rt, "clerk.watt.local/hold")
	soon(t, "the only worker to be taken", busyAndQueued(t, rt, 1, 0))
	gone, leave := context.WithCancel(t.Context())
	leave()
	sibling := statusOf(t, rt, "pair").PerInstance[0].PID
	for _, step := range []struct {
		name   string
		ctx    context.Context
		before func()
	}{
		{"full", t.Context(), func() {}},
		{"given up", gone, func() {}},
		{"silent", t.Context(), func() {
			stop(t, sibling)
			soon(t, "its silence", func() bool { return statusOf(t, rt, "pair").PerInstance[0].State == "silent" })
		}},
	} {
		step.before()
		var bodies []*closing
		body := func() (io.ReadCloser, error) {
			bodies = append(bodies, &closing{Reader: strings.NewReader("unread")})
			return bodies[len(bodies)-1], nil
		}
		req := request(step.ctx, http.MethodPost, "http://pair.watt.local/who", http.NoBody)
		req.Body, _ = body()
		req.ContentLength, req.GetBody = -1, body
		_, err := rt.Env().Client.Transport.RoundTrip(req)
		if call, is := errors.AsType[*watt.CallError](err); !is || call.Started {
			t.Errorf("%s: got %v, want that the call has not started", step.name, err)
		}
		for _, b := range bodies {
			soon(t, step.name+": the body to be closed", func() bool { return b.times.Load() == 1 })
		}
	}
	syscall.Kill(sibling, syscall.SIGCONT)
	get(t.Context(), rt, "gate.watt.local/open")
	within(t, held, "the end of the first call")
}

func TestACallToAProcessWhoseBodyFailsIsSentOnce(t *testing.T) {
	t.Parallel()
	rt := pair()
	watttest.Start(t, rt)
	for _, met := range []error{
		&watt.CallError{App: "other", Err: watt.ErrOverloaded}, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, io.ErrUnexpectedEOF,
	} {
		req := request(t.Context(), http.MethodPost, "http://pair.watt.local/read", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(met)))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("all of it")), nil }
		resp, err := rt.Env().Client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		if call, is := errors.AsType[*watt.CallError](err); !is || call.App != "pair" || !call.Started || !errors.Is(err, met) {
			t.Errorf("got %v, want %v of a call that has started", err, met)
		}
	}
}

func TestADialThatMeetsTheEndOfAnInstanceReachesAnother(t *testing.T) {
	t.Parallel()
	rt := pair()
	watttest.Start(t, rt)
	var dialers sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 4 {
		dialers.Go(func() {
			for ctx.Err() == nil {
				conn, err := rt.Env().Dial(ctx, "pair")
				if err == nil {
					conn.Close()
				} else if ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		var victim watt.InstanceStatus
		soon(t, "both to be ready", func() bool {
			instances := statusOf(t, rt, "pair").PerInstance
			victim = instances[1]
			return instances[0].State == "ready" && victim.State == "ready"
		})
		syscall.Kill(victim.PID, syscall.SIGKILL)
		soon(t, "its end", func() bool { return statusOf(t, rt, "pair").PerInstance[1].PID != victim.PID })
	}
	cancel()
	dialers.Wait()
}

func TestACallOutlastsAnyNumberOfRestarts(t *testing.T) {
	t.Parallel()
	rt := far()
	rt.Update("speaker", func(a *watt.App) { a.QueueTimeout, a.Timeout = time.Minute, time.Minute })
	watttest.Start(t, rt)
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			for ctx.Err() == nil {
				if r := get(t.Context(), rt, "speaker.watt.local/proto"); r.err != nil {
					t.Error(r.err)
				}
			}
		})
	}
	for range 20 {
		if err := rt.Restart("speaker", 0); err != nil {
			t.Error(err)
		}
	}
	cancel()
	calls.Wait()
}

// killedAgain kills the speaker's only instance four times, and each time calls eight times while it is away.
func killedAgain(t *testing.T, call func(rt *watt.Runtime)) {
	t.Helper()
	rt := far()
	rt.Update("speaker", func(a *watt.App) { a.QueueTimeout, a.Timeout = time.Minute, time.Minute })
	watttest.Start(t, rt)
	for range 4 { // the pause before the next doubles each time
		var pid int
		soon(t, "the next", func() bool { pid = statusOf(t, rt, "speaker").PerInstance[0].PID; return pid > 1 })
		syscall.Kill(pid, syscall.SIGKILL)
		for range 8 {
			call(rt)
		}
	}
}

func TestCallsThatAKilledInstanceHasNotSeenWaitForTheNext(t *testing.T) {
	t.Parallel()
	killedAgain(t, func(rt *watt.Runtime) {
		if r := get(t.Context(), rt, "speaker.watt.local/proto"); r.err != nil && !errors.Is(r.err, watt.ErrInstanceDied) {
			t.Errorf("got %v", r.err)
		}
	})
}

func TestAnUploadThatNoProcessHasReadOfWaitsForTheNext(t *testing.T) {
	t.Parallel()
	killedAgain(t, func(rt *watt.Runtime) {
		body := &closing{Reader: strings.NewReader("word")}
		resp, err := rt.Env().Client.Do(request(t.Context(), http.MethodPost, "http://speaker.watt.local/copy", body))
		if got := text(resp, err); got != "word" && !errors.Is(err, watt.ErrInstanceDied) {
			t.Errorf("got %q", got)
		}
		soon(t, "the body to be closed", func() bool { return body.times.Load() == 1 })
	})
}

func TestDialsThatMeetTheEndOfAllInstancesWaitForTheNext(t *testing.T) {
	t.Parallel()
	rt := far()
	rt.Update("echo", func(a *watt.App) { a.Instances, a.QueueTimeout = 6, time.Minute })
	watttest.Start(t, rt)
	for range 3 {
		var all []watt.InstanceStatus
		soon(t, "all to be there", func() bool {
			all = statusOf(t, rt, "echo").PerInstance
			return !slices.ContainsFunc(all, func(in watt.InstanceStatus) bool { return in.PID <= 1 || in.State != "ready" })
		})
		for _, in := range all {
			syscall.Kill(in.PID, syscall.SIGKILL)
		}
		for range 8 {
			conn, err := rt.Env().Dial(t.Context(), "echo")
			if err != nil {
				t.Error(err)
				continue
			}
			conn.Close()
		}
		soon(t, "them to be missed", func() bool { // else the shutdown tells of the kills
			return !slices.ContainsFunc(statusOf(t, rt, "echo").PerInstance, func(in watt.InstanceStatus) bool { return in.PID == all[in.Instance].PID })
		})
	}
}

func TestADialWhoseTimeIsUpSaysNothingElse(t *testing.T) {
	rt := far()
	watttest.Start(t, rt)
	late, stop := context.WithTimeout(t.Context(), 0)
	defer stop()
	gone, leave := context.WithCancel(t.Context())
	leave()
	for ctx, want := range map[context.Context]error{late: context.DeadlineExceeded, gone: context.Canceled} {
		for _, app := range []string{"speaker", "echo"} {
			_, err := rt.Env().Dial(ctx, app)
			if _, is := errors.AsType[*watt.CallError](err); !is || !errors.Is(err, want) || errors.Is(err, watt.ErrUnavailable) {
				t.Errorf("%s: got %v, want %v", app, err, want)
			}
		}
	}
}

func TestLongAnswersTakeAConnectionOfTheirOwn(t *testing.T) {
	rt := far()
	watttest.Start(t, rt)
	var conns []net.Conn
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { conns = append(conns, info.Conn) }})
	for _, path := range []string{"proto", "long", "long", "long", "proto"} {
		resp, err := rt.Env().Client.Do(request(ctx, http.MethodGet, "http://speaker.watt.local/"+path, http.NoBody))
		read(t, resp, err)
	}
	if len(conns) != 5 || conns[1] != conns[0] || conns[2] == conns[0] || conns[3] != conns[2] || conns[4] != conns[0] {
		t.Errorf("got %v", conns)
	}
}

func TestACallThatOutlastsTheRuntimeFails(t *testing.T) {
	rt := farm()
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	began, over, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		close(began)
		<-over
	}})
	go func() {
		resp, err := rt.Env().Client.Do(request(ctx, http.MethodGet, "http://mill.watt.local/who", http.NoBody))
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	within(t, began, "the call to have a connection")
	if err := rt.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	close(over)
	wantErr(t, within(t, done, "the end of the call"), watt.ErrUnavailable)
}
