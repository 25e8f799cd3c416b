package admin_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/admin"
	"github.com/org/watt/watttest"
)

// TestNobodyFailsOfWhatARaiseHasMended: who has followed an advice must not be told that it has made things worse.
func TestNobodyFailsOfWhatARaiseHasMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(
			watt.App{Name: "users", Calls: []string{"store"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					resp, err := env.Get(r.Context(), "http://store.watt.local/")
					if err != nil {
						watt.WriteError(w, err)
						return
					}
					resp.Body.Close()
				}), nil
			}},
			watt.App{Name: "store", Workers: 1, Queue: -1, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				time.Sleep(50 * time.Millisecond)
			})},
		)
		watttest.Start(t, rt)
		h := admin.Handler(rt, admin.Options{Token: token})
		ctx, stop := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		defer callers.Wait()
		defer stop()
		for range 8 {
			callers.Go(func() {
				for ctx.Err() == nil {
					if resp, err := rt.Env().Get(ctx, "http://users.watt.local/"); err == nil {
						resp.Body.Close()
					}
					time.Sleep(50 * time.Millisecond)
				}
			})
		}
		fetched[admin.Report](t, h, "/status")
		time.Sleep(20 * time.Second)
		acted(t, h, http.MethodPatch, "/apps/store", `{"workers": 16}`)
		for range 15 {
			time.Sleep(time.Second)
			for _, a := range fetched[admin.Report](t, h, "/status").Advice {
				if a.Kind == "fails" {
					t.Fatalf("%s: %s", a.App, a.Text)
				}
			}
		}
	})
}
