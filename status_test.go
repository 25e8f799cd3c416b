package watt_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/org/watt"
)

func TestAllConfigurationMistakesComeBackTogetherByAppAndField(t *testing.T) {
	h := http.NotFoundHandler()
	newH := func(context.Context, *watt.Env) (http.Handler, error) { return h, nil }
	all := []struct {
		app  watt.App
		want []string // after the app's name; none for an app without mistakes
	}{
		{watt.App{Name: "good", Handler: h, Listen: ":8080", Calls: []string{"also-good"}}, nil},
		{watt.App{Name: "also-good", New: newH, Queue: -1, QueueTimeout: -1, MaxConns: -1, Timeout: -1, StartTimeout: -1, DrainTimeout: -1, MaxRestarts: -1}, nil},
		{watt.App{Name: "moved", Handler: h, URL: "https://elsewhere.example/base"}, nil},
		{watt.App{Name: "", Handler: h}, []string{"Name: use lower-case"}},
		{watt.App{Name: "Upper", Handler: h}, []string{"Name: use lower-case"}},
		{watt.App{Name: "-hyphen", Handler: h}, []string{"Name: use lower-case"}},
		{watt.App{Name: "do.ts", Handler: h}, []string{"Name: use lower-case"}},
		{watt.App{Name: strings.Repeat("x", 64), Handler: h}, []string{"Name: use lower-case"}},
		{watt.App{Name: "twice", Handler: h}, nil},
		{watt.App{Name: "twice", Handler: h}, []string{"Name: two apps"}},
		{watt.App{Name: "none"}, []string{"Handler, New, Serve: none"}},
		{watt.App{Name: "several", Handler: h, New: newH}, []string{"Handler, New, Serve: more than one"}},
		{watt.App{Name: "unknown", Handler: h, Calls: []string{"nobody"}}, []string{`Calls: there is no app "nobody": there are `}},
		{watt.App{Name: "self", Handler: h, Calls: []string{"self"}}, []string{"Calls: goes round in a circle: self → self"}},
		{watt.App{Name: "left", Handler: h, Calls: []string{"right"}}, []string{"Calls: goes round in a circle: left → right → left"}},
		{watt.App{Name: "right", Handler: h, Calls: []string{"left"}}, nil},
		{watt.App{Name: "same-port", Handler: h, Listen: "127.0.0.1:8080"}, []string{`Listen: 127.0.0.1:8080 is claimed by app "good" too`}},
		{watt.App{Name: "far-port", Handler: h, Listen: ":99999"}, []string{`Listen: ":99999": there is no port 99999`}},
		{watt.App{Name: "no-port", Handler: h, Listen: "localhost"}, []string{"Listen: address localhost: missing port in address; use host:port, or :port for all hosts"}},
		{watt.App{Name: "url", URL: "ftp://x"}, []string{"URL: "}},
		{watt.App{Name: "mesh-url", URL: "http://good.watt.local"}, []string{"URL: "}},
		{watt.App{Name: "path", Handler: h, ReadyPath: "ready"}, []string{"ReadyPath: "}},
		{watt.App{Name: "enums", Handler: h, Profile: 17, Isolation: -3}, []string{"Profile: ", "Isolation: "}},
		{watt.App{Name: "remote", Handler: h, Isolation: watt.Remote}, []string{"Isolation: "}},
		{watt.App{Name: "counts", Handler: h, Instances: -1, Workers: -1, Queue: -2, MaxConns: -2, MaxRestarts: -2}, []string{"Instances: ", "Workers: ", "Queue: ", "MaxConns: ", "MaxRestarts: "}},
		{watt.App{Name: "many", Handler: h, Instances: 1025}, []string{"Instances: 1025 is out of range: use 1024 or less"}},
		{watt.App{Name: "tight", Handler: h, Isolation: watt.OwnProcess, MemoryLimit: 64 << 20}, []string{"MemoryLimit: must be 128 MiB at least"}},
		{watt.App{Name: "priority", Handler: h, MemoryLimit: -1, Nice: 20}, []string{"MemoryLimit, Nice: ", "MemoryLimit: ", "Nice: "}},
		{watt.App{Name: "inside", Handler: h, Profile: watt.CPUBound, Isolation: watt.InProcess, MemoryLimit: 1 << 30}, []string{"MemoryLimit, Nice: these need processes of their own: set them to 0, or Isolation to OwnProcess"}},
		{watt.App{Name: "profile", Handler: h, Profile: watt.CPUBound, MemoryLimit: 1 << 30, Nice: 5}, nil}, // in a test it stays here
		{watt.App{Name: "times", Handler: h, QueueTimeout: -2, Timeout: -2, StartTimeout: -2, DrainTimeout: -2}, []string{"QueueTimeout: ", "Timeout: ", "StartTimeout: ", "DrainTimeout: "}},
		{watt.App{Name: "endless", Handler: h, DrainTimeout: math.MaxInt64}, []string{"DrainTimeout: 2562047h47m16.854775807s is out of range: use a year or less"}},
	}
	var apps []watt.App
	var want []string
	for _, c := range all {
		apps = append(apps, c.app)
		for _, mistake := range c.want {
			want = append(want, fmt.Sprintf("watt: app %q: %s", c.app.Name, mistake))
		}
	}
	started := false
	apps = append(apps, watt.App{Name: "witness", New: func(context.Context, *watt.Env) (http.Handler, error) {
		started = true
		return h, nil
	}})
	err := watt.New(apps...).Run(t.Context())
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	for _, w := range want {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, w) }) {
			t.Errorf("not reported: %s", w)
		}
	}
	for _, l := range lines {
		if !slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(l, w) }) {
			t.Errorf("no mistake: %s", l)
		}
	}
	if started {
		t.Error("an app was started")
	}
	if err := watt.New().Run(t.Context()); err == nil {
		t.Error("no error without apps")
	}
}

func TestTheAddressOfAdminMayBeNoApps(t *testing.T) {
	rt := watt.New(working("a", func(a *watt.App) { a.Listen = "127.0.0.1:8080" }))
	rt.Admin = &http.Server{Addr: "127.0.0.1:8080"}
	if err := rt.Start(t.Context()); err == nil || err.Error() != `watt: Admin: Addr: 127.0.0.1:8080 is claimed by app "a" too` {
		t.Errorf("got %v", err)
	}
}

func TestStatusShowsTheConfigurationBeforeTheStartInTheOrderOfNew(t *testing.T) {
	calls := []string{"b"}
	rt := watt.New(working("a", func(a *watt.App) { a.Calls, a.Profile = calls, watt.Entrypoint }), working("b", nil))
	calls[0] = "changed by its owner"
	all := rt.Status()
	if len(all) != 2 || all[0].Name != "a" || all[1].Name != "b" {
		t.Fatalf("got %+v", all)
	}
	a := all[0]
	if a.State != "new" || a.Workers != 256 || a.Queue != 64 || a.QueueTimeout != 100*time.Millisecond || a.Isolation != watt.InProcess {
		t.Errorf("got %+v", a)
	}
	if !slices.Equal(a.Calls, []string{"b"}) {
		t.Errorf("got Calls %q: it was not copied", a.Calls)
	}
	wantErr(t, rt.Env().Check("a"), watt.ErrUnavailable)
	wantErr(t, get(t.Context(), rt, "a.watt.local/").err, watt.ErrUnavailable)
	if err := rt.Ready(); err == nil {
		t.Error("ready before the start")
	}
}

func TestStatusCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", one(1, time.Minute)))
		started := time.Now()
		first := going(t.Context(), rt, "a.watt.local/3s")
		synctest.Wait()
		second := going(t.Context(), rt, "a.watt.local/2s")
		time.Sleep(time.Second)
		s := statusOf(t, rt, "a")
		if s.State != "ready" || !s.Since.Equal(started) || s.Busy != 1 || s.Queued != 1 || s.BusyTime != time.Second || !s.Overloaded {
			t.Errorf("got %+v", s)
		}
		if in := s.PerInstance[0]; len(s.PerInstance) != 1 || in.State != "ready" || in.Generation != 1 || in.Busy != 1 || in.PID != 0 || in.LastError != "" {
			t.Errorf("got %+v", s.PerInstance)
		}
		<-first
		<-second
		synctest.Wait()
		if s = statusOf(t, rt, "a"); s.BusyTime != 5*time.Second || s.QueueWait != 3*time.Second || s.Admitted != 2 {
			t.Errorf("got BusyTime %v, QueueWait %v, Admitted %d", s.BusyTime, s.QueueWait, s.Admitted)
		}
	})
}

func TestAllLimitsCanBeChangedWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", one(8, time.Minute)))
		update := func(change func(*watt.App)) {
			t.Helper()
			if err := rt.Update("a", change); err != nil {
				t.Error(err)
			}
		}
		var calls []<-chan result
		for range 6 {
			calls = append(calls, going(t.Context(), rt, "a.watt.local/1s"))
			synctest.Wait()
		}
		update(func(a *watt.App) { a.Workers = 3 }) // wakes waiters
		synctest.Wait()
		if s := statusOf(t, rt, "a"); s.Busy != 3 || s.Queued != 3 || s.Workers != 3 {
			t.Errorf("more workers: got Busy %d, Queued %d", s.Busy, s.Queued)
		}
		update(func(a *watt.App) { a.Queue = 1 }) // sheds the newest
		for _, c := range calls[4:] {
			wantErr(t, (<-c).err, watt.ErrOverloaded)
		}
		update(func(a *watt.App) { a.Instances, a.Workers = 2, 2 })
		synctest.Wait()
		if s := statusOf(t, rt, "a"); s.Busy != 4 || s.Queued != 0 || len(s.PerInstance) != 2 {
			t.Errorf("more instances: got Busy %d, Queued %d, %d instances", s.Busy, s.Queued, len(s.PerInstance))
		}
		began := time.Now()
		update(func(a *watt.App) { a.Instances = 1 }) // drains the last
		wantTook(t, time.Since(began), time.Second)
		for _, c := range calls[:4] {
			if r := <-c; r.status != http.StatusOK {
				t.Errorf("got %+v", r)
			}
		}
		update(func(a *watt.App) { a.Workers, a.QueueTimeout, a.Timeout = 0, 0, 10*time.Millisecond })
		if s := statusOf(t, rt, "a"); s.Workers != 64 || s.QueueTimeout != time.Second || len(s.PerInstance) != 1 {
			t.Errorf("zero is the default again: got %+v", s.App)
		}
		wantErr(t, get(t.Context(), rt, "a.watt.local/1s").err, context.DeadlineExceeded)
		update(func(a *watt.App) { a.MaxConns = -1 })
		_, err := rt.Env().Dial(t.Context(), "a")
		wantErr(t, err, watt.ErrOverloaded)
	})
}

func TestAChangeThatIsRefusedChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		generations := 0
		rt := start(t, watt.App{Name: "a", Workers: 4, New: func(context.Context, *watt.Env) (http.Handler, error) {
			if generations++; generations > 1 {
				return nil, errors.New("one is enough")
			}
			return http.HandlerFunc(work), nil
		}})
		before := statusOf(t, rt, "a")
		for field, change := range map[string]func(*watt.App){
			"Name":      func(a *watt.App) { a.Name = "b" },
			"Handler":   func(a *watt.App) { a.Handler = http.NotFoundHandler() },
			"Listen":    func(a *watt.App) { a.Listen = ":80" },
			"Calls":     func(a *watt.App) { a.Calls = []string{"a"} },
			"Workers":   func(a *watt.App) { a.Workers = -1 },
			"Queue":     func(a *watt.App) { a.Queue = -2 },
			"ReadyPath": func(a *watt.App) { a.ReadyPath = "ready" },
			"Instances": func(a *watt.App) { a.Instances = 2 }, // the second cannot start
		} {
			err := rt.Update("a", func(a *watt.App) { a.Queue = 77; a.MaxConns = 3; change(a) })
			if err == nil || !strings.Contains(err.Error(), `app "a": `+field+": ") {
				t.Errorf("%s: got %v", field, err)
			}
			s := statusOf(t, rt, "a")
			if s.Name != "a" || s.Workers != 4 || s.Queue != before.Queue || s.MaxConns != before.MaxConns || s.ReadyPath != "" || len(s.PerInstance) != 1 {
				t.Errorf("%s: changed to %+v with %d instances", field, s.App, len(s.PerInstance))
			}
		}
		wantErr(t, rt.Update("nobody", func(*watt.App) {}), watt.ErrNoSuchApp)
	})
}

func TestConcurrentUpdatesAllCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", func(a *watt.App) { a.Workers = 1 }))
		var updates sync.WaitGroup
		for i := range 20 {
			updates.Go(func() {
				err := rt.Update("a", func(a *watt.App) { a.Workers++; a.Instances = 1 + i%3 })
				if err != nil {
					t.Error(err)
				}
			})
		}
		updates.Wait()
		if s := statusOf(t, rt, "a"); s.Workers != 21 || len(s.PerInstance) != s.Instances {
			t.Errorf("got Workers %d, Instances %d of which %d are there", s.Workers, s.Instances, len(s.PerInstance))
		}
	})
}

func TestBeforeTheStartUpdateSetsAnyField(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(watt.App{Name: "a", Serve: answering, Listen: "127.0.0.1:80"})
		err := rt.Update("a", func(a *watt.App) {
			a.Serve, a.Listen, a.Handler = nil, "", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a fake") })
		})
		if err != nil {
			t.Fatal(err)
		}
		wantErr(t, rt.Update("b", func(*watt.App) {}), watt.ErrNoSuchApp)
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := get(t.Context(), rt, "a.watt.local/"); r.body != "a fake" {
			t.Errorf("got %+v", r)
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := rt.Update("a", func(*watt.App) {}); err == nil {
			t.Error("Update works after the shutdown")
		}
	})
}

// samples returns the values of the counter called name, by app and instance.
func samples(t *testing.T, rt *watt.Runtime, name string) map[string]float64 {
	t.Helper()
	families, err := rt.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			values[labels["watt_app"]+"/"+labels["watt_instance"]] = m.GetCounter().GetValue()
		}
	}
	return values
}

func TestMetricsAreAFreshRegistryPerGenerationGatheredWhileThatLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counting := func(_ context.Context, env *watt.Env) (http.Handler, error) {
			seen := prometheus.NewCounter(prometheus.CounterOpts{Name: "seen", Help: "Requests."})
			if err := env.Metrics.Register(seen); err != nil {
				return nil, err
			}
			return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Inc() }), nil
		}
		rt := start(t, watt.App{Name: "a", New: counting, Instances: 2}, watt.App{Name: "b", New: counting})
		for range 3 {
			get(t.Context(), rt, "b.watt.local/")
		}
		get(t.Context(), rt, "a.watt.local/")
		for _, step := range []struct {
			do   func() error
			want string
		}{
			{func() error { return nil }, "map[a/0:1 a/1:0 b/0:3]"},
			{func() error { return rt.Restart("b", 0) }, "map[a/0:1 a/1:0 b/0:0]"},
			{func() error { return rt.Update("a", func(a *watt.App) { a.Instances = 1 }) }, "map[a/0:1 b/0:0]"},
			{func() error { return rt.Shutdown(t.Context()) }, "map[]"},
		} {
			if err := step.do(); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(samples(t, rt, "seen")); got != step.want {
				t.Errorf("got %s, want %s", got, step.want)
			}
		}
	})
}

// hanging is a Collector that waits until it may go on.
type hanging struct {
	goOn  chan struct{}
	asked *atomic.Int64
	desc  *prometheus.Desc
}

func (h hanging) Describe(descs chan<- *prometheus.Desc) { descs <- h.desc }

func (h hanging) Collect(metrics chan<- prometheus.Metric) {
	h.asked.Add(1)
	<-h.goOn
	metrics <- prometheus.MustNewConstMetric(h.desc, prometheus.GaugeValue, 1)
}

func TestACollectorThatHangsHoldsNobodyUpForLongAndIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hanging{make(chan struct{}), new(atomic.Int64), prometheus.NewDesc("seen", "Orders.", nil, nil)}
		rt := start(t,
			watt.App{Name: "a", Instances: 2, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
				return http.NotFoundHandler(), env.Metrics.Register(h)
			}},
			watt.App{Name: "b", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
				return http.NotFoundHandler(), env.Metrics.Register(prometheus.NewGauge(prometheus.GaugeOpts{Name: "seen", Help: "Orders."}))
			}},
		)
		gathered := func() (families []*dto.MetricFamily, took time.Duration, err error) {
			began := time.Now()
			families, err = rt.Gather()
			return families, time.Since(began), err
		}
		for range 3 {
			families, took, err := gathered()
			if err == nil || !strings.Contains(err.Error(), "a, instance 0") || !strings.Contains(err.Error(), "a, instance 1") || took != time.Second {
				t.Errorf("got %v after %v", err, took)
			}
			if len(families) != 1 || len(families[0].GetMetric()) != 1 {
				t.Errorf("got %v, want b's alone", families)
			}
		}
		if n := h.asked.Load(); n != 2 {
			t.Errorf("the two were asked %d times at once", n)
		}
		close(h.goOn)
		synctest.Wait()
		if families, took, err := gathered(); err != nil || took != 0 || len(families[0].GetMetric()) != 3 {
			t.Errorf("got %v, %v after %v when it goes on", families, err, took)
		}
	})
}

func TestTheTimeOfRequestsIsTheirOwnOrThatOfOtherApps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left io.Closer
		rt := start(t, working("a", nil), working("b", nil), calling("gateway", func(env *watt.Env, _ http.ResponseWriter, r *http.Request) {
			<-time.After(time.Second) // its own
			var calls sync.WaitGroup
			for _, url := range []string{"http://a.watt.local/2s", "http://b.watt.local/5s"} { // at the same time
				calls.Go(func() {
					if resp, err := env.Get(r.Context(), url); err == nil {
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				})
			}
			calls.Wait()
			done := watt.Downstream(r.Context()) // what is no call by Client
			<-time.After(4 * time.Second)
			done()
			done()
			watt.Downstream(context.Background())()
			if resp, err := env.Get(r.Context(), "http://a.watt.local/3s"); err == nil { // which outlasts the request
				left = resp.Body
			}
			<-time.After(7 * time.Second)
		}, "a", "b"))
		get(t.Context(), rt, "gateway.watt.local/")
		time.Sleep(time.Hour)
		left.Close()
		s := statusOf(t, rt, "gateway")
		if s.BusyTime != 20*time.Second || s.DownstreamTime != 19*time.Second {
			t.Errorf("got %v, of which %v downstream, want 20 s and 19 s", s.BusyTime, s.DownstreamTime)
		}
		if s := statusOf(t, rt, "a"); s.BusyTime != 5*time.Second || s.DownstreamTime != 0 {
			t.Errorf("a: got %v, of which %v downstream, want 5 s and none", s.BusyTime, s.DownstreamTime)
		}
	})
}

func TestAWaitForAnAppThatHangsCountsWhileItLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, working("a", nil), calling("gateway", func(env *watt.Env, _ http.ResponseWriter, r *http.Request) {
			if resp, err := env.Get(r.Context(), "http://a.watt.local/1h"); err == nil {
				resp.Body.Close()
			}
			<-time.After(4 * time.Second)
		}, "a"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go get(ctx, rt, "gateway.watt.local/")
		waited := func(want time.Duration) {
			t.Helper()
			if s := statusOf(t, rt, "gateway"); s.DownstreamTime != want {
				t.Errorf("got %v of %v downstream, want %v", s.DownstreamTime, s.BusyTime, want)
			}
		}
		time.Sleep(10 * time.Second)
		waited(10 * time.Second)
		go rt.Restart("gateway", 0) // those that are about to end wait as well
		time.Sleep(5 * time.Second)
		waited(15 * time.Second)
		cancel() // what comes now is its own
		time.Sleep(3 * time.Second)
		waited(15 * time.Second)
	})
}

func TestACalleeThatIsNamedTwiceIsOneCallee(t *testing.T) {
	rt := start(t, working("a", func(a *watt.App) { a.Calls = []string{"b", "b"} }), working("b", nil))
	if got := statusOf(t, rt, "a").Calls; !slices.Equal(got, []string{"b"}) {
		t.Errorf("got Calls %q, want b once", got)
	}
	if got := len(statusOf(t, rt, "b").PerCaller); got != 2 {
		t.Errorf("got %d callers, want main and a", got)
	}
}

func TestAStatusCanBeReadBackFromJSON(t *testing.T) {
	t.Parallel()
	rt := start(t, watt.App{Name: "a", Profile: watt.IOBound, Handler: http.NotFoundHandler()})
	text, err := json.Marshal(rt.Status())
	if err != nil {
		t.Fatal(err)
	}
	var back []watt.Status
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if s := back[0]; s.Profile != watt.IOBound || s.Isolation != watt.InProcess || s.Workers != 16 {
		t.Errorf("got %s, %s, %d workers", s.Profile, s.Isolation, s.Workers)
	}
	for _, wrong := range []string{`{"Profile":"cpu"}`, `{"Isolation":"none"}`} {
		if err := json.Unmarshal([]byte(wrong), new(watt.Status)); err == nil {
			t.Errorf("%s was taken", wrong)
		}
	}
}

func TestStatusHandsOutACopyOfCalls(t *testing.T) {
	rt := start(t, calling("a", func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
		resp, err := env.Get(r.Context(), "http://b.watt.local/")
		io.WriteString(w, read(t, resp, err))
	}, "b"), app("b", sayHello))
	statusOf(t, rt, "a").Calls[0] = "changed by its reader"
	if got := statusOf(t, rt, "a").Calls; !slices.Equal(got, []string{"b"}) {
		t.Errorf("got Calls %q", got)
	}
	if r := get(t.Context(), rt, "a.watt.local/"); r.body != "hello" {
		t.Errorf("got %+v", r)
	}
}
