package watt_test

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
)

func TestAContextIsDoneAtTheFirstLookAfterItsDeadline(t *testing.T) {
	for name, look := range map[string]func(ctx context.Context) bool{
		"Done": closed, "a child": func(ctx context.Context) bool { return derivedErr(ctx) != nil },
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
					t.Error("five seconds after the deadline it is not done")
				}
			})
		})
	}
}

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
