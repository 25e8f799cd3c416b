package admin_test

import (
	"context"
	"net/http"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/watt/admin"
)

// TestLabelsOfTheProgramsOwnMakeNoMetric: a program may have other uses for a label with the name app, as a tenant's.
func TestLabelsOfTheProgramsOwnMakeNoMetric(t *testing.T) {
	rt, url := burning(t, admin.Options{CPUShares: true})
	call := burn(t, rt)
	defer call()
	ctx, over := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer over()
	for _, name := range []string{"tenant", "\xff"} {
		others.Go(func() {
			pprof.SetGoroutineLabels(pprof.WithLabels(ctx, pprof.Labels("app", name)))
			for ctx.Err() == nil {
				continue
			}
		})
	}
	const name = "watt_app_sampled_cpu_cores{"
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(40 * time.Second); ; {
		_, text := do(t, http.MethodGet, url+"/metrics", "")
		if strings.Contains(text, name+`watt_app="tenant"`) {
			t.Error("what is no app is there as one")
			return
		}
		if strings.Contains(text, name+`watt_app="burner"`) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("nothing is sampled")
		}
	}
}
