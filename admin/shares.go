package admin

import (
	"bytes"
	"maps"
	"net/http"
	"runtime/pprof"
	"slices"
	"sync"
	"time"

	"github.com/google/pprof/profile"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	sampleTime  = time.Second      // that a sample takes
	sampleEvery = 15 * time.Second // one begins
)

// shares samples how much the apps that live in this process compute: a CPU profile now and then, whose samples have
// the apps' labels. A process takes one CPU profile at a time, and anybody else's goes first.
type shares struct {
	apps []string // all; a program may have a label of that name for something else

	mu      sync.Mutex
	others  int                // who want to profile
	running *sample            // nil if there is none
	cores   map[string]float64 // by app, in the last sample; nil if there was none
}

// sample is one that is being taken.
type sample struct {
	cut   func()        // ends it
	taken chan struct{} // closed when it has ended
}

// run samples until over is closed.
func (s *shares) run(over <-chan struct{}) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		s.sample(over)
		select {
		case <-tick.C:
		case <-over:
			return
		}
	}
}

func (s *shares) sample(over <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.others > 0 {
		s.cores = nil
		return
	}
	cut := make(chan struct{})
	now := &sample{sync.OnceFunc(func() { close(cut) }), make(chan struct{})}
	s.running = now
	s.mu.Unlock()
	cores := profiled(over, cut)
	close(now.taken)
	s.mu.Lock()
	maps.DeleteFunc(cores, func(app string, _ float64) bool { return !slices.Contains(s.apps, app) })
	s.running, s.cores = nil, cores
}

// profiled returns how many processors each app uses for a moment, or nil if that is cut short or somebody else
// profiles.
func profiled(over, cut <-chan struct{}) map[string]float64 {
	var text bytes.Buffer
	began := time.Now()
	if err := pprof.StartCPUProfile(&text); err != nil {
		return nil
	}
	whole := false
	select {
	case <-time.After(sampleTime):
		whole = true
	case <-over:
	case <-cut:
	}
	pprof.StopCPUProfile()
	took := time.Since(began)
	p, err := profile.Parse(&text)
	if !whole || err != nil {
		return nil
	}
	cores := make(map[string]float64)
	for _, s := range p.Sample {
		if app := s.Label["app"]; len(app) == 1 {
			cores[app[0]] += float64(s.Value[len(s.Value)-1]) / float64(took.Nanoseconds())
		}
	}
	return cores
}

// yielding returns next, which takes a CPU profile, and ends what is sampled before.
func (s *shares) yielding(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.others++
		running := s.running
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			s.others--
			s.mu.Unlock()
		}()
		if running != nil {
			running.cut()
			<-running.taken
		}
		next.ServeHTTP(w, r)
	})
}

// of returns how many processors an app has used in the last sample.
func (s *shares) of(app string) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cores[app]
}

func coresDesc() *prometheus.Desc {
	return prometheus.NewDesc("watt_app_sampled_cpu_cores",
		"Processors that the app used of the first process's, in the last sample of a second; missing while somebody else profiles.",
		[]string{"watt_app"}, nil)
}

// Describe implements [prometheus.Collector].
func (s *shares) Describe(descs chan<- *prometheus.Desc) { descs <- coresDesc() }

// Collect implements [prometheus.Collector].
func (s *shares) Collect(all chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for app, cores := range s.cores {
		all <- prometheus.MustNewConstMetric(coresDesc(), prometheus.GaugeValue, cores, app)
	}
}
