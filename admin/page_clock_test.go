//go:build chromium

package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/org/watt"
	"github.com/org/watt/admin"
)

// TestAClockThatIsSetBackStopsNothing: what shows ten seconds, and the charts, go on from there.
func TestAClockThatIsSetBackStopsNothing(t *testing.T) {
	now := time.Now()
	report := func(at time.Time, full, late uint64) string {
		text, err := json.Marshal(admin.Report{Time: at, Apps: []admin.App{{
			Status: watt.Status{App: watt.App{Name: "store", Workers: 4}, State: "ready", QueueFull: full, WaitTooLong: late},
			Now:    admin.Figures{Requests: 10, Shed: 5},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	mux := http.NewServeMux()
	mux.Handle("/", admin.Handler(system(), admin.Options{}))
	mux.HandleFunc("/history", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode([]admin.Point{{Time: now, Apps: map[string]admin.Figures{"store": {}}}})
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i, text := range []string{report(now, 0, 0), report(now.Add(-time.Hour), 100, 0), report(now.Add(6*time.Second-time.Hour), 100, 5)} {
			fmt.Fprintf(w, "data: %s\n\n", text)
			http.NewResponseController(w).Flush()
			if i == 0 {
				<-time.After(time.Second) // the history has come
			}
		}
		<-r.Context().Done()
	})
	server := httptest.NewServer(mux)
	tab := browser(t)
	defer server.Close()
	defer server.CloseClientConnections()
	run(t, tab, chromedp.Navigate(server.URL+"#store"), holds(`/^Shed: /.test(document.getElementById('shed').textContent)`), holds(`performance.now() > 3000`))
	if got := evaluate[string](t, tab, `document.getElementById('shed').textContent`); got != "Shed: 5.0/s waited too long" {
		t.Errorf("got %q, want what was shed since the clock was set", got)
	}
	run(t, tab, js(`(() => {
		const chart = document.querySelector('#charts .u-over'), { right, top } = chart.getBoundingClientRect()
		chart.dispatchEvent(new MouseEvent('mousemove', { clientX: right - 1, clientY: top + 9, bubbles: true }))
	})()`))
	if got, want := evaluate[string](t, tab, `document.querySelector('#charts .u-value').textContent`), now.Add(6*time.Second-time.Hour).Format(time.TimeOnly); got != want {
		t.Errorf("the last point of the charts is of %s, want %s", got, want)
	}
}
