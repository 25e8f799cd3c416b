package admin_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/admin"
	"github.com/org/watt/watttest"
)

// TestAnAppThatHangsGetsNoMoreWorkers: they would hang as well. One that is slow, or computes, gets some.
func TestAnAppThatHangsGetsNoMoreWorkers(t *testing.T) {
	for name, test := range map[string]struct {
		takes, timeout time.Duration
		used           float64 // processors
		kinds          string
	}{
		"it hangs":                   {time.Hour, -1, 0.1, "hangs"},
		"it hangs until its Timeout": {time.Hour, 3 * time.Second, 0.1, "hangs fails"},
		"it is slow":                 {8 * time.Second, -1, 0.1, "raise"},
		"it computes for long":       {time.Hour, -1, 4, "raise"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := watt.New(watt.App{
					Name: "store", Workers: 4, Queue: 16, Timeout: test.timeout,
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						select {
						case <-time.After(test.takes):
						case <-r.Context().Done():
						}
					}),
				})
				watttest.Start(t, rt)
				h := admin.Handler(rt, admin.Options{})
				ctx, stop := context.WithCancel(t.Context())
				var callers sync.WaitGroup
				defer callers.Wait()
				defer stop()
				for range 16 {
					callers.Go(func() {
						for ctx.Err() == nil {
							if resp, err := rt.Env().Get(ctx, "http://store.watt.local/"); err == nil {
								resp.Body.Close()
							}
						}
					})
				}
				fetched[admin.Report](t, h, "/status")
				time.Sleep(30 * time.Second)
				r := fetched[admin.Report](t, h, "/status")
				r.Processors, r.Idle = 8, 8-test.used // whatever the test uses
				var kinds, texts []string
				for _, a := range admin.Advise(&r) {
					kinds, texts = append(kinds, a.Kind), append(texts, a.Text)
				}
				if got := strings.Join(kinds, " "); got != test.kinds {
					t.Errorf("got %q, want %q: %s", got, test.kinds, strings.Join(texts, "; "))
				}
			})
		})
	}
}
