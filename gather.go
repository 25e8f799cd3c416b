package watt

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Gather implements [prometheus.Gatherer] for what the apps have registered in their Env.Metrics, own processes
// included. A process that does not answer within a second is left out.
func (rt *Runtime) Gather() ([]*dto.MetricFamily, error) {
	rt.mu.Lock()
	apps := rt.apps
	rt.mu.Unlock()
	gatherers := []prometheus.Gatherer{rt.Env().registry}
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
