package watt

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Gather implements [prometheus.Gatherer] for what the apps have registered in their Env.Metrics, own processes
// included. What an instance does not tell within a second is left out.
func (rt *Runtime) Gather() ([]*dto.MetricFamily, error) {
	rt.mu.Lock()
	apps := rt.apps
	rt.mu.Unlock()
	gatherers := []prometheus.Gatherer{rt.Env().registry} // main's
	for _, a := range apps {
		gatherers = append(gatherers, a.registries()...)
	}
	return gathered(gatherers)
}

// registries returns those of the generations that live.
func (a *app) registries() []prometheus.Gatherer {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []prometheus.Gatherer
	for _, in := range a.instances {
		if l := in.current(); l != nil {
			all = append(all, l.metrics())
		}
	}
	return all
}

// registry has what main or a generation has registered. It is asked by one at a time: a Collector that hangs holds that one
// up, and nobody for longer than metricsTime.
type registry struct {
	*prometheus.Registry
	whose  string
	asking chan struct{} // has room for one
}

// newRegistry returns main's if there is no app.
func newRegistry(app string, instance int) *registry {
	whose := "main"
	if app != "" {
		whose = app + ", instance " + strconv.Itoa(instance)
	}
	return &registry{prometheus.NewRegistry(), whose, make(chan struct{}, 1)}
}

// Gather implements [prometheus.Gatherer].
func (r *registry) Gather() ([]*dto.MetricFamily, error) {
	late := time.After(metricsTime)
	select {
	case r.asking <- struct{}{}:
	case <-late:
		return nil, r.silent()
	}
	var families []*dto.MetricFamily
	var err error
	done := make(chan struct{})
	go func() {
		families, err = r.Registry.Gather()
		close(done)
		<-r.asking
	}()
	select {
	case <-done:
		return families, err
	case <-late:
		return nil, r.silent()
	}
}

func (r *registry) silent() error {
	return fmt.Errorf("what %s has registered: a Collector did not return within %v", r.whose, metricsTime)
}

// gathered asks all at once, since each may take its time, and merges what they say.
func gathered(from []prometheus.Gatherer) ([]*dto.MetricFamily, error) {
	all := make(prometheus.Gatherers, len(from))
	var asking sync.WaitGroup
	for i, g := range from {
		asking.Go(func() {
			families, err := g.Gather()
			all[i] = prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, err })
		})
	}
	asking.Wait()
	return all.Gather()
}
