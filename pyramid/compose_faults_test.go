package pyramid_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

const mebi = 1 << 20

// fault is a way for a part to fail.
type fault struct {
	part   pyramid.Part // App "a" is app
	app    watt.App
	err    error // of calls to it
	reason string
	status int // of the answer that needs the part
}

func faults() map[string]fault {
	call := pyramid.Part{App: "a", Path: "/"}
	short := call
	short.Timeout = 10 * time.Millisecond
	small := call
	small.MaxBytes = 4
	answering := func(h http.HandlerFunc) watt.App { return handling("a", h) }
	status := func(code int) watt.App {
		return answering(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); io.WriteString(w, "{}") })
	}
	computing := func(f func(*http.Request) (any, error)) pyramid.Part { return pyramid.Part{Func: f} }
	return map[string]fault{
		"hangs": {part: short, reason: "timeout", status: 504, app: answering(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })},
		"hangs in the body": {part: short, reason: "timeout", status: 504, app: answering(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "[")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})},
		"has its own timeout": {part: call, reason: "timeout", status: 504, app: watt.App{
			Name: "a", Timeout: 10 * time.Millisecond,
			Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		}},
		"crashes mid-body": {part: call, reason: "died", status: 502, app: answering(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `["half of`)
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})},
		"panics":            {part: call, reason: "status", status: 502, app: answering(func(http.ResponseWriter, *http.Request) { panic("oh") })},
		"answers garbage":   {part: call, reason: "error", status: 502, app: watt.App{Name: "a", Serve: garbage}},
		"sends 1xx forever": {part: call, reason: "error", status: 502, app: watt.App{Name: "a", Serve: hints}},
		"is not JSON":       {part: call, reason: "invalid", status: 502, app: telling("a", `{"a":1`)},
		"is more than JSON": {part: call, reason: "invalid", status: 502, app: telling("a", `{} {}`)},
		"is empty":          {part: call, reason: "invalid", status: 502, app: telling("a", "")},
		"is too long":       {part: small, reason: "too_large", status: 502, app: telling("a", "12345")},
		"does not exist":    {part: call, reason: "status", status: 404, app: status(404)},
		"redirects":         {part: call, reason: "status", status: 502, app: answering(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/b", http.StatusFound) })},
		"fails":             {part: call, reason: "status", status: 502, app: status(500)},
		"is busy":           {part: call, reason: "status", status: 503, app: status(503)},
		"is overloaded":     {part: call, reason: "overloaded", status: 503, app: telling("a", "1"), err: watt.ErrOverloaded},
		"is unavailable":    {part: call, reason: "unavailable", status: 503, app: telling("a", "1"), err: watt.ErrUnavailable},
		"is not allowed":    {part: call, reason: "not_allowed", status: 403, app: telling("a", "1"), err: watt.ErrNotAllowed},
		"died":              {part: call, reason: "died", status: 502, app: telling("a", "1"), err: watt.ErrInstanceDied},
		"fails otherwise":   {part: call, reason: "error", status: 502, app: telling("a", "1"), err: errors.New("odd")},
		"func fails":        {part: computing(func(*http.Request) (any, error) { return nil, errors.New("odd") }), reason: "error", status: 500},
		"func panics":       {part: computing(func(*http.Request) (any, error) { panic("odd") }), reason: "panic", status: 500},
		"func exits":        {part: computing(func(*http.Request) (any, error) { runtime.Goexit(); return 1, nil }), reason: "panic", status: 500},
		"func is no JSON":   {part: computing(func(*http.Request) (any, error) { return func() {}, nil }), reason: "invalid", status: 500},
		"func is raw":       {part: computing(func(*http.Request) (any, error) { return json.RawMessage("{"), nil }), reason: "invalid", status: 500},
		"func is too long":  {part: pyramid.Part{MaxBytes: 3, Func: func(*http.Request) (any, error) { return 12345, nil }}, reason: "too_large", status: 500},
		"func has its own error for timeouts": {reason: "timeout", status: 504, part: pyramid.Part{Timeout: 10 * time.Millisecond, Func: func(r *http.Request) (any, error) {
			<-r.Context().Done()
			return nil, errors.New("rpc error: code = DeadlineExceeded")
		}}},
	}
}

func garbage(ctx context.Context, _ *watt.Env, ln net.Listener) error {
	return accept(ctx, ln, func(conn net.Conn) { io.WriteString(conn, "220 mail.example ESMTP\r\n\r\n") })
}

func hints(ctx context.Context, _ *watt.Env, ln net.Listener) error {
	return accept(ctx, ln, func(conn net.Conn) {
		for {
			if _, err := io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\n\r\n"); err != nil {
				return
			}
		}
	})
}

// accept lets talk talk on every connection until ctx ends.
func accept(ctx context.Context, ln net.Listener, talk func(net.Conn)) error {
	context.AfterFunc(ctx, func() { ln.Close() })
	for {
		conn, err := ln.Accept()
		if err != nil {
			return nil //nolint:nilerr // it is closed
		}
		talk(conn)
		conn.Close()
	}
}

// start starts a composition of the part that fails, as changed, and one that does not.
func (f fault) start(t *testing.T, change func(*pyramid.Part)) *home {
	t.Helper()
	change(&f.part)
	apps := []watt.App{telling("good", "1")}
	if f.part.Func == nil {
		apps = append(apps, f.app)
	}
	h := newHome(t, pyramid.Parts{"bad": f.part, "good": {App: "good", Path: "/"}}, apps...)
	if f.err != nil {
		h.Fail("home", "a", f.err)
	}
	return h
}

func TestWithoutAnOptionalPartTheOthersAreAnswered(t *testing.T) {
	for name, f := range faults() {
		t.Run(name, func(t *testing.T) {
			h := f.start(t, func(p *pyramid.Part) { p.Optional = true })
			r := h.get(t)
			wantAnswer(t, r, "bad;reason="+f.reason, `{"good":1}`)
			if got := r.header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("got Cache-Control %q", got)
			}
			lines := h.logs.FilterMessage("a part failed").All()
			if len(lines) != 1 || lines[0].Level != zap.WarnLevel || lines[0].ContextMap()["reason"] != f.reason || lines[0].ContextMap()["part"] != "bad" {
				t.Fatalf("got %v in the log, want one line", lines)
			}
			if fields := lines[0].ContextMap(); fields["callee"] != f.part.App || fields["app"] == f.part.App {
				t.Errorf("got the fields %v, want %s to be the callee, and app who composes", fields, f.part.App)
			}
		})
	}
}

func TestAPartThatFailsAllTheTimeIsSaidSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := faults()["func fails"].start(t, func(p *pyramid.Part) { p.Optional = true })
		for range 11 {
			h.get(t)
			time.Sleep(time.Second)
		}
		var unsaid []any
		for _, line := range h.logs.FilterMessage("a part failed").All() {
			unsaid = append(unsaid, line.ContextMap()["unsaid"])
		}
		if want := []any{int64(0), int64(4), int64(4)}; !slices.Equal(unsaid, want) {
			t.Errorf("got lines after %v that were not said, want %v", unsaid, want)
		}
	})
}

func TestADefaultStandsInForAPartThatFailed(t *testing.T) {
	for name, f := range faults() {
		t.Run(name, func(t *testing.T) {
			h := f.start(t, func(p *pyramid.Part) { p.Default = []string{} })
			wantAnswer(t, h.get(t), "bad;reason="+f.reason, `{"bad":[],"good":1}`)
		})
	}
}

func TestWithoutARequiredPartThereIsAProblemDocument(t *testing.T) {
	for name, f := range faults() {
		t.Run(name, func(t *testing.T) {
			h := f.start(t, func(*pyramid.Part) {})
			r := h.get(t)
			wantProblem(t, r, f.status, f.part.App)
			if got := r.header.Get("Retry-After"); (got != "") != (f.status == 503) {
				t.Errorf("got Retry-After %q", got)
			}
			if strings.Contains(r.body, "odd") || r.header.Get("X-Watt-Partial") != "" {
				t.Errorf("got %v %s", r.header, r.body)
			}
			if lines := h.logs.FilterMessage("a part failed").Len(); lines != 0 { // the request's is enough
				t.Errorf("got %d lines of the log", lines)
			}
		})
	}
}

func TestAnAppThatSends1xxForeverIsEnded(t *testing.T) {
	ended := make(chan struct{})
	h := newHome(t, pyramid.Parts{"a": {App: "a", Path: "/", Timeout: 20 * time.Millisecond, Default: 0}},
		handling("a", func(w http.ResponseWriter, r *http.Request) {
			defer close(ended)
			for r.Context().Err() == nil {
				w.WriteHeader(http.StatusEarlyHints)
			}
		}))
	if r := h.get(t); r.status != 200 || r.body != `{"a":0}` || !strings.HasPrefix(r.header.Get("X-Watt-Partial"), "a;reason=") {
		t.Errorf("got %v", r)
	}
	<-ended
}

// gRPC, for one, has an error of its own for what the end of a context does.
func TestAnErrorBecauseOfTheDeadlineIsATimeout(t *testing.T) {
	h := newHome(t, pyramid.Parts{"a": {Optional: true, Timeout: time.Millisecond, Func: func(r *http.Request) (any, error) {
		for r.Context().Err() == nil { // to be the first to know
			runtime.Gosched()
		}
		return nil, errors.New("odd")
	}}})
	for range 50 {
		wantAnswer(t, h.get(t), "a;reason=timeout", `{}`)
	}
}

func TestAPanicIsLoggedWithItsStackAndTheAppGoesOn(t *testing.T) {
	h := newHome(t, pyramid.Parts{"bad": {Optional: true, Func: func(*http.Request) (any, error) { panic("odd") }}})
	for range 2 {
		wantAnswer(t, h.get(t), "bad;reason=panic", `{}`)
	}
	lines := h.logs.FilterMessage("a part panicked").All()
	if len(lines) != 2 {
		t.Fatalf("got %d lines", len(lines))
	}
	fields := lines[0].ContextMap()
	if stack := fmt.Sprintf("%s", fields["stack"]); fields["panic"] != "odd" || !strings.Contains(stack, "TestAPanicIsLogged") {
		t.Errorf("got %v", fields)
	}
}

// unspeakable is a reason that a log cannot encode.
type unspeakable struct{}

func (unspeakable) MarshalJSON() ([]byte, error) { panic("on purpose") }

func TestAPanicThatCannotBeEncodedFailsThePartAlone(t *testing.T) {
	h := &home{rt: watt.New(homeApp(pyramid.Parts{"bad": {Optional: true, Func: func(*http.Request) (any, error) { panic(unspeakable{}) }}}))}
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	h.rt.Logger = zap.New(zapcore.NewCore(encoder, zapcore.AddSync(io.Discard), zap.InfoLevel))
	h.Topology = watttest.Start(t, h.rt)
	wantAnswer(t, h.get(t), "bad;reason=panic", `{}`)
}

func TestAnErrorThatPanicsFailsThePartAlone(t *testing.T) {
	var path *fs.PathError // whose Unwrap panics
	var call *watt.CallError
	h := newHome(t, pyramid.Parts{
		"call": {Optional: true, Func: func(*http.Request) (any, error) { return 1, call }},
		"fine": {Func: func(*http.Request) (any, error) { return 2, nil }},
		"path": {Default: 3, Func: func(*http.Request) (any, error) { return 1, path }},
	})
	wantAnswer(t, h.get(t), "call;reason=panic, path;reason=panic", `{"fine":2,"path":3}`)
}

func TestAllPartsMayFail(t *testing.T) {
	h := newHome(t, pyramid.Parts{
		"b":       {App: "a", Path: "/", Optional: true},
		"a":       {App: "b", Path: "/", Default: json.RawMessage("{ }")},
		"c d":     {App: "b", Path: "/", Optional: true},
		"grö%\"e": {App: "b", Path: "/", Optional: true},
		`q"`:      {App: "b", Path: "/", Optional: true},
	}, telling("a", "x"), telling("b", "x"))
	h.Fail("home", "a", watt.ErrUnavailable)
	want := `a;reason=invalid, b;reason=unavailable, "c d";reason=invalid, %"gr%c3%b6%25%22e";reason=invalid, "q\"";reason=invalid`
	for range 10 {
		wantAnswer(t, h.get(t), want, `{"a":{ }}`)
	}
}

func TestAllRequiredPartsMayFailAtOnce(t *testing.T) {
	parts := make(pyramid.Parts)
	for i := range 16 {
		parts[strconv.Itoa(i)] = pyramid.Part{Func: func(*http.Request) (any, error) { return nil, watt.ErrUnavailable }}
	}
	h := newHome(t, parts)
	for range 50 {
		wantProblem(t, h.get(t), http.StatusServiceUnavailable, "")
	}
}

func TestAnAppsAnswerIsCutAtMaxBytes(t *testing.T) {
	const gibi = 1 << 30
	for name, sized := range map[string]bool{"known length": true, "unknown length": false} {
		t.Run(name, func(t *testing.T) {
			var sent atomic.Int64
			stopped := make(chan struct{})
			huge := handling("huge", func(w http.ResponseWriter, _ *http.Request) {
				defer close(stopped)
				if sized {
					w.Header().Set("Content-Length", strconv.Itoa(gibi))
				}
				piece := make([]byte, 64<<10)
				for sent.Load() < gibi {
					n, err := w.Write(piece)
					if sent.Add(int64(n)); err != nil {
						return
					}
				}
			})
			h := newHome(t, pyramid.Parts{"huge": {App: "huge", Path: "/", Optional: true}}, huge)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			wantAnswer(t, h.get(t), "huge;reason=too_large", `{}`)
			<-stopped
			runtime.ReadMemStats(&after)
			if got := sent.Load(); got > 8*mebi {
				t.Errorf("the app could send %d bytes", got)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 24*mebi { // the buffer doubles up to 4 MiB
				t.Errorf("%d bytes were allocated", got)
			}
		})
	}
}

// What has announced too much is not waited for: it may never come.
func TestALengthThatIsTooLargeIsToldAtOnce(t *testing.T) {
	ended := make(chan struct{})
	boasting := handling("boasting", func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		w.Header().Set("Content-Length", strconv.Itoa(4*mebi+1))
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	h := newHome(t, pyramid.Parts{
		"a": {App: "boasting", Path: "/", Optional: true},
		"b": {Timeout: patience, Func: func(r *http.Request) (any, error) {
			select {
			case <-ended: // so the app is left at once, and not with the answer
				return 1, nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}},
	}, boasting)
	wantAnswer(t, h.get(t), "a;reason=too_large", `{"b":1}`)
}

func TestExactlyMaxBytesAreNotTooMany(t *testing.T) {
	chunked := handling("chunked", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "12")
		http.NewResponseController(w).Flush()
		io.WriteString(w, "345")
	})
	h := newHome(t, pyramid.Parts{
		"a": {App: "chunked", Path: "/", MaxBytes: 5},
		"b": {App: "sized", Path: "/", MaxBytes: 5},
		"c": {MaxBytes: 5, Func: func(*http.Request) (any, error) { return 12345, nil }},
		"d": {App: "chunked", Path: "/", MaxBytes: 4, Optional: true},
		"e": {App: "chunked", Path: "/", MaxBytes: math.MaxInt64},
	}, chunked, telling("sized", "12345"))
	wantAnswer(t, h.get(t), "d;reason=too_large", `{"a":12345,"b":12345,"c":12345,"e":12345}`)
}

func TestADefaultStaysAsItWasWhenItWasDeclared(t *testing.T) {
	own := json.RawMessage(`[1]`)
	failing := handling("failing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	h := newHome(t, pyramid.Parts{"a": {App: "failing", Path: "/", Default: own}}, failing)
	own[1] = '2'
	wantAnswer(t, h.get(t), "a;reason=status", `{"a":[1]}`)
}

func TestWhatAPartItselfHasNotGotShows(t *testing.T) {
	inner := homeApp(pyramid.Parts{"x": {App: "failing", Path: "/", Default: 0}})
	inner.Name, inner.Calls = "inner", []string{"failing"}
	failing := handling("failing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	for _, coalesce := range []bool{false, true} {
		h := newHome(t, pyramid.Parts{"in": {App: "inner", Path: "/home/{id}", Coalesce: coalesce}}, inner, failing)
		r := h.get(t)
		wantAnswer(t, r, `in;reason=partial;inner="x;reason=status"`, `{"in":{"x":0}}`)
		if got := r.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("got Cache-Control %q", got)
		}
	}
}

func TestAPartThatIsPartialIsCountedAsOk(t *testing.T) {
	partial := handling("partial", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Watt-Partial", "x;reason=status")
		io.WriteString(w, "1")
	})
	h := newHome(t, pyramid.Parts{"a": {App: "partial", Path: "/"}}, partial)
	h.get(t)
	if got := counted(t, h.rt); len(got) != 1 || got["a ok"] == "" {
		t.Errorf("got %v", got)
	}
}

func TestWhatAPartSaysOfItselfIsRepeatedIfItIsShortText(t *testing.T) {
	for said, want := range map[string]string{
		`"\";reason=timeout`:         `a;reason=partial;inner="\"\\\";reason=timeout"`,
		"é;reason=timeout":           "a;reason=partial",
		strings.Repeat("x", 1<<10):   `a;reason=partial;inner="` + strings.Repeat("x", 1<<10) + `"`,
		strings.Repeat("x", 1<<10+1): "a;reason=partial",
		"":                           "",
	} {
		partial := handling("partial", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Watt-Partial", said)
			io.WriteString(w, "1")
		})
		wantAnswer(t, newHome(t, pyramid.Parts{"a": {App: "partial", Path: "/"}}, partial).get(t), want, `{"a":1}`)
	}
}

func TestALengthThatIsOnlyAnnouncedTakesNoMemory(t *testing.T) {
	boasting := handling("boasting", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(4*mebi))
		io.WriteString(w, "[")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	h := newHome(t, pyramid.Parts{"a": {App: "boasting", Path: "/", Optional: true}}, boasting)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		wantAnswer(t, h.get(t), "a;reason=died", `{}`)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 8*mebi {
		t.Errorf("%d bytes were allocated", got)
	}
}
