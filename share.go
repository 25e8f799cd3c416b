package watt

import (
	"runtime"

	"go.uber.org/zap"
)

// processorsToSpare is how many processors those who compute in this process may keep busy. One is for everybody else:
// goroutines that compute take turns of 10 ms, for which all others would wait.
func processorsToSpare() int { return runtime.GOMAXPROCS(0) - 1 }

// allWithDefaults is withDefaults of all apps of a runtime. Those that compute in this process share the processors
// that it can spare.
func allWithDefaults(configs []App) []App {
	all := make([]App, len(configs))
	spare, takers := processorsToSpare(), 0
	for i := range configs {
		all[i] = configs[i].withDefaults()
		switch here := all[i].computesHere(); {
		case here > 0 && configs[i].Workers == 0:
			takers += all[i].Instances
		case here > 0:
			spare -= here
		}
	}
	for i := range all {
		if all[i].computesHere() > 0 && configs[i].Workers == 0 {
			all[i].Workers = max(1, spare/takers)
		}
	}
	return all
}

// share gives an app that computes in this process its default number of workers while the runtime runs: what the others
// leave.
func (rt *Runtime) share(config *App) {
	if config.computesHere() == 0 {
		return
	}
	spare := processorsToSpare()
	for _, other := range rt.apps {
		if other.name != config.Name {
			spare -= other.conf().computesHere()
		}
	}
	config.Workers = max(1, spare/config.Instances)
}

// computesHere returns how many goroutines of a may compute in this process at the same time, if that is what a does.
func (a *App) computesHere() int {
	if a.Profile != CPUBound || a.Isolation != InProcess {
		return 0
	}
	return a.Workers * a.Instances
}

// warnOfHunger says when so much may be computed in this process that nothing else gets its turn in time. What only a test
// has here is not meant.
func (rt *Runtime) warnOfHunger(configs []App) {
	workers, spare := 0, max(1, processorsToSpare())
	for i := range configs {
		if !rt.configs[i].insideForTest() {
			workers += configs[i].computesHere()
		}
	}
	if workers > spare {
		rt.log().Warn("CPU-bound workers in this process may keep all others waiting; OwnProcess does not",
			zap.Int("workers", workers), zap.Int("processors_to_spare", spare))
	}
}
