package admin_test

import (
	"net/http"
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
			watt.App{Name: "users", Calls: []string{"store"}, New: passOn("store")},
			watt.App{Name: "store", Workers: 1, Queue: -1, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				time.Sleep(50 * time.Millisecond)
			})},
		)
		watttest.Start(t, rt)
		h := admin.Handler(rt, admin.Options{Token: token})
		keepCalling(t, rt, "users", 8, 50*time.Millisecond)
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
