//go:build promtool

package metrics_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/watt/metrics"
	"github.com/org/watt/watttest"
)

// These tests need Prometheus and its promtool, which most machines do not have: go test -tags promtool ./metrics.

func promtool(t *testing.T, stdin []byte, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestAlerts(t *testing.T) {
	promtool(t, nil, "check", "rules", "alerts.yaml")
	promtool(t, nil, "test", "rules", "testdata/alerts_test.yaml")
}

// TestPrometheusUnderstandsIt has Prometheus scrape a runtime, and asks it everything that the dashboard and the
// alerts ask.
func TestPrometheusUnderstandsIt(t *testing.T) {
	rt := everything()
	top := watttest.Start(t, rt)
	scraped := httptest.NewServer(metrics.Handler(rt))
	defer scraped.Close()
	api := startPrometheus(t, scraped.Listener.Addr().String())

	soon(t, "rates", func() bool {
		get(t, top.URL("gateway"))
		return len(ask(t, api, `rate(watt_requests_total[30s]) > 0`)) > 0
	})
	recorder := httptest.NewRecorder()
	metrics.Handler(rt).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody))
	promtool(t, recorder.Body.Bytes(), "check", "metrics")
	for title, expr := range expressions(t) {
		if len(ask(t, api, expr)) == 0 {
			t.Errorf("%s: no answer to %s", title, expr)
		}
	}
	rules := fetchJSON[struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}](t, api+"/api/v1/rules")
	seen := 0
	for _, group := range rules.Data.Groups {
		for _, r := range group.Rules {
			if seen++; r.Health != "ok" {
				t.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if seen == 0 {
		t.Error("Prometheus has no rules")
	}
}

// expressions returns those of the dashboard, by panel, with its variables filled in.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, p := range board.Panels {
		for i, target := range p.Targets {
			all[fmt.Sprint(p.Title, " ", i)] = strings.NewReplacer("$__rate_interval", "30s", "$app", ".+").Replace(target.Expr)
		}
	}
	if len(all) < 10 {
		t.Fatalf("the dashboard asks only %d questions", len(all))
	}
	return all
}

// startPrometheus has Prometheus scrape an address every second, and returns its own URL.
func startPrometheus(t *testing.T, address string) string {
	t.Helper()
	rules, err := filepath.Abs("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yaml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs: [{job_name: watt, static_configs: [{targets: [%q]}]}]\n", rules, address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "config", config)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	own := free.Addr().String()
	free.Close()
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "prometheus", "--config.file="+config, "--storage.tsdb.path="+dir, "--web.listen-address="+own, "--log.level=error")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	soon(t, "Prometheus", func() bool {
		resp, err := http.Get("http://" + own + "/-/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return "http://" + own
}

// ask returns what Prometheus answers to a query.
func ask(t *testing.T, api, query string) []json.RawMessage {
	t.Helper()
	answer := fetchJSON[struct {
		Status, Error string
		Data          struct{ Result []json.RawMessage }
	}](t, api+"/api/v1/query?query="+url.QueryEscape(query))
	if answer.Status != "success" {
		t.Errorf("%s: %s", query, answer.Error)
	}
	return answer.Data.Result
}

func fetchJSON[T any](t *testing.T, url string) T {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var v T
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
