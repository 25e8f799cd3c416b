package watt_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/org/watt"
)

// caller is an app that does nothing but call; the test calls as it does, by its Env.
func caller(env **watt.Env, calls ...string) watt.App {
	return watt.App{Name: "caller", Calls: calls, New: func(_ context.Context, e *watt.Env) (http.Handler, error) {
		*env = e
		return http.NotFoundHandler(), nil
	}}
}

// full is an app whose only worker is taken until the test ends, and that has no queue.
func full() (a watt.App, busy chan struct{}) {
	busy = make(chan struct{}, 1)
	a = app("full", func(_ http.ResponseWriter, r *http.Request) {
		busy <- struct{}{}
		<-r.Context().Done()
	})
	a.Workers, a.Queue = 1, -1
	return a, busy
}

// occupy takes the only worker of full.
func occupy(t *testing.T, rt *watt.Runtime, busy <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	going(ctx, rt, "full.watt.local/")
	<-busy
}

// wantCall fails the test unless err is what a failed call has to be, and returns it.
func wantCall(t *testing.T, err error, app string, want error, started bool) *watt.CallError {
	t.Helper()
	wantErr(t, err, want)
	var call *watt.CallError
	if !errors.As(err, &call) {
		t.Fatalf("%v is no CallError", err)
	}
	if call.Caller != "caller" || call.App != app || call.Started != started || call.Status != 0 {
		t.Errorf("got %q calls %q, started %t, status %d: %v", call.Caller, call.App, call.Started, call.Status, err)
	}
	timeout := errors.Is(want, context.DeadlineExceeded)
	if call.Timeout() != timeout {
		t.Errorf("Timeout() is %t: %v", !timeout, err)
	}
	return call
}

// wantAnswer fails the test unless WriteError answers err so, without saying why.
func wantAnswer(t *testing.T, err error, want int) {
	t.Helper()
	w := httptest.NewRecorder()
	w.Header().Set("Content-Length", "5")
	watt.WriteError(w, err)
	checkProblem(t, w.Result(), want)
}

// checkProblem checks an answer of watt's own.
func checkProblem(t *testing.T, resp *http.Response, want int) {
	t.Helper()
	body := read(t, resp, nil)
	after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if retry := err == nil && after >= 1; resp.StatusCode != want || retry != (want == http.StatusServiceUnavailable) {
		t.Errorf("got %d, Retry-After %q; want %d", resp.StatusCode, resp.Header.Get("Retry-After"), want)
	}
	var problem struct {
		Type, Title string
		Status      int
	}
	err = json.Unmarshal([]byte(body), &problem)
	if err != nil || problem.Status != want || problem.Title != http.StatusText(want) || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %q, %q", resp.Header.Get("Content-Type"), body)
	}
	if strings.Contains(body, "watt") || strings.Contains(body, "secret") {
		t.Errorf("the answer tells too much: %s", body)
	}
}

func TestACallThatIsRefusedHasNotStarted(t *testing.T) {
	a, busy := full()
	var env *watt.Env
	rt := start(t, caller(&env, "full"), a, app("other", sayHello))
	occupy(t, rt, busy)
	for name, want := range map[string]struct {
		err    error
		status int
	}{
		"nobody": {watt.ErrNoSuchApp, http.StatusBadGateway},
		"other":  {watt.ErrNotAllowed, http.StatusForbidden},
		"full":   {watt.ErrOverloaded, http.StatusServiceUnavailable},
	} {
		resp, err := env.Get(t.Context(), "http://"+name+".watt.local/")
		if err == nil {
			resp.Body.Close()
		}
		var outer *url.Error
		if !errors.As(err, &outer) || outer.Timeout() {
			t.Errorf("%s: got %v", name, err)
		}
		call := wantCall(t, err, name, want.err, false)
		if name == "full" && call.RetryAfter <= 0 {
			t.Error("full: there is no RetryAfter")
		}
		wantAnswer(t, err, want.status)
		wantErr(t, env.Check(name), want.err)
	}
}

func TestTheErrorOfACallSaysWhatToDo(t *testing.T) {
	transport := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = transport })
	http.DefaultTransport = &http.Transport{DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
		return nil, &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}
	}}
	rt := start(t, app("web", sayHello), working("users", func(a *watt.App) { a.Timeout = time.Millisecond }))
	want := func(url, text string) {
		t.Helper()
		if r := get(t.Context(), rt, url); r.err == nil || !strings.HasSuffix(r.err.Error(), text) {
			t.Errorf("got error %v, want …%s", r.err, text)
		}
	}
	want("user.watt.local/", "watt: call to user: no such app: there are users, web")
	want("Users/", "no such host: did you mean http://users.watt.local?")
	want("elsewhere/", "no such host")
	want("users.watt.local/1m", "watt: call to users: its Timeout of 1ms has passed: context deadline exceeded")
	_, err := rt.Env().Get(t.Context(), "https://users.watt.local/")
	if err == nil || !strings.HasSuffix(err.Error(), `the mesh speaks http, not "https": did you mean http://users.watt.local?`) {
		t.Errorf("got error %v", err)
	}
	many := make([]watt.App, 50)
	for i := range many {
		many[i] = app(fmt.Sprintf("app%02d", i), sayHello)
	}
	rt = start(t, many...)
	want("app.watt.local/", "app18, app19, …")
}

func TestTheErrorOfACallHasTheNamesThatAreKnown(t *testing.T) {
	for want, e := range map[string]*watt.CallError{
		"watt: call from web to users: overloaded": {Caller: "web", App: "users", Err: watt.ErrOverloaded},
		"watt: call to users: status 404":          {App: "users", Status: http.StatusNotFound},
		"watt: call: EOF":                          {Err: io.EOF}, // of a program's own, about what is no app
	} {
		if got := e.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAnAppThatIsDownIsUnavailableAfterItsQueueTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var env *watt.Env
		fail := make(chan struct{})
		down := watt.App{Name: "down", Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
			select {
			case <-fail: // closed: every life after the first is short
				return errors.New("secret")
			default:
			}
			go func() { _, _ = ln.Accept() }()
			select {
			case <-fail:
				return errors.New("secret")
			case <-ctx.Done():
				return nil
			}
		}}
		down.QueueTimeout, down.MaxRestarts = 50*time.Millisecond, -1
		start(t, caller(&env, "down"), down)
		close(fail)
		time.Sleep(time.Hour) // by now the pauses are long
		began := time.Now()
		_, err := env.Get(t.Context(), "http://down.watt.local/")
		wantCall(t, err, "down", watt.ErrUnavailable, false)
		wantAnswer(t, err, http.StatusServiceUnavailable)
		if took := time.Since(began); took > down.QueueTimeout+time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

func TestADeadlineThatPassesIsDeadlineExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var env *watt.Env
		slow := working("slow", func(a *watt.App) { a.Timeout = 2 * time.Second })
		rt := start(t, caller(&env, "slow", "full"), slow, working("full", func(a *watt.App) { a.Workers = 1 }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := env.Get(ctx, "http://slow.watt.local/1h") // the caller's
		wantCall(t, err, "slow", context.DeadlineExceeded, true)
		wantAnswer(t, err, http.StatusGatewayTimeout)
		var outer *url.Error
		if !errors.As(err, &outer) || !outer.Timeout() {
			t.Errorf("the client's error is no timeout: %v", err)
		}
		_, err = env.Get(t.Context(), "http://slow.watt.local/1h") // the callee's
		wantCall(t, err, "slow", context.DeadlineExceeded, true)

		going(t.Context(), rt, "full.watt.local/10s")
		synctest.Wait()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		_, err = env.Get(ctx, "http://full.watt.local/1s") // it waited, and was not run
		wantCall(t, err, "full", context.DeadlineExceeded, false)
	})
}

// cut is an app that cuts its connections: after some bytes, or before.
func cut(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/panic":
		panic("secret")
	case "/late":
		w.WriteHeader(http.StatusAccepted)
		w.Write([]byte("some"))
		http.NewResponseController(w).Flush()
		panic("secret")
	case "/abort":
		panic(http.ErrAbortHandler)
	case "/upgrade":
		_, _, _ = http.NewResponseController(w).Hijack()
		panic("secret")
	}
	io.WriteString(w, "fine")
}

func TestNoHandlerCanPassForTheDoor(t *testing.T) {
	var env *watt.Env
	start(t, caller(&env, "proxy"), app("proxy", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Watt-Refused", "overloaded") // passed on from somewhere: the request may have been run
		w.Header()["x-watt-refused"] = []string{"overloaded"}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	for _, contentType := range []string{"text/plain", "application/grpc"} {
		req := request(t.Context(), http.MethodPost, "http://proxy.watt.local/", nil)
		req.Header.Set("Content-Type", contentType)
		resp, err := env.Client.Do(req)
		read(t, resp, err)
	}
}

func TestAPanicIsAnswered500OrCutsTheConnectionAndTheAppGoesOn(t *testing.T) {
	var env *watt.Env
	rt := start(t, caller(&env, "cut"), app("cut", cut))
	for range 3 {
		resp, err := env.Get(t.Context(), "http://cut.watt.local/panic")
		if err != nil {
			t.Fatal(err)
		}
		checkProblem(t, resp, http.StatusInternalServerError)

		resp, err = env.Get(t.Context(), "http://cut.watt.local/late")
		if err != nil || resp.StatusCode != http.StatusAccepted {
			t.Fatal(resp, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "some" {
			t.Errorf("got %q", body)
		}
		wantCall(t, err, "cut", watt.ErrInstanceDied, true)
		wantAnswer(t, err, http.StatusBadGateway)

		for _, path := range []string{"abort", "upgrade"} {
			_, err = env.Client.Do(upgrading(t.Context(), "http://cut.watt.local/"+path))
			wantCall(t, err, "cut", watt.ErrInstanceDied, true)
		}
		resp, err = env.Get(t.Context(), "http://cut.watt.local/")
		if got := read(t, resp, err); got != "fine" {
			t.Errorf("afterwards: got %q", got)
		}
	}
	soon(t, "9 panics, nothing busy and no restart", func() bool {
		s := statusOf(t, rt, "cut")
		return s.Panics == 9 && s.Busy == 0 && s.Conns == 0 && s.Restarts == 0
	})
}

func TestTheMeshRepeatsNothingThatWasStarted(t *testing.T) {
	runs := make(chan string, 100)
	h := func(w http.ResponseWriter, r *http.Request) {
		runs <- r.URL.Path
		cut(w, r)
	}
	var env *watt.Env
	two := app("cut", h)
	two.Instances = 2
	serve := watt.App{Name: "own", Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
		server := &http.Server{Handler: http.HandlerFunc(h)}
		defer context.AfterFunc(ctx, func() { server.Close() })()
		_ = server.Serve(ln)
		return nil
	}}
	start(t, caller(&env, "cut", "own"), two, serve)
	for _, name := range []string{"cut", "own"} {
		resp, err := env.Get(t.Context(), "http://"+name+".watt.local/")
		read(t, resp, err) // the next call finds a connection that was used before
		_, err = env.Get(t.Context(), "http://"+name+".watt.local/abort")
		wantCall(t, err, name, watt.ErrInstanceDied, true)
		if n := len(runs); n != 2 {
			t.Errorf("%s: %d requests were run, want 2", name, n)
		}
		for len(runs) > 0 {
			<-runs
		}
	}
}

func TestTheMeshPicksAnotherInstanceWhileNothingWasStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("two", func(a *watt.App) { a.Instances, a.QueueTimeout, a.Queue = 2, -1, -1 }))
		long := going(t.Context(), rt, "two.watt.local/5s") // keeps instance 0 in its drain
		synctest.Wait()
		restarted := make(chan error, 1)
		go func() { restarted <- rt.Restart("two", 0) }()
		synctest.Wait()
		for range 10 {
			if r := get(t.Context(), rt, "two.watt.local/100ms"); r.err != nil || r.status != http.StatusOK {
				t.Errorf("got %d, %v", r.status, r.err)
			}
		}
		if err := <-restarted; err != nil {
			t.Error(err)
		}
		if r := <-long; r.err != nil || r.body != "/5s" {
			t.Errorf("what was in progress came to %q, %v", r.body, r.err)
		}
	})
}

func TestJSONMapsStatusesAndClosesTheBody(t *testing.T) {
	a := app("users", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.URL.Path[1:])
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(code)
		if code != http.StatusNoContent {
			fmt.Fprint(w, `{"name": "secret"}`, strings.Repeat(" ", 1<<18)) // more than a pipe holds
		}
	})
	a.Workers, a.Queue = 1, -1
	rt := start(t, a)
	for code, want := range map[int]int{
		200: 0, 201: 0, 299: 0, 300: 502, 304: 502, 400: 400, 401: 401, 404: 404, 418: 418, 429: 429, 499: 499,
		500: 502, 501: 502, 502: 502, 503: 503, 504: 504, 599: 502,
	} {
		v, err := watt.JSON[struct{ Name string }](rt.Env().Get(t.Context(), "http://users.watt.local/"+strconv.Itoa(code)))
		var call *watt.CallError
		switch {
		case want == 0 && (err != nil || v.Name != "secret"):
			t.Errorf("%d: got %v, %v", code, v, err)
		case want != 0 && (!errors.As(err, &call) || call.Status != code || call.App != "users" || !call.Started):
			t.Errorf("%d: got %v", code, err)
		case want != 0:
			if call.RetryAfter != 7*time.Second {
				t.Errorf("%d: RetryAfter is %v", code, call.RetryAfter)
			}
			wantAnswerStatus(t, err, want)
		}
		// The handler ends when the body is closed, and the only worker is back soon after.
		soon(t, "the worker", func() bool { return statusOf(t, rt, "users").Busy == 0 })
	}
}

func TestTheChallengeOfA401IsPassedOn(t *testing.T) {
	rt := start(t, app("a", func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Www-Authenticate"] = []string{`Bearer realm="shop"`, "Basic"}
		code, _ := strconv.Atoi(r.URL.Path[1:])
		w.WriteHeader(code)
	}))
	for code, want := range map[string]string{"401": `Bearer realm="shop", Basic`, "403": "", "500": ""} {
		_, err := watt.JSON[int](rt.Env().Get(t.Context(), "http://a.watt.local/"+code))
		w := httptest.NewRecorder()
		watt.WriteError(w, err)
		if got := w.Header().Get("WWW-Authenticate"); got != want {
			t.Errorf("%s: got %d with %q, want %q", code, w.Code, got, want)
		}
	}
}

func TestRetryAfterIsAnHourAtMost(t *testing.T) {
	rt := start(t, app("a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", r.URL.Path[1:])
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	for said, want := range map[string]time.Duration{
		"0": 0, "1": time.Second, "3601": time.Hour, "9223372037": time.Hour, "-1": 0, "99999999999999999999": 0, "tomorrow": 0,
	} {
		_, err := watt.JSON[int](rt.Env().Get(t.Context(), "http://a.watt.local/"+said))
		call, ok := errors.AsType[*watt.CallError](err)
		if !ok || call.RetryAfter != want {
			t.Errorf("%s: got %v, want RetryAfter %v", said, err, want)
		}
	}
}

func TestRetryAfterMayBeADate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, app("a", func(w http.ResponseWriter, r *http.Request) {
			after, _ := time.ParseDuration(r.URL.Path[1:])
			w.Header().Set("Retry-After", time.Now().Add(after).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		for said, want := range map[string]time.Duration{"90s": 90 * time.Second, "-1m": 0, "48h": time.Hour} {
			_, err := watt.JSON[int](rt.Env().Get(t.Context(), "http://a.watt.local/"+said))
			call, ok := errors.AsType[*watt.CallError](err)
			if !ok || call.RetryAfter != want {
				t.Errorf("in %s: got %v, want RetryAfter %v", said, err, want)
			}
		}
	})
}

// wantAnswerStatus is wantAnswer for statuses that HTTP does not name.
func wantAnswerStatus(t *testing.T, err error, want int) {
	t.Helper()
	w := httptest.NewRecorder()
	watt.WriteError(w, err)
	if w.Code != want || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("got %d %s, want %d", w.Code, w.Body, want)
	}
	if want == http.StatusServiceUnavailable && w.Header().Get("Retry-After") != "7" {
		t.Errorf("got Retry-After %q, want 7", w.Header().Get("Retry-After"))
	}
}

func TestAnErrorWhileReadingABodyIsACallError(t *testing.T) {
	rt := start(t, app("cut", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"name": "A`)
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}), app("wrong", sayHello))
	_, err := watt.JSON[struct{ Name string }](rt.Env().Get(t.Context(), "http://cut.watt.local/"))
	wantErr(t, err, watt.ErrInstanceDied)
	wantAnswer(t, err, http.StatusBadGateway)
	_, err = watt.JSON[struct{ Name string }](rt.Env().Get(t.Context(), "http://wrong.watt.local/"))
	var call *watt.CallError
	if !errors.As(err, &call) || call.App != "wrong" || !call.Started {
		t.Errorf("got %v", err)
	}
	wantAnswer(t, err, http.StatusBadGateway)
}

func TestWriteErrorAnswersWhatIsNoCallToo(t *testing.T) {
	_, tooLarge := io.ReadAll(http.MaxBytesReader(nil, io.NopCloser(strings.NewReader("12345")), 2))
	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("secret"), http.StatusInternalServerError},
		{iotest.ErrTimeout, http.StatusInternalServerError},
		{fmt.Errorf("secret: %w", tooLarge), http.StatusRequestEntityTooLarge},
		{fmt.Errorf("secret: %w", context.DeadlineExceeded), http.StatusGatewayTimeout},
		{fmt.Errorf("secret: %w", context.Canceled), http.StatusServiceUnavailable},
		{watt.ErrOverloaded, http.StatusServiceUnavailable},
		{&watt.CallError{Err: watt.ErrUnavailable, RetryAfter: time.Millisecond}, http.StatusServiceUnavailable},
		{watt.ErrNotAllowed, http.StatusForbidden},
		{watt.ErrNoSuchApp, http.StatusBadGateway},
		{watt.ErrInstanceDied, http.StatusBadGateway},
	} {
		wantAnswer(t, c.err, c.want)
	}
}

func TestRetryAfterIsInWholeSecondsAndNeverTooSoon(t *testing.T) {
	for after, want := range map[time.Duration]string{
		0: "1", time.Millisecond: "1", time.Second: "1", 1001 * time.Millisecond: "2", 7*time.Second - 1: "7", time.Minute: "60",
	} {
		w := httptest.NewRecorder()
		watt.WriteError(w, &watt.CallError{Err: watt.ErrOverloaded, RetryAfter: after})
		if got := w.Header().Get("Retry-After"); got != want {
			t.Errorf("%v: got %s, want %s", after, got, want)
		}
	}
}

func TestAnErrorInTheMiddleOfAnAnswerCutsIt(t *testing.T) {
	rt := start(t, public(app("a", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "half")
		if r.URL.Path == "/sent" {
			http.NewResponseController(w).Flush()
		}
		watt.WriteError(w, errors.New("on purpose"))
	})))
	for _, path := range []string{"/held", "/sent"} {
		if r := get(t.Context(), rt, "a.watt.local"+path); r.err == nil {
			t.Errorf("%s: got %d %q as a whole answer", path, r.status, r.body)
		}
		resp, err := http.Get("http://" + statusOf(t, rt, "a").Addr + path)
		if err != nil {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Errorf("%s: got %s %q as a whole answer from outside", path, resp.Status, body)
		}
	}
	if got := statusOf(t, rt, "a").PerInstance[0].Requests["GET"]["5xx"]; got != 4 {
		t.Errorf("got %d failed requests, want 4", got)
	}
}

func TestAnErrorAfterAnErrorLeavesTheFirst(t *testing.T) {
	rt := start(t, app("a", func(w http.ResponseWriter, _ *http.Request) {
		watt.WriteError(w, watt.ErrOverloaded)
		watt.WriteError(w, errors.New("on purpose"))
	}))
	r := get(t.Context(), rt, "a.watt.local")
	if r.err != nil || r.status != http.StatusServiceUnavailable || strings.Count(r.body, "{") != 1 {
		t.Errorf("got %d %q, %v", r.status, r.body, r.err)
	}
}

func TestTheProblemDocumentOfAFailedCallNamesTheApp(t *testing.T) {
	for app, want := range map[string]string{"orders": `"app":"orders"`, "": "", "api.example.com": ""} { // where it is no app, no name
		w := httptest.NewRecorder()
		watt.WriteError(w, fmt.Errorf("placing: %w", &watt.CallError{App: app, Err: watt.ErrOverloaded}))
		body := w.Body.String()
		if !strings.Contains(body, want) || (want == "") == strings.Contains(body, `"app"`) {
			t.Errorf("for %q: got %s", app, body)
		}
	}
}

func TestJSONTakesNoContentForTheZeroValue(t *testing.T) {
	rt := start(t, app("a", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	if v, err := watt.JSON[struct{ Name string }](rt.Env().Get(t.Context(), "http://a.watt.local/")); err != nil || v.Name != "" {
		t.Errorf("got %v, %v", v, err)
	}
}

func TestWriteErrorRemovesWhatDescribesAnotherAnswer(t *testing.T) {
	removed := []string{"Etag", "Cache-Control", "Content-Length", "Content-Encoding", "Last-Modified"}
	w := httptest.NewRecorder()
	for _, name := range removed {
		w.Header().Set(name, "7")
	}
	w.Header().Set("X-Other", "stays")
	watt.WriteError(w, errors.New("on purpose"))
	resp := w.Result()
	defer resp.Body.Close()
	for _, name := range removed {
		if v := resp.Header.Get(name); v != "" {
			t.Errorf("%s is still %q", name, v)
		}
	}
	checkProblem(t, resp, http.StatusInternalServerError)
	if resp.Header.Get("X-Other") == "" {
		t.Errorf("got %v", resp.Header)
	}
}

func TestWhatIsMissingIsAnErrorAndNoPanic(t *testing.T) {
	for what, got := range map[string]func() error{
		"a change":         func() error { return watt.New(app("a", sayHello)).Update("a", nil) },
		"an answer":        func() error { _, err := watt.JSON[int](nil, nil); return err },
		"an answer's body": func() error { _, err := watt.JSON[int](new(http.Response), nil); return err },
	} {
		if err := got(); err == nil {
			t.Errorf("%s: got no error", what)
		}
	}
}
