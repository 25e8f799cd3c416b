package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
	"github.com/org/watt/metrics"
	"github.com/org/watt/watttest"
)

func TestMain(m *testing.M) { watttest.Main(m, mills, everything) }

// shop is a gateway in front of two apps, one of which counts something of its own.
func shop() *watt.Runtime {
	return watt.New(
		watt.App{Name: "gateway", Profile: watt.Entrypoint, Listen: "127.0.0.1:0", Calls: []string{"orders"}, New: newGateway},
		watt.App{Name: "orders", Workers: 1, Queue: -1, Instances: 2, New: newOrders},
	)
}

func newGateway(_ context.Context, env *watt.Env) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := env.Get(r.Context(), "http://orders.watt.local"+r.URL.Path)
		if err != nil {
			watt.WriteError(w, err)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	}), nil
}

func newOrders(_ context.Context, env *watt.Env) (http.Handler, error) {
	sold := prometheus.NewCounter(prometheus.CounterOpts{Name: "orders_sold_total", Help: "Orders that were sold."})
	if err := env.Metrics.Register(sold); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/sell", func(w http.ResponseWriter, _ *http.Request) {
		sold.Inc()
		fmt.Fprint(w, "sold")
	})
	mux.HandleFunc("/copy", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("on purpose") })
	return mux, nil
}

// mills are two instances in processes of their own.
func mills() *watt.Runtime {
	return watt.New(watt.App{
		Name: "mill", Listen: "127.0.0.1:0", Instances: 2, Profile: watt.CPUBound, Isolation: watt.OwnProcess, New: newOrders,
	})
}

// scrape returns all samples of a runtime, as Prometheus reads them.
func scrape(t *testing.T, rt *watt.Runtime) samples {
	t.Helper()
	recorder := httptest.NewRecorder()
	metrics.Handler(rt).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	if recorder.Code != http.StatusOK {
		t.Fatalf("got %d %s", recorder.Code, recorder.Body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(recorder.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// samples are metrics by name.
type samples map[string]*dto.MetricFamily

// find returns the metric of a family that has these labels, written as in PromQL, and fails the test if there is none.
func (s samples) find(t *testing.T, name, labels string) *dto.Metric {
	t.Helper()
	if m := s.has(name, labels); m != nil {
		return m
	}
	t.Errorf("there is no %s{%s}", name, labels)
	return new(dto.Metric)
}

func (s samples) has(name, labels string) *dto.Metric {
	for _, m := range s[name].GetMetric() {
		all := make([]string, 0, len(m.GetLabel()))
		for _, l := range m.GetLabel() {
			all = append(all, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
		}
		if strings.Join(all, ",") == labels {
			return m
		}
	}
	return nil
}

func (s samples) value(t *testing.T, name, labels string) float64 {
	t.Helper()
	m := s.find(t, name, labels)
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

func get(t *testing.T, url string) int {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	http.DefaultClient.CloseIdleConnections()
	return resp.StatusCode
}

func TestWhatIsServedShows(t *testing.T) {
	rt := shop()
	top := watttest.Start(t, rt)
	for _, path := range []string{"/sell", "/sell", "/panic", "/nothing"} {
		get(t, top.URL("gateway")+path)
	}
	got := scrape(t, rt)
	instances := []string{`watt_app="orders",watt_instance="0"`, `watt_app="orders",watt_instance="1"`}
	sum := func(name, more string) (n float64) {
		for _, instance := range instances {
			if m := got.has(name, more+instance); m != nil {
				n += m.GetCounter().GetValue()
			}
		}
		return n
	}
	for _, want := range []struct {
		name, more string
		n          float64
	}{
		{"orders_sold_total", "", 2},
		{"watt_requests_total", `method="GET",status="2xx",`, 2},
		{"watt_requests_total", `method="GET",status="4xx",`, 1},
		{"watt_requests_total", `method="GET",status="5xx",`, 1},
		{"watt_panics_total", "", 1},
	} {
		if n := sum(want.name, want.more); n != want.n {
			t.Errorf("%s{%s}: got %v, want %v", want.name, want.more, n, want.n)
		}
	}
	for name, want := range map[string]float64{
		`watt_app_info{isolation="inprocess",profile="entrypoint",watt_app="gateway"}`:        1,
		`watt_requests_admitted_total{watt_app="gateway"}`:                                    4,
		`watt_requests_total{method="GET",status="5xx",watt_app="gateway",watt_instance="0"}`: 1,
		`watt_workers{watt_app="orders"}`:                                                     2,
		`watt_workers_busy{watt_app="orders"}`:                                                0,
		`watt_queue_capacity{watt_app="orders"}`:                                              0,
		`watt_instance_up{watt_app="orders",watt_instance="1"}`:                               1,
		`watt_instance_state{state="ready",watt_app="orders",watt_instance="1"}`:              1,
		`watt_instance_state{state="failed",watt_app="orders",watt_instance="1"}`:             0,
		`watt_instance_generation{watt_app="orders",watt_instance="1"}`:                       1,
		`watt_instance_workers{watt_app="orders",watt_instance="1"}`:                          1,
		`watt_listener_chosen{watt_app="gateway",watt_instance="0"}`:                          1,
		`watt_requests_shed_total{reason="queue_full",watt_app="orders"}`:                     0,
		`watt_instance_restarts_total{cause="asked",watt_app="orders",watt_instance="0"}`:     0,
		`watt_call_received_bytes_total{watt_app="orders",watt_caller="(main)"}`:              0,
		`watt_connections{kind="upgraded",watt_app="gateway"}`:                                0,
		`watt_worker_downstream_seconds_total{watt_app="gateway"}`:                            rt.Status()[0].DownstreamTime.Seconds(),
		`watt_response_bytes_total{watt_app="gateway",watt_instance="0"}`:                     bytesOf(got, "gateway"),
		`watt_call_received_bytes_total{watt_app="orders",watt_caller="gateway"}`:             bytesOf(got, "gateway"),
	} {
		name, labels, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
		if n := got.value(t, name, labels); n != want {
			t.Errorf("%s{%s}: got %v, want %v", name, labels, n, want)
		}
	}
	for _, name := range []string{"watt_instance_cpu_seconds_total", "watt_instance_resident_memory_bytes"} {
		if got.has(name, instances[0]) != nil {
			t.Errorf("an instance without a process of its own has %s", name)
		}
	}
	if n := got.value(t, "watt_listener_accepted_total", `watt_app="gateway",watt_instance="0"`); n < 1 {
		t.Errorf("got %v accepted connections", n)
	}
	if h := got.find(t, "watt_call_duration_seconds", `watt_app="orders",watt_caller="gateway"`).GetHistogram(); h.GetSampleCount() != 4 {
		t.Errorf("got %v calls, want 4", h)
	}
}

func TestWhatGoesWrongShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, hold := holding(t, func(a *watt.App) { a.Workers, a.Queue, a.QueueTimeout = 1, 1, time.Second })
		var calls sync.WaitGroup
		call := func(ctx context.Context) {
			calls.Go(func() {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://orders.watt.local/", strings.NewReader("seven b"))
				if err != nil {
					t.Error(err)
					return
				}
				if resp, err := rt.Env().Client.Do(req); err == nil {
					resp.Body.Close()
				}
			})
			synctest.Wait()
		}
		release := hold(1)
		for range 3 { // the first waits
			call(t.Context())
		}
		time.Sleep(200 * time.Millisecond) // now it is overloaded: newer ones push out older ones
		for range 3 {
			call(t.Context())
		}
		s, got := rt.Status()[0], scrape(t, rt)
		for name, want := range map[string]float64{
			"watt_overloaded": 1, "watt_queue_length": 1, "watt_workers_busy": 1,
			"watt_worker_busy_seconds_total": s.BusyTime.Seconds(), "watt_worker_downstream_seconds_total": 0,
		} {
			if n := got.value(t, name, `watt_app="orders"`); n != want {
				t.Errorf("%s: got %v, want %v", name, n, want)
			}
		}
		time.Sleep(2 * time.Second) // the last one waits too long
		for range 5 {
			ctx, cancel := context.WithCancel(t.Context())
			call(ctx)
			cancel()
			synctest.Wait()
		}
		release()
		release = hold(1) // as long as the one before, as far as anybody knows
		for range 4 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			call(ctx)
		}
		release()
		calls.Wait()
		broken := time.Now()
		if rt.Restart("orders", 0) == nil {
			t.Error("it starts again")
		}
		got = scrape(t, rt)
		for sample, want := range map[string]float64{
			`watt_requests_shed_total{reason="queue_full",watt_app="orders"}`:                  2,
			`watt_requests_shed_total{reason="pushed_out",watt_app="orders"}`:                  3,
			`watt_requests_shed_total{reason="wait_too_long",watt_app="orders"}`:               1,
			`watt_requests_shed_total{reason="gone",watt_app="orders"}`:                        5,
			`watt_requests_shed_total{reason="deadline",watt_app="orders"}`:                    4,
			`watt_call_errors_total{kind="overloaded",watt_app="orders",watt_caller="(main)"}`: 10,
			`watt_call_errors_total{kind="canceled",watt_app="orders",watt_caller="(main)"}`:   5,
			`watt_call_sent_bytes_total{watt_app="orders",watt_caller="(main)"}`:               15 * 7,
			`watt_instance_restarts_total{cause="asked",watt_app="orders",watt_instance="0"}`:  1,
			`watt_instance_restarts_total{cause="start",watt_app="orders",watt_instance="0"}`:  1,
			`watt_instance_up{watt_app="orders",watt_instance="0"}`:                            0,
			`watt_instance_state_timestamp_seconds{watt_app="orders",watt_instance="0"}`:       float64(broken.UnixMilli()) / 1000,
		} {
			name, labels, _ := strings.Cut(strings.TrimSuffix(sample, "}"), "{")
			if n := got.value(t, name, labels); n != want {
				t.Errorf("%s: got %v, want %v", sample, n, want)
			}
		}
		wait := got.find(t, "watt_queue_wait_seconds", `watt_app="orders",watt_instance="0"`).GetHistogram()
		took := got.find(t, "watt_request_duration_seconds", `watt_app="orders",watt_instance="0"`).GetHistogram()
		if wait.GetSampleSum() > 0.001 || took.GetSampleSum() < 2 || took.GetSampleCount() != 2 {
			t.Errorf("got a wait of %v and %d requests of %v", wait.GetSampleSum(), took.GetSampleCount(), took.GetSampleSum())
		}
	})
}

func TestAHandlerThatDoesNotEndShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		rt := watt.New(watt.App{Name: "orders", DrainTimeout: time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })})
		top := watttest.Start(t, rt)
		go top.Get("http://orders.watt.local/")
		synctest.Wait()
		if err := rt.Restart("orders", 0); err != nil {
			t.Error(err)
		}
		got := scrape(t, rt)
		if n := got.value(t, "watt_abandoned_total", `watt_app="orders"`); n != 1 {
			t.Errorf("got %v abandoned, want 1", n)
		}
		if n := got.value(t, "watt_instance_generation", `watt_app="orders",watt_instance="0"`); n != 2 {
			t.Errorf("got generation %v, want 2", n)
		}
	})
}

func TestWhatClashesIsLeftOutAndLogged(t *testing.T) {
	registers := func(all ...prometheus.Collector) func(context.Context, *watt.Env) (http.Handler, error) {
		return func(_ context.Context, env *watt.Env) (http.Handler, error) {
			env.Metrics.MustRegister(all...)
			return http.NotFoundHandler(), nil
		}
	}
	rt := watt.New(
		watt.App{Name: "first", New: registers(
			prometheus.NewCounter(prometheus.CounterOpts{Name: "ambiguous", Help: "A counter."}),
			prometheus.NewGauge(prometheus.GaugeOpts{Name: "watt_workers", Help: "Not its own."}))},
		watt.App{Name: "second", New: registers(
			prometheus.NewGauge(prometheus.GaugeOpts{Name: "ambiguous", Help: "A gauge."}),
			prometheus.NewGauge(prometheus.GaugeOpts{Name: "fine", Help: "Nobody else's."}))},
	)
	core, logs := observer.New(zapcore.WarnLevel)
	rt.Logger = zap.New(core)
	watttest.Start(t, rt)
	got := scrape(t, rt)
	got.find(t, "ambiguous", `watt_app="first",watt_instance="0"`)
	got.find(t, "fine", `watt_app="second",watt_instance="0"`)
	if n := got.value(t, "watt_workers", `watt_app="first"`); n != 64 || got.has("ambiguous", `watt_app="second",watt_instance="0"`) != nil {
		t.Errorf("got %v workers and %v", n, got["ambiguous"])
	}
	all := fmt.Sprint(logs.All())
	for _, has := range []string{"metrics are missing", "ambiguous", "watt_workers"} {
		if !strings.Contains(all, has) {
			t.Errorf("got the log %s, want %q in it", all, has)
		}
	}
}

// astray is a Collector that cannot reach what it counts.
type astray struct{}

func (astray) Describe(chan<- *prometheus.Desc) {}

func (astray) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.NewInvalidMetric(prometheus.NewDesc("lost", "Not reached.", nil, nil), &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE})
}

func TestWhatACollectorCannotWriteToIsLogged(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	rt := shop()
	rt.Logger = zap.New(core)
	rt.Env().Metrics.MustRegister(astray{})
	scrape(t, rt)
	if all := fmt.Sprint(logs.All()); !strings.Contains(all, "metrics are missing") || !strings.Contains(all, "broken pipe") {
		t.Errorf("got the log %s, want what is missing", all)
	}
}

// TestMoreThanAFewScrapesAtATimeAreRefused: a Collector that hangs holds each of them up.
func TestMoreThanAFewScrapesAtATimeAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(watt.App{Name: "app", Handler: http.NotFoundHandler()})
		hang := make(chan struct{})
		defer close(hang)
		rt.Env().Metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "late"}, func() float64 { <-hang; return 1 }))
		h, began := metrics.Handler(rt), time.Now()
		answers := make(chan int, 5)
		for range cap(answers) {
			go func() {
				recorder := httptest.NewRecorder()
				h.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
				answers <- recorder.Code
			}()
		}
		if first, took := <-answers, time.Since(began); first != http.StatusServiceUnavailable || took > 0 {
			t.Errorf("got %d after %v, want 503 at once", first, took)
		}
		for range cap(answers) - 1 {
			if next := <-answers; next != http.StatusOK {
				t.Errorf("got %d, want what there is", next)
			}
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAScraperThatGoesAwayIsNotLogged(t *testing.T) {
	for name, start := range map[string]func(*httptest.Server){
		"TCP":    (*httptest.Server).Start,
		"TLS":    (*httptest.Server).StartTLS,
		"HTTP/2": func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() },
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zapcore.WarnLevel)
			rt := mills()
			rt.Logger = zap.New(core)
			ctx, leave := context.WithCancel(t.Context())
			handler, done := metrics.Handler(rt), make(chan struct{})
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				leave()
				<-r.Context().Done()
				handler.ServeHTTP(w, r)
				close(done)
			}))
			start(server)
			defer server.Close()
			client := server.Client()
			transport := client.Transport.(*http.Transport)
			transport.DisableCompression = true // or nothing would be written before the end
			transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, addr)
				if err == nil {
					err = conn.(*net.TCPConn).SetLinger(0)
				}
				return conn, err
			}
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := client.Do(req); err == nil {
				resp.Body.Close()
				t.Errorf("got %v", resp.Status)
			}
			<-done
			if logs.Len() > 0 {
				t.Errorf("got %d lines, the first of which is %v", logs.Len(), logs.All()[0])
			}
		})
	}
}

func TestConnectionsShowByKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(watt.App{Name: "talk", MaxConns: 4, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") == "" {
				watt.LongLived(r.Context())
				<-r.Context().Done()
				return
			}
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			io.Copy(io.Discard, conn)
		})})
		watttest.Start(t, rt)
		ratio := saturation(t, rt)
		ctx, leave := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		for range 2 {
			calls.Go(func() { rt.Env().Get(ctx, "http://talk.watt.local/") })
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://talk.watt.local/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "websocket")
		upgraded, err := rt.Env().Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := rt.Env().Dial(ctx, "talk")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := ratio(); n != 0 {
			t.Errorf("got a ratio of %v while there is room for all", n)
		}
		if _, err := rt.Env().Dial(ctx, "talk"); !errors.Is(err, watt.ErrOverloaded) {
			t.Errorf("got %v, want no room for a fifth", err)
		}
		if n := ratio(); n != 1 {
			t.Errorf("got a ratio of %v where there is no room for one, want 1", n)
		}
		got := scrape(t, rt)
		for name, want := range map[string]float64{"watt_connections_limit": 4, "watt_connections_shed_total": 1} {
			if n := got.value(t, name, `watt_app="talk"`); n != want {
				t.Errorf("%s: got %v, want %v", name, n, want)
			}
		}
		for kind, want := range map[string]float64{"stream": 2, "raw": 1, "upgraded": 1, "public": 0} {
			if n := got.value(t, "watt_connections", fmt.Sprintf(`kind=%q,watt_app="talk"`, kind)); n != want {
				t.Errorf("%s: got %v, want %v", kind, n, want)
			}
		}
		leave()
		calls.Wait()
		conn.Close()
		upgraded.Body.Close()
	})
}

// bytesOf is what the gateway has answered with, which it has from orders.
func bytesOf(s samples, app string) float64 {
	return s.has("watt_response_bytes_total", fmt.Sprintf(`watt_app=%q,watt_instance="0"`, app)).GetCounter().GetValue()
}

// TestHistogramsSayTheSameTwice compares the classic buckets with the native ones.
func TestHistogramsSayTheSameTwice(t *testing.T) {
	rt := shop()
	top := watttest.Start(t, rt)
	for range 50 {
		get(t, top.URL("gateway")+"/sell")
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewCollector(rt))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			h := m.GetHistogram()
			if h.GetSampleCount() == 0 {
				continue
			}
			seen++
			if h.GetCreatedTimestamp() != nil {
				t.Errorf("%s was created at %v", f.GetName(), h.GetCreatedTimestamp().AsTime())
			}
			native := nativeBuckets(h)
			for _, b := range h.GetBucket() {
				var n int64
				for i, in := range native {
					if math.Exp2(float64(i)/4) <= b.GetUpperBound()*1.0001 {
						n += in
					}
				}
				if uint64(n) != b.GetCumulativeCount() {
					t.Errorf("%s: %d up to %v, native ones say %d", f.GetName(), b.GetCumulativeCount(), b.GetUpperBound(), n)
				}
			}
		}
	}
	if seen < 4 {
		t.Errorf("got %d histograms", seen)
	}
}

// nativeBuckets decodes the buckets of a native histogram.
func nativeBuckets(h *dto.Histogram) map[int]int64 {
	all := make(map[int]int64)
	at, next := 0, 0
	var n int64
	for _, span := range h.GetPositiveSpan() {
		at += int(span.GetOffset())
		for range span.GetLength() {
			n += h.GetPositiveDelta()[next]
			all[at] = n
			at, next = at+1, next+1
		}
	}
	return all
}

func TestLint(t *testing.T) {
	rt := everything()
	top := watttest.Start(t, rt)
	get(t, top.URL("gateway"))
	all := scrape(t, rt)
	var families []*dto.MetricFamily
	for _, name := range names(all) {
		families = append(families, all[name])
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestBeforeTheStartThereIsAnAnswerToo(t *testing.T) {
	got := scrape(t, shop())
	if got.value(t, "watt_workers", `watt_app="orders"`) != 0 {
		t.Error("there are workers before the start")
	}
	got.find(t, "go_goroutines", "") // of this process
}

// saturation returns what tells the ratio of a runtime's only app.
func saturation(t *testing.T, rt *watt.Runtime) func() float64 {
	t.Helper()
	registry := prometheus.NewRegistry() // one, since it remembers
	registry.MustRegister(metrics.NewCollector(rt))
	return func() float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		all := make(samples)
		for _, f := range families {
			all[f.GetName()] = f
		}
		return all.value(t, "watt_app_saturation_ratio", fmt.Sprintf("watt_app=%q", rt.Status()[0].Name))
	}
}

// holding is a runtime whose only app holds each request until release, and what has it hold n. No instance
// starts a second time.
func holding(t *testing.T, change func(*watt.App)) (rt *watt.Runtime, hold func(n int) (release func())) {
	t.Helper()
	holds, started := make(chan struct{}), make(map[int]bool)
	var mu sync.Mutex
	orders := watt.App{
		Name: "orders", Timeout: -1, Queue: 100, QueueTimeout: time.Hour, MaxRestarts: -1,
		New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			mu.Lock()
			defer mu.Unlock()
			if started[env.Instance] {
				return nil, errors.New("broken on purpose")
			}
			started[env.Instance] = true
			return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-holds }), nil
		},
	}
	change(&orders)
	rt = watt.New(orders)
	watttest.Start(t, rt)
	return rt, func(n int) func() {
		var calls sync.WaitGroup
		for range n {
			calls.Go(func() {
				if resp, err := rt.Env().Get(t.Context(), "http://orders.watt.local/"); err == nil {
					resp.Body.Close()
				}
			})
		}
		synctest.Wait()
		return func() {
			for range n {
				holds <- struct{}{}
			}
			calls.Wait()
		}
	}
}

func resize(t *testing.T, rt *watt.Runtime, workers int) {
	t.Helper()
	if err := rt.Update("orders", func(a *watt.App) { a.Workers = workers }); err != nil {
		t.Fatal(err)
	}
}

func TestFewerWorkersAreNotSaturatedByWhatMoreHaveDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, hold := holding(t, func(a *watt.App) { a.Workers = 8 })
		ratio := saturation(t, rt)
		ratio()
		release := hold(8)
		time.Sleep(14 * time.Second)
		release()
		resize(t, rt, 2)
		time.Sleep(time.Second)
		if got := ratio(); got != 0 {
			t.Errorf("got %v with nothing to do", got)
		}
	})
}

// TestTwoWhoScrapeMeasureNoMoment: the second comes a moment after the first.
func TestTwoWhoScrapeMeasureNoMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, hold := holding(t, func(a *watt.App) { a.Workers = 1 })
		ratio := saturation(t, rt)
		ratio()
		for range 3 {
			time.Sleep(5 * time.Second)
			release := hold(1)
			time.Sleep(5 * time.Second)
			ratio()
			release()
			time.Sleep(50 * time.Millisecond)
			if got := ratio(); got < 0.45 || got > 0.55 {
				t.Errorf("got %v of an app that was busy half of the time", got)
			}
		}
	})
}

func TestAFullAppIsSaturatedAlsoWithMoreWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, hold := holding(t, func(a *watt.App) { a.Workers = 2 })
		ratio, release := saturation(t, rt), hold(16)
		ratio()
		time.Sleep(13 * time.Second)
		resize(t, rt, 8)
		for range 3 {
			time.Sleep(2 * time.Second)
			if got := ratio(); got != 1 {
				t.Errorf("got %v with all workers busy", got)
			}
		}
		release()
	})
}

func TestInstancesThatAreDownHaveNoWorkersToSpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, hold := holding(t, func(a *watt.App) { a.Instances, a.Workers = 4, 1 })
		for i := range 3 {
			if rt.Restart("orders", 1+i) == nil {
				t.Error("it starts")
			}
		}
		ratio, release := saturation(t, rt), hold(1)
		ratio()
		time.Sleep(15 * time.Second)
		if got := ratio(); got != 1 {
			t.Errorf("got %v with the only worker busy", got)
		}
		release()
	})
}

func TestSaturationGoesByProfile(t *testing.T) {
	at := func(profile watt.Profile, busy time.Duration, cpu ...time.Duration) *watt.Status {
		s := &watt.Status{App: watt.App{Profile: profile, Workers: 2}, BusyTime: busy, Busy: 3, Queued: 5}
		for i, used := range cpu {
			s.PerInstance = append(s.PerInstance, watt.InstanceStatus{State: "ready", PID: 7 + i, CPUTime: used})
		}
		return s
	}
	const s = time.Second
	renewed := at(watt.CPUBound, 0, 30*s, s)
	renewed.PerInstance[1].PID = 99
	late := at(watt.Domain, 0, 0, 0)
	late.Deadline = 1
	breath := at(watt.IOBound, 40*s, 0, 0)
	breath.Busy, breath.Queued = 1, 0
	for name, test := range map[string]struct {
		before, after *watt.Status
		elapsed       time.Duration
		want          float64
	}{
		"half of the workers' time":       {at(watt.Domain, 10*s, 0, 0), at(watt.Domain, 30*s, 0, 0), 10 * s, 0.5},
		"an entrypoint's":                 {at(watt.Entrypoint, 10*s, 0, 0), at(watt.Entrypoint, 30*s, 0, 0), 10 * s, 0.5},
		"no time: those who are busy":     {at(watt.Domain, 0, 0, 0), at(watt.Domain, 0, 0, 0), 0, 0.75},
		"processors, if they are more":    {at(watt.CPUBound, 0, 0, 0), at(watt.CPUBound, 10*s, 20*s, 10*s), 10 * s, 0.75},
		"workers, if they are more":       {at(watt.CPUBound, 0, 0, 0), at(watt.CPUBound, 30*s, 10*s, 0), 10 * s, 0.75},
		"processors of those that stayed": {at(watt.CPUBound, 0, 10*s, 0), renewed, 10 * s, 0.5},
		"who works and who waits":         {at(watt.IOBound, 0, 0, 0), at(watt.IOBound, 0, 0, 0), 10 * s, 2},
		"who has worked, just now fewer":  {at(watt.IOBound, 10*s, 0, 0), breath, 10 * s, 0.75},
		"a deadline that was too near":    {at(watt.Domain, 0, 0, 0), late, 10 * s, 1},
		"no instance":                     {at(watt.IOBound, 0), at(watt.IOBound, 0), 10 * s, 0},
	} {
		if got := metrics.Saturation(test.before, test.after, test.elapsed); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestWhatIsShedSaturates(t *testing.T) {
	rt := watt.New(watt.App{Name: "slow", Listen: "127.0.0.1:0", Workers: 1, Queue: -1, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
	})})
	top := watttest.Start(t, rt)
	ratio := saturation(t, rt)
	if got := ratio(); got != 0 {
		t.Errorf("got %v of an idle app", got)
	}
	body, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, err := http.Post(top.URL("slow"), "text/plain", body)
		if err == nil {
			resp.Body.Close()
		}
	}()
	soon(t, "a busy worker", func() bool { return rt.Status()[0].Busy == 1 })
	if status := get(t, top.URL("slow")); status != http.StatusServiceUnavailable {
		t.Errorf("got %d, want 503", status)
	}
	if got := ratio(); got < 1 {
		t.Errorf("got %v of an app that refuses requests", got)
	}
	w.Close()
	<-done
	http.DefaultClient.CloseIdleConnections()
}

// soon waits until what is asked for holds.
func soon(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); !holds(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// names returns the names of a runtime's own metrics, in order.
func names(s samples) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s)), func(name string) bool { return !strings.HasPrefix(name, "watt_") })
}
