package admin_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/admin"
	"github.com/org/watt/watttest"
)

// TestABackendThatIsTheLimitIsNamedHoweverLongTheQueue: most of the latency is spent in the queue, before and after.
func TestABackendThatIsTheLimitIsNamedHoweverLongTheQueue(t *testing.T) {
	for name, test := range map[string]struct {
		takes int // requests at a time, by the backend
		kind  string
	}{
		"the backend takes no more": {4, "backend"},
		"the backend takes more":    {64, "raise"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				backend := make(chan struct{}, test.takes)
				rt := watt.New(watt.App{
					Name: "store", Profile: watt.IOBound, Workers: 4, Queue: 100, QueueTimeout: time.Minute, Timeout: -1,
					Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
						backend <- struct{}{}
						time.Sleep(50 * time.Millisecond)
						<-backend
					}),
				})
				watttest.Start(t, rt)
				h := admin.Handler(rt, admin.Options{Token: token})
				keepCalling(t, rt, "store", 64, 0)
				fetched[admin.Report](t, h, "/status")
				time.Sleep(20 * time.Second)
				acted(t, h, http.MethodPatch, "/apps/store", `{"workers": 8}`)
				time.Sleep(20 * time.Second)
				r := fetched[admin.Report](t, h, "/status")
				r.Idle = r.Processors // whatever the test uses
				var kinds []string
				for _, a := range admin.Advise(&r) {
					kinds = append(kinds, a.Kind)
					t.Log(a.Text)
				}
				if got := strings.Join(kinds, " "); got != test.kind {
					t.Errorf("got %q, want %q", got, test.kind)
				}
			})
		})
	}
}
