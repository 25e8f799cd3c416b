package watt_test

import (
	"context"
	"net/http"
	"runtime"
	"testing"
	"time"
	"weak"
)

func TestADerivedContextCostsNoGoroutine(t *testing.T) {
	counts := make(chan []int, 1)
	rt := start(t, app("a", func(_ http.ResponseWriter, r *http.Request) {
		const n = 100
		_, cancel := context.WithCancel(r.Context()) // the first makes the request watch for its end
		defer cancel()
		before := runtime.NumGoroutine()
		for range n {
			child, cancel := context.WithCancel(r.Context())
			defer cancel()
			_, cancel = context.WithTimeout(child, time.Hour)
			defer cancel()
			defer context.AfterFunc(r.Context(), func() {})()
		}
		counts <- []int{before, runtime.NumGoroutine()}
	}))
	get(t.Context(), rt, "a.watt.local/")
	if got := within(t, counts, "the counts"); got[1] > got[0]+20 {
		t.Errorf("there were %d goroutines, and then %d", got[0], got[1])
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
