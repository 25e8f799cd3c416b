package metrics

import (
	"sync"
	"time"

	"github.com/org/watt"
)

// window is the least time over which saturation is measured.
const window = 5 * time.Second

// past remembers what apps had done some time ago.
type past struct {
	mu   sync.Mutex
	apps map[string]*since
}

// since are two moments of an app: one at least a window ago, once there is one, and a later one that will be.
type since struct{ before, later moment }

// moment is what an app had done at a time.
type moment struct {
	at        time.Time
	busy, cpu time.Duration
	shed      uint64
	capacity  int // workers of instances that are ready
}

// saturation is how much of what an app can do it has to do, by what its profile scales on:
//
//   - CPUBound: the greater of the workers' utilisation and that of the processors by its own processes, as far as
//     its workers can use them
//   - IOBound: how many are at work or wait for it, of the workers, which are the backend's connections
//   - Entrypoint and Domain: the workers' utilisation
//
// Only workers of instances that are ready count. Utilisation is measured since the scrape before, and over 5 s at least. At
// first, and when there have become more or fewer workers, it begins anew with how many are busy now. If anything was shed
// since then, the value is 1 at least, for all profiles.
func (p *past) saturation(s *watt.Status, now time.Time) float64 {
	m := moment{at: now, busy: s.BusyTime, shed: s.QueueFull + s.WaitTooLong + s.PushedOut + s.Deadline}
	for i := range s.PerInstance {
		m.cpu += s.PerInstance[i].CPUTime
		if s.PerInstance[i].State == "ready" {
			m.capacity += max(0, s.Workers)
		}
	}
	before := p.before(s.Name, m)
	ratio := m.utilisation(s, before)
	if m.shed > before.shed {
		ratio = max(ratio, 1)
	}
	return ratio
}

// utilisation is what is used of the workers that there are: none of a raw app, or one elsewhere.
func (m moment) utilisation(s *watt.Status, before moment) float64 {
	capacity, elapsed := float64(m.capacity), m.at.Sub(before.at).Seconds()
	switch {
	case m.capacity == 0:
		return 0
	case s.Profile == watt.IOBound:
		return float64(s.Busy+s.Queued) / capacity
	case elapsed <= 0:
		return min(1, float64(s.Busy)/capacity)
	}
	ratio := min(1, (m.busy-before.busy).Seconds()/elapsed/capacity)
	if s.Profile == watt.CPUBound {
		ratio = max(ratio, (m.cpu-before.cpu).Seconds()/elapsed/capacity)
	}
	return max(ratio, 0)
}

// before returns the moment to compare with, and remembers this one for later.
func (p *past) before(name string, now moment) moment {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.apps == nil {
		p.apps = make(map[string]*since)
	}
	known := p.apps[name]
	if known == nil || known.later.capacity != now.capacity {
		known = &since{now, now}
		p.apps[name] = known
	}
	if now.at.Sub(known.later.at) >= window {
		known.before, known.later = known.later, now
	}
	return known.before
}
