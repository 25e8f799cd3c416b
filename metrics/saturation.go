package metrics

import (
	"sync"
	"time"

	"github.com/org/watt"
)

// Saturation is how much of what an app can do it had to do between two looks at it, by what its profile scales on; 1
// is all:
//
//   - CPUBound: the greater of the workers' utilisation and that of the processors by its own processes, as far as
//     its workers can use them
//   - IOBound: the greater of the workers' utilisation and how many are at work or wait for it at the second look, of
//     the workers, which are the backend's connections
//   - Entrypoint and Domain: the workers' utilisation
//
// Only workers of instances that are ready count. If no time has passed, utilisation is how many are busy. If anything
// was shed in between, the value is 1 at least, for all profiles. Of an app without workers of its own it is 0.
func Saturation(before, after *watt.Status, elapsed time.Duration) float64 {
	ratio := utilisation(before, after, elapsed.Seconds())
	if shedOf(after) > shedOf(before) {
		ratio = max(ratio, 1)
	}
	return ratio
}

func utilisation(before, after *watt.Status, seconds float64) float64 {
	workers := float64(max(readyWorkers(before), readyWorkers(after)))
	switch {
	case workers == 0:
		return 0
	case seconds <= 0 && after.Profile == watt.IOBound:
		return float64(after.Busy+after.Queued) / workers
	case seconds <= 0:
		return min(1, float64(after.Busy)/workers)
	}
	ratio := min(1, (after.BusyTime-before.BusyTime).Seconds()/seconds/workers)
	switch after.Profile {
	case watt.CPUBound:
		ratio = max(ratio, processorTime(before, after).Seconds()/seconds/workers)
	case watt.IOBound:
		ratio = max(ratio, float64(after.Busy+after.Queued)/workers)
	case watt.Entrypoint, watt.Domain:
	}
	return max(ratio, 0)
}

// readyWorkers returns how many workers an app has in instances that are ready.
func readyWorkers(s *watt.Status) (n int) {
	for i := range s.PerInstance {
		if s.PerInstance[i].State == "ready" {
			n += max(0, s.Workers)
		}
	}
	return n
}

func shedOf(s *watt.Status) uint64 {
	return s.QueueFull + s.WaitTooLong + s.PushedOut + s.Deadline + s.ConnsShed
}

// processorTime is what the processes used that were there at both looks.
func processorTime(before, after *watt.Status) (sum time.Duration) {
	for i := range min(len(before.PerInstance), len(after.PerInstance)) {
		if was, is := &before.PerInstance[i], &after.PerInstance[i]; was.PID == is.PID {
			sum += max(0, is.CPUTime-was.CPUTime)
		}
	}
	return sum
}

// window is the least time over which the gauge is measured.
const window = 5 * time.Second

// past remembers what apps had done some time ago.
type past struct {
	mu   sync.Mutex
	apps map[string]*since
}

// since are two looks at an app: one at least a window ago, once there is one, and a later one that will be.
type since struct{ before, later look }

type look struct {
	at time.Time
	of watt.Status
}

// saturation is [Saturation] since the scrape before, and over a window at least. It begins anew where there have
// become more or fewer workers.
func (p *past) saturation(s *watt.Status, now time.Time) float64 {
	before := p.before(look{now, *s})
	return Saturation(&before.of, s, now.Sub(before.at))
}

// before returns the look to compare with, and remembers this one for later.
func (p *past) before(now look) look {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.apps == nil {
		p.apps = make(map[string]*since)
	}
	known := p.apps[now.of.Name]
	if known == nil || readyWorkers(&known.later.of) != readyWorkers(&now.of) {
		known = &since{now, now}
		p.apps[now.of.Name] = known
	}
	if now.at.Sub(known.later.at) >= window {
		known.before, known.later = known.later, now
	}
	return known.before
}
