package metrics_test

import (
	"context"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

// everything is a runtime that has every metric there is, once something was asked of it.
func everything() *watt.Runtime {
	return watt.New(pyramid.New(
		watt.App{Name: "gateway", Listen: "127.0.0.1:0", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return pyramid.Compose(env, pyramid.Parts{
				"stored": {App: "store", Path: "/"},
				"shed":   {App: "nobody", Path: "/", Optional: true},
			}), nil
		}},
		watt.App{Name: "store", New: newStore},
		watt.App{Name: "nobody", URL: "http://127.0.0.1:1"},
		watt.App{Name: "mill", Profile: watt.CPUBound, Isolation: watt.OwnProcess, New: newOrders},
	)...)
}

func newStore(_ context.Context, env *watt.Env) (http.Handler, error) {
	batch := new(funnel.Batch)
	once := &funnel.Idempotency{Required: true}
	once.Handler(http.NotFoundHandler()).ServeHTTP(new(nowhere), &http.Request{Method: http.MethodPost})
	env.Metrics.MustRegister(batch, once)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte("{}"))
	}), nil
}

// nowhere is where answers go that nobody reads.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header {
	if n.header == nil {
		n.header = make(http.Header)
	}
	return n.header
}
func (*nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (*nowhere) WriteHeader(int)             {}

// TestEveryMetricIsDocumentedAndIsThere compares a scrape with the guide, the alerts and the dashboard.
func TestEveryMetricIsDocumentedAndIsThere(t *testing.T) {
	rt := everything()
	top := watttest.Start(t, rt)
	if status := get(t, top.URL("gateway")); status != http.StatusOK {
		t.Fatalf("got %d", status)
	}
	scraped := names(scrape(t, rt))
	documented := namesIn(t, "../docs/operations.md")
	for _, name := range scraped {
		if !slices.Contains(documented, name) {
			t.Errorf("%s is not in the guide", name)
		}
	}
	for _, file := range []string{"../docs/operations.md", "alerts.yaml", "grafana.json"} {
		for _, name := range namesIn(t, file) {
			if !slices.Contains(scraped, name) && name != "watt_app_sampled_cpu_cores" { // package admin has it
				t.Errorf("%s: %s is in no scrape", file, name)
			}
		}
	}
}

// namesIn returns the metrics that a file speaks of.
func namesIn(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	labels := []string{"watt_app", "watt_instance", "watt_caller"}
	var all []string
	for _, name := range regexp.MustCompile(`\bwatt_[a-z_]+`).FindAllString(string(text), -1) {
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			name = strings.TrimSuffix(name, suffix)
		}
		if !slices.Contains(labels, name) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
