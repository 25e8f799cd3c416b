package watt

import (
	"slices"
	"sync"

	"github.com/org/watt/internal/count"
)

// sums are what the instances of an app that live in processes of their own have counted, those of earlier generations
// included.
type sums struct {
	app     *app
	nursery *nursery

	mu     sync.Mutex
	past   count.Admission // of generations that have ended; what else those have counted is with the app's
	living map[int]*own    // those that may still count
}

// expect begins to believe what a child counts.
func (s *sums) expect(o *own) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.slot.Reset()
	s.living[o.index] = o
}

// collect keeps what a child has counted that has ended.
func (s *sums) collect(o *own) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.living[o.index] != o {
		return // it never began
	}
	delete(s.living, o.index)
	s.past.Add(&o.slot.Admission)
	s.app.tallies.instance(o.index).Add(&o.slot.Served)
	o.slot.Reset()
	for i, callee := range s.app.conf().Calls {
		calls := s.nursery.callsOf(s.app, o.index, i)
		s.app.mesh.edges[callee].calls.Add(calls)
		calls.Reset()
	}
}

// countRefused counts a connection that no instance was there for.
func (s *sums) countRefused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past.Refused.Add(1)
}

// count adds up what the instances have counted, those of earlier generations included. What they show may be anything,
// after a fault of theirs.
func (s *sums) count(to *Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var counted count.Admission
	counted.Add(&s.past)
	to.Conns = s.app.conns.count() // raw ones, which children take without asking
	to.Panics = s.app.tallies.panics()
	for _, o := range s.living {
		counted.Add(&o.slot.Admission)
		to.Panics += count.Read(&o.slot.Served.Panics)
		to.Busy += few(&o.slot.Busy)
		to.Queued += few(&o.slot.Queued)
		to.Conns += few(&o.slot.Conns)
		to.PublicConns += few(&o.slot.PublicConns)
		to.Streams += few(&o.slot.Streams)
		to.Upgraded += few(&o.slot.Upgraded)
		to.Overloaded = to.Overloaded || o.slot.Overloaded.Load() == 1
	}
	to.loadAdmission(&counted)
	to.Abandoned += s.app.abandoned.Load() // those that were killed
	to.ConnsShed += s.app.connsShed.Load() // raw ones
}

// served returns what an instance has counted, also in earlier generations.
func (s *sums) served(index int) *count.Served {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := new(count.Served)
	sum.Add(s.app.tallies.instance(index))
	if o := s.living[index]; o != nil {
		sum.Add(&o.slot.Served)
	}
	return sum
}

// called returns what the instances have counted of their calls of callee.
func (s *sums) called(callee string) *count.Calls {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := new(count.Calls)
	sum.Add(s.app.mesh.edges[callee].calls)
	i := slices.Index(s.app.conf().Calls, callee)
	for index := range s.living {
		sum.Add(s.nursery.callsOf(s.app, index, i))
	}
	return sum
}
