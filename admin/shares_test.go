package admin_test

import (
	"context"
	"encoding/json"
	"net/http"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/admin"
)

// burning is an app that computes for as long as a request lasts, and idle one that does not.
func burning(t *testing.T, o admin.Options) (rt *watt.Runtime, url string) {
	t.Helper()
	return started(t, o,
		watt.App{Name: "burner", Profile: watt.IOBound, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				continue
			}
		})},
		watt.App{Name: "idle", Handler: http.NotFoundHandler()})
}

func TestWhatAppsOfTheFirstProcessComputeIsSampled(t *testing.T) {
	rt, url := burning(t, admin.Options{CPUShares: true})
	call := burn(t, rt)
	defer call()
	sampled := false
	events(t, url+"/events", func(data string) bool {
		var r admin.Report
		if err := json.Unmarshal([]byte(data), &r); err != nil {
			t.Fatal(err)
		}
		burner, idle := r.Apps[0].Now.Sampled, r.Apps[1].Now.Sampled // it may be that others leave it little
		if sampled = burner > 0; idle > burner/2 {
			t.Errorf("an idle app uses %g processors, and one that computes %g", idle, burner)
		}
		return sampled
	})
	if !sampled {
		t.Error("nothing was sampled")
	}
	if _, text := do(t, http.MethodGet, url+"/metrics", ""); !strings.Contains(text, `watt_app_sampled_cpu_cores{watt_app="burner"}`) {
		t.Error("there is no metric of it")
	}
}

func TestAProfileThatIsAskedForGoesFirst(t *testing.T) {
	_, url := burning(t, admin.Options{CPUShares: true})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for goroutines := ""; !strings.Contains(goroutines, "admin.profiled"); { // which takes a sample
		var text strings.Builder
		if err := pprof.Lookup("goroutine").WriteTo(&text, 1); err != nil {
			t.Fatal(err)
		}
		goroutines = text.String()
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("nothing is sampled")
		}
	}
	for range 2 {
		if status, text := do(t, http.MethodGet, url+"/debug/pprof/profile?seconds=1", ""); status != http.StatusOK {
			t.Errorf("got %d %s", status, text)
		}
	}
}

func TestWithoutCPUSharesNothingIsSampled(t *testing.T) {
	_, url := burning(t, admin.Options{})
	if _, text := do(t, http.MethodGet, url+"/metrics", ""); strings.Contains(text, "watt_app_sampled_cpu_cores") {
		t.Error("there is a metric")
	}
}

// burn has the burner compute until it is called off.
func burn(t *testing.T, rt *watt.Runtime) (off func()) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://burner.watt.local/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := rt.Env().Client.Do(req.WithContext(ctx)); err == nil {
			resp.Body.Close()
		}
	}()
	return func() { cancel(); <-done }
}
