package watt_test

import (
	"context"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"weak"
)

func TestADerivedContextCostsNoGoroutine(t *testing.T) {
	for name, through := range map[string]func(context.Context) context.Context{
		"at once":         func(ctx context.Context) context.Context { return ctx },
		"through a value": func(ctx context.Context) context.Context { return context.WithValue(ctx, requestIs{}, 1) }, // as every router of chi's does
	} {
		counts := make(chan []int, 1)
		rt := start(t, app("a", func(_ http.ResponseWriter, r *http.Request) {
			const n = 100
			ctx := through(r.Context())
			_, cancel := context.WithCancel(ctx) // the first makes the request watch for its end
			defer cancel()
			before := runtime.NumGoroutine()
			for range n {
				child, cancel := context.WithCancel(ctx)
				defer cancel()
				_, cancel = context.WithTimeout(child, time.Hour)
				defer cancel()
				defer context.AfterFunc(ctx, func() {})()
			}
			counts <- []int{before, runtime.NumGoroutine()}
		}))
		get(t.Context(), rt, "a.watt.local/")
		if got := within(t, counts, "the counts"); got[1] > got[0]+20 {
			t.Errorf("%s: there were %d goroutines, and then %d", name, got[0], got[1])
		}
	}
}

func TestARequestHoldsOnToNothingDerivedThatHasEnded(t *testing.T) {
	held := make(chan bool, 1)
	rt := start(t, app("a", func(_ http.ResponseWriter, r *http.Request) {
		for _, end := range []func(value *[]byte) func(){
			func(value *[]byte) func() {
				_, cancel := context.WithCancel(context.WithValue(r.Context(), requestIs{}, value))
				return cancel
			},
			func(value *[]byte) func() {
				stop := context.AfterFunc(r.Context(), func() { runtime.KeepAlive(value) })
				return func() { stop() }
			},
		} {
			value := new([]byte)
			gone := weak.Make(value)
			end(value)()
			for range 10 {
				runtime.GC()
			}
			held <- gone.Value() != nil
		}
	}))
	go get(t.Context(), rt, "a.watt.local/")
	for range 2 {
		if within(t, held, "the end") {
			t.Error("it is still held")
		}
	}
}

// followed is a context that counts what is to be told of its end.
type followed struct {
	context.Context
	done      chan struct{}
	followers atomic.Int32
}

func (f *followed) Done() <-chan struct{} { return f.done }

// AfterFunc is what the context package calls instead of watching Done.
func (f *followed) AfterFunc(func()) (stop func() bool) {
	f.followers.Add(1)
	var once atomic.Bool
	return func() bool {
		if once.CompareAndSwap(false, true) {
			f.followers.Add(-1)
		}
		return true
	}
}

// A caller's context may be that of a whole life.
func TestACallThatIsOverLeavesNothingInTheCallersContext(t *testing.T) {
	rt := start(t, app("a", sayHello), serving("b", sayHello))
	for name, c := range map[string]struct {
		app    string
		header http.Header
	}{
		"a handler":              {"a", http.Header{}},
		"a handler, with a wire": {"a", http.Header{"Pragma": {"one"}}},
		"a handler, with HTTP/2": {"a", http.Header{"Content-Type": {"application/grpc"}}},
		"Serve":                  {"b", http.Header{}},
	} {
		life := &followed{Context: t.Context(), done: make(chan struct{})}
		req := request(life, http.MethodGet, "http://"+c.app+".watt.local/", nil)
		req.Header = c.header
		resp, err := rt.Env().Client.Do(req)
		if got := read(t, resp, err); got != "hello" {
			t.Errorf("%s: got %q", name, got)
		}
		soon(t, name+": that its end concerns nobody", func() bool { return life.followers.Load() == 0 })
	}
}
