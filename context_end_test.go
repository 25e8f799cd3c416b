package watt_test

import (
	"context"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
)

func TestAContextDerivedThroughAValueCostsNoGoroutine(t *testing.T) { // as every chi router does
	counts := make(chan []int, 1)
	rt := start(t, app("a", func(_ http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), requestIs{}, 1)
		_, cancel := context.WithCancel(ctx)
		defer cancel()
		before := runtime.NumGoroutine()
		for range 100 {
			_, cancel := context.WithCancel(ctx)
			defer cancel()
		}
		counts <- []int{before, runtime.NumGoroutine()}
	}))
	get(t.Context(), rt, "a.watt.local/")
	if got := within(t, counts, "the counts"); got[1] > got[0]+20 {
		t.Errorf("there were %d goroutines, and then %d", got[0], got[1])
	}
}

func TestARequestThatCallsLongLivedDuringAShutdownEndsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan string, 1)
		rt := watt.New(watt.App{Name: "a", Timeout: -1, DrainTimeout: time.Minute, Handler: http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(5 * time.Second) // the drain begins meanwhile
				linger(ended)(w, r)
			})})
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		poll := going(t.Context(), rt, "a.watt.local/poll")
		synctest.Wait()
		began := time.Now()
		if err := rt.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		wantTook(t, time.Since(began).Round(100*time.Millisecond), 5*time.Second)
		<-poll
	})
}
