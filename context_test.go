package watt_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
)

// family is a request's context with what its handler has derived from it.
type family struct {
	ctx      context.Context
	children map[string]context.Context
	detached context.Context
	called   chan error   // by AfterFunc: with the context's Err then
	stopped  *atomic.Bool // it was called after its stop
	stop     bool         // what stop returned
}

// derive derives contexts of every kind. They end with the bubble at the latest.
func derive(t *testing.T, ctx context.Context) family { //nolint:revive // the context is what is tested
	t.Helper()
	f := family{ctx: ctx, children: make(map[string]context.Context), called: make(chan error, 1), stopped: new(atomic.Bool)}
	add := func(name string, child context.Context, cancel func()) {
		t.Cleanup(cancel)
		f.children[name] = child //nolint:fatcontext // one of many, side by side
	}
	child, cancel := context.WithCancel(ctx)
	add("WithCancel", child, cancel)
	grandchild, cancel := context.WithCancel(child)
	add("WithCancel of a child", grandchild, cancel)
	child, cancel = context.WithTimeout(ctx, 24*time.Hour)
	add("WithTimeout", child, cancel)
	child, cause := context.WithCancelCause(ctx)
	add("WithCancelCause", child, func() { cause(nil) })
	child, cancel = context.WithTimeoutCause(context.WithValue(ctx, requestIs{}, 1), 24*time.Hour, io.EOF)
	add("WithTimeoutCause of WithValue", child, cancel)
	f.detached, cancel = context.WithCancel(context.WithoutCancel(ctx))
	t.Cleanup(cancel)
	context.AfterFunc(ctx, func() { f.called <- ctx.Err() })
	f.stop = context.AfterFunc(ctx, func() { f.stopped.Store(true) })()
	return f
}

// requestIs is the key of values in these tests.
type requestIs struct{}

// wantAlive fails the test if anything has ended.
func (f family) wantAlive(t *testing.T) {
	t.Helper()
	for name, ctx := range f.all() {
		if err := ctx.Err(); err != nil || closed(ctx) || context.Cause(ctx) != nil {
			t.Errorf("%s has ended early: %v, done %t, cause %v", name, err, closed(ctx), context.Cause(ctx))
		}
	}
	if len(f.called) != 0 {
		t.Error("AfterFunc was called early")
	}
}

// wantEnded fails the test unless everything has ended, for the same reason.
func (f family) wantEnded(t *testing.T, when string, err, cause error) {
	t.Helper()
	for name, ctx := range f.all() {
		if got := ctx.Err(); got != err || !closed(ctx) { //nolint:errorlint // one of the context package's two words, bare
			t.Errorf("%s: %s: got %v, done %t, want %v", when, name, got, closed(ctx), err)
		}
		if got := context.Cause(ctx); !errors.Is(got, cause) {
			t.Errorf("%s: %s: got cause %v, want %v", when, name, got, cause)
		}
	}
	if f.detached.Err() != nil || context.Cause(f.detached) != nil || closed(f.detached) {
		t.Errorf("%s: WithoutCancel has ended: %v", when, f.detached.Err())
	}
	if f.stopped.Load() || !f.stop {
		t.Errorf("%s: a stopped AfterFunc was called: %t; stop returned %t", when, f.stopped.Load(), f.stop)
	}
}

func (f family) all() map[string]context.Context {
	all := maps.Clone(f.children)
	all["the request's"] = f.ctx
	return all
}

func closed(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// showing is an app that shows the contexts of its requests, and serves them until release, or with
// another path than /return, until their end.
func showing(t *testing.T, shown chan<- family, release <-chan struct{}) watt.App {
	t.Helper()
	a := app("a", func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/poll" {
			watt.LongLived(r.Context())
		}
		shown <- derive(t, r.Context())
		if r.URL.Path == "/return" {
			<-release
			return
		}
		<-r.Context().Done()
	})
	a.Timeout, a.DrainTimeout = time.Hour, 2*time.Second
	return a
}

func TestARequestsContextAndAllDerivedFromItEndTogetherAndReportTheSame(t *testing.T) {
	onPurpose := errors.New("on purpose")
	for name, c := range map[string]struct {
		path       string
		deadline   time.Duration // the caller's; zero: none
		end        func(rt *watt.Runtime, cancel context.CancelCauseFunc, release chan struct{})
		err, cause error
	}{
		"the caller cancels": {
			end: func(_ *watt.Runtime, cancel context.CancelCauseFunc, _ chan struct{}) { cancel(nil) },
			err: context.Canceled, cause: context.Canceled,
		},
		"the caller cancels with a cause": {
			end: func(_ *watt.Runtime, cancel context.CancelCauseFunc, _ chan struct{}) { cancel(onPurpose) },
			err: context.Canceled, cause: onPurpose,
		},
		"the caller's deadline": {
			deadline: 5 * time.Second,
			end:      func(*watt.Runtime, context.CancelCauseFunc, chan struct{}) { time.Sleep(5 * time.Second) },
			err:      context.DeadlineExceeded, cause: context.DeadlineExceeded,
		},
		"App.Timeout": {
			end: func(*watt.Runtime, context.CancelCauseFunc, chan struct{}) { time.Sleep(time.Hour) },
			err: context.Canceled, cause: context.DeadlineExceeded,
		},
		"App.Timeout before the caller's deadline": {
			deadline: 2 * time.Hour,
			end:      func(*watt.Runtime, context.CancelCauseFunc, chan struct{}) { time.Sleep(time.Hour) },
			err:      context.Canceled, cause: context.DeadlineExceeded,
		},
		"the handler returns": {
			path: "/return",
			end:  func(_ *watt.Runtime, _ context.CancelCauseFunc, release chan struct{}) { close(release) },
			err:  context.Canceled, cause: context.Canceled,
		},
		"the drain of what is long-lived": {
			path: "/poll",
			end:  func(rt *watt.Runtime, _ context.CancelCauseFunc, _ chan struct{}) { go rt.Restart("a", 0) },
			err:  context.Canceled, cause: watt.ErrUnavailable,
		},
		"a drain whose time is up": {
			end: func(rt *watt.Runtime, _ context.CancelCauseFunc, _ chan struct{}) { rt.Restart("a", 0) },
			err: context.Canceled, cause: watt.ErrUnavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shown, release := make(chan family, 1), make(chan struct{})
				rt := start(t, showing(t, shown, release))
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if c.deadline > 0 {
					var cancelDeadline func()
					ctx, cancelDeadline = context.WithTimeout(ctx, c.deadline)
					defer cancelDeadline()
				}
				ended := going(ctx, rt, "a.watt.local"+c.path)
				f := <-shown
				synctest.Wait()
				f.wantAlive(t)
				if got, ok := f.ctx.Deadline(); ok != (c.deadline > 0) || ok && time.Until(got) != c.deadline {
					t.Errorf("got deadline %v, %t", got, ok)
				}
				c.end(rt, cancel, release)
				synctest.Wait()
				f.wantEnded(t, "at the end", c.err, c.cause)
				if got := <-f.called; got != c.err { //nolint:errorlint // bare
					t.Errorf("AfterFunc saw %v, want %v", got, c.err)
				}
				<-ended
				cancel(io.EOF) // too late to matter
				time.Sleep(3 * time.Hour)
				f.wantEnded(t, "long after the handler has returned", c.err, c.cause)
				late := derive(t, f.ctx)
				late.stop = true // there was nothing to stop
				for name, child := range late.children {
					if child.Err() != c.err || !closed(child) { //nolint:errorlint // bare
						t.Errorf("%s, derived after the end: got %v at once", name, child.Err())
					}
				}
				synctest.Wait()
				late.stopped.Store(false) // it may have been called before it was stopped
				late.wantEnded(t, "derived after the end", c.err, c.cause)
				if len(late.called) != 1 {
					t.Error("AfterFunc of an ended context was not called")
				}
			})
		})
	}
}

func TestTheContextOfAStrangersRequestEndsWhenHeGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shown := make(chan family, 1)
		rt, dial := bubble(t, public(showing(t, shown, nil)))
		conn := dial()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		f := <-shown
		synctest.Wait()
		f.wantAlive(t)
		conn.Close()
		synctest.Wait()
		f.wantEnded(t, "when the client has gone", context.Canceled, context.Canceled)
		if s := statusOf(t, rt, "a"); s.Busy != 0 {
			t.Errorf("%d workers are busy", s.Busy)
		}
	})
}

func TestADeadlineThatCameInAHeaderEndsTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shown := make(chan family, 1)
		rt := start(t, showing(t, shown, nil))
		conn, err := rt.Env().Dial(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nX-Watt-Timeout: 5000\r\n\r\n")
		f := <-shown
		time.Sleep(5*time.Second - 1)
		synctest.Wait()
		f.wantAlive(t)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		f.wantEnded(t, "at the deadline", context.DeadlineExceeded, context.DeadlineExceeded)
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("got %v, %v", resp, err)
		}
	})
}

func TestAContextThatNobodyWatchedHasEndedAllTheSame(t *testing.T) {
	errOwn := errors.New("the caller's own reason")
	for name, c := range map[string]struct {
		deadline  time.Duration
		err       error
		firstLook func(ctx context.Context) error
	}{
		"Err at the deadline":    {time.Second, context.DeadlineExceeded, context.Context.Err},
		"Cause at the deadline":  {time.Second, context.DeadlineExceeded, context.Cause},
		"Err after a cancel":     {0, context.Canceled, context.Context.Err},
		"Cause after a cancel":   {0, errOwn, context.Cause},
		"a child after a cancel": {0, context.Canceled, func(ctx context.Context) error { return derivedErr(ctx) }},
		"a child at the deadline": {time.Second, context.DeadlineExceeded, func(ctx context.Context) error {
			return derivedErr(ctx)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seen := make(chan error, 1)
				rt := start(t, app("a", func(_ http.ResponseWriter, r *http.Request) {
					time.Sleep(time.Second)
					synctest.Wait()
					seen <- c.firstLook(r.Context())
				}))
				ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(c.deadline, time.Hour))
				defer cancel()
				ctx, give := context.WithCancelCause(ctx)
				defer give(nil)
				if c.deadline == 0 {
					time.AfterFunc(time.Second/2, func() { give(errOwn) })
				}
				get(ctx, rt, "a.watt.local/")
				if got := <-seen; got != c.err { //nolint:errorlint // bare
					t.Errorf("got %v, want %v", got, c.err)
				}
			})
		})
	}
}

func TestAContextHasEndedAtTheFirstLookAfterItsDeadline(t *testing.T) {
	for name, look := range map[string]func(ctx context.Context) bool{
		"Err":   func(ctx context.Context) bool { return ctx.Err() != nil },
		"Cause": func(ctx context.Context) bool { return context.Cause(ctx) != nil },
		"Done":  closed,
		"child": func(ctx context.Context) bool { return derivedErr(ctx) != nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seen := make(chan bool, 1)
				rt := start(t, app("a", func(_ http.ResponseWriter, r *http.Request) {
					time.Sleep(10 * time.Second) // nobody looks meanwhile
					seen <- look(r.Context())
				}))
				conn, err := rt.Env().Dial(t.Context(), "a")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nX-Watt-Timeout: 5000\r\n\r\n")
				if !<-seen {
					t.Error("five seconds after the deadline it has not ended")
				}
			})
		})
	}
}

// derivedErr is what a child of ctx says.
func derivedErr(ctx context.Context) error {
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	return child.Err()
}

func TestTheServersValuesAreVisibleAndTheCallersAreNot(t *testing.T) {
	ctxs := make(chan context.Context, 1)
	rt := start(t, app("a", func(_ http.ResponseWriter, r *http.Request) { ctxs <- r.Context() }))
	get(context.WithValue(t.Context(), requestIs{}, "the caller's"), rt, "a.watt.local/")
	ctx := <-ctxs
	soon(t, "the end of the request", func() bool { return ctx.Err() != nil })
	check := func(ctx context.Context) {
		t.Helper()
		if _, ok := ctx.Value(http.ServerContextKey).(*http.Server); !ok {
			t.Error("there is no server")
		}
		if addr, ok := ctx.Value(http.LocalAddrContextKey).(net.Addr); !ok || addr.String() != "a.watt.local:80" {
			t.Errorf("got local address %v", addr)
		}
		if v := ctx.Value(requestIs{}); v != nil {
			t.Errorf("got %v", v)
		}
	}
	check(ctx)
	check(context.WithoutCancel(ctx))
	if watt.Caller(ctx) != "" {
		t.Error("main has a name")
	}
}

func TestAContextPrintsAsItsRequestAndNothingElse(t *testing.T) {
	t.Parallel()
	var printed string
	rt := start(t, app("a", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		var printing sync.WaitGroup
		defer printing.Wait()
		defer cancel()
		printing.Go(func() {
			for over := false; !over; over = ctx.Err() != nil {
				printed = fmt.Sprint(r.Context()) // which reads nothing that changes
			}
		})
		for i := range 10_000 {
			w.Header().Set("Secret", strconv.Itoa(i))
		}
	}))
	if r := get(t.Context(), rt, "a.watt.local/path?secret"); r.status != http.StatusOK {
		t.Fatalf("got %+v", r)
	}
	if printed != "watt: GET /path" {
		t.Errorf("got %q", printed)
	}
}

func TestWhoAsksForCloseNotifyIsToldOfTheEnd(t *testing.T) {
	t.Parallel()
	told := make(chan bool, 1)
	rt := start(t, public(app("a", func(w http.ResponseWriter, _ *http.Request) {
		http.NewResponseController(w).Flush()
		notified := w.(interface{ CloseNotify() <-chan bool }) // as frameworks do
		news := notified.CloseNotify()
		if notified.CloseNotify() != news {
			t.Error("there is another channel each time")
		}
		told <- <-news
	})))
	for name, url := range map[string]string{"mesh": "http://a.watt.local/", "public": "http://" + publicAddr(t, rt, "a")} {
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := rt.Env().Client.Do(request(ctx, http.MethodGet, url, nil))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if !within(t, told, name+": the news") {
			t.Errorf("%s: got false", name)
		}
		resp.Body.Close()
	}
}
