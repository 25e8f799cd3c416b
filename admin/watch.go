package admin

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt"
)

const (
	every  = time.Second        // something is looked at
	kept   = 15 * time.Minute   // for charts
	spaced = 5 * time.Second    // between the points of a chart
	recent = 10 * time.Second   // what rates are of
	brief  = every / 2          // is too short for rates
	late   = 5 * time.Minute    // that ends of instances are counted
	points = int(kept / spaced) // of a chart
	futile = time.Minute        // of looking at what does not start
)

// watch looks at a runtime from time to time, and remembers.
type watch struct {
	rt     *watt.Runtime
	over   chan struct{}  // closed when the runtime has ended
	least  map[string]int // instances that have to be ready, by app
	record bool           // what the scheduler does
	flight flight
	share  bool // samples are taken
	shares shares

	mu      sync.Mutex
	begun   time.Time // zero if nobody looks
	started bool      // the runtime has
	looks   []look    // of the last moments, the oldest first
	chart   []Point
	changes map[string]change              // by app, the last
	ends    map[string]map[int][]time.Time // by app and instance, the last
}

// look is what was seen at a time.
type look struct {
	at   time.Time
	apps []watt.Status
	cpu  time.Duration // that this process has used
}

// change is a change of an app's workers.
type change struct {
	at      time.Time
	workers int      // before
	before  *Figures // nil if they were not seen for long enough
}

func newWatch(rt *watt.Runtime, o *Options) *watch {
	return &watch{
		rt: rt, over: make(chan struct{}), least: o.Minimum,
		record: o.FlightRecorder, flight: flight{dir: o.FlightDir}, share: o.CPUShares,
	}
}

// begin starts looking, if nobody has. It ends with the runtime, or if that does not start.
func (w *watch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started {
		return
	}
	now := time.Now()
	w.lookLocked(now)
	w.startLocked()
	if w.begun.IsZero() {
		w.begun = now
		time.AfterFunc(every, w.tick)
	}
}

// startLocked begins to record and to sample, once the runtime has started.
func (w *watch) startLocked() {
	if w.started || w.allLocked("new") {
		return
	}
	w.started = true
	if w.record {
		if err := w.flight.start(); err != nil {
			w.rt.Env().Logger.Error("the flight recorder does not start", zap.Error(err))
		}
	}
	if w.share {
		if err := w.rt.Env().Metrics.Register(&w.shares); err != nil {
			w.rt.Env().Logger.Error("samples of processor time are no metric", zap.Error(err))
		}
		for _, s := range w.looks[len(w.looks)-1].apps {
			w.shares.apps = append(w.shares.apps, s.Name)
		}
		go w.shares.run(w.over)
	}
}

func (w *watch) tick() {
	w.mu.Lock()
	now := time.Now()
	w.lookLocked(now)
	w.startLocked()
	stopped, overloaded := w.allLocked("stopped"), w.overloadedLocked()
	if !w.started && now.Sub(w.begun) >= futile {
		w.begun = time.Time{}
	}
	goOn := !w.begun.IsZero()
	w.mu.Unlock()
	if !goOn {
		return
	}
	if stopped {
		w.flight.stop()
		close(w.over)
		return
	}
	if file, err := w.flight.note(now, overloaded); err != nil {
		w.rt.Env().Logger.Error("what led to a stall is not written down", zap.Error(err))
	} else if file != "" {
		w.rt.Env().Logger.Warn("a queue has stalled; what led to it is written down", zap.String("file", file))
	}
	time.AfterFunc(every, w.tick)
}

func (w *watch) overloadedLocked() (names []string) {
	for _, s := range w.looks[len(w.looks)-1].apps {
		if s.Overloaded {
			names = append(names, s.Name)
		}
	}
	return names
}

// allLocked reports whether that is the state of all apps: a runtime that has not started is new, and one that has
// ended stopped.
func (w *watch) allLocked(state string) bool {
	return !slices.ContainsFunc(w.looks[len(w.looks)-1].apps, func(s watt.Status) bool { return s.State != state })
}

// ended is closed once the runtime has ended.
func (w *watch) ended() <-chan struct{} { return w.over }

func (w *watch) lookLocked(now time.Time) {
	w.looks = append(w.looks, look{now, w.rt.Status(), processorTime()})
	w.noteResizesLocked()
	w.noteEndsLocked()
	for len(w.looks) > 1 && now.Sub(w.looks[1].at) >= recent {
		w.looks = w.looks[1:]
	}
	if n := len(w.chart); n > 0 && now.Sub(w.chart[n-1].Time) < spaced-every/2 {
		return
	}
	p := Point{now, make(map[string]Figures)}
	for i, s := range w.looks[len(w.looks)-1].apps {
		p.Apps[s.Name] = w.figuresLocked(i)
	}
	if w.chart = append(w.chart, p); len(w.chart) > points {
		w.chart = w.chart[1:]
	}
}

// look looks now, so that the next report shows what has just been done.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lookLocked(time.Now())
}

// figuresLocked compares the last look at an app with the first that is remembered since when it has had its workers, or
// one before that if it has not had them for long enough.
func (w *watch) figuresLocked(app int) Figures {
	last, i := w.looks[len(w.looks)-1], w.sameLocked(app, len(w.looks))
	for i > 0 && last.at.Sub(w.looks[i].at) < brief {
		i--
	}
	f := figuresOf(&w.looks[i].apps[app], &last.apps[app], last.at.Sub(w.looks[i].at))
	f.Sampled = w.shares.of(last.apps[app].Name)
	return f
}

// sameLocked returns which of n looks is the first since when an app has had the workers that it has in the last.
func (w *watch) sameLocked(app, n int) int {
	i := n - 1
	for i > 0 && !w.resizedLocked(app, i) {
		i--
	}
	return i
}

// resizedLocked reports whether an app's workers have changed between a look and the one before.
func (w *watch) resizedLocked(app, n int) bool {
	was, is := workersOf(&w.looks[n-1].apps[app]), workersOf(&w.looks[n].apps[app])
	return was != is && was != 0
}

// noteResizesLocked notices whose workers have changed between the last two looks. From then on, figures are of what
// came after. What was before is that of workers that there were for long enough: several changes can follow each other.
func (w *watch) noteResizesLocked() {
	n := len(w.looks) - 1
	if n < 1 {
		return
	}
	before := w.looks[n-1]
	for i := range before.apps {
		if !w.resizedLocked(i, n) {
			continue
		}
		if w.changes == nil {
			w.changes = make(map[string]change)
		}
		s, first := &before.apps[i], w.looks[w.sameLocked(i, n)]
		c := w.changes[s.Name]
		if length := before.at.Sub(first.at); length >= brief {
			f := figuresOf(&first.apps[i], s, length)
			c.workers, c.before = workersOf(s), &f
		}
		c.at = w.looks[n].at
		w.changes[s.Name] = c
	}
}

func workersOf(s *watt.Status) int { return max(0, s.Workers) * len(s.PerInstance) }

// ready returns nil if the runtime is ready and no app has fewer instances than it has to have, and otherwise an error
// that names the apps.
func (w *watch) ready() error {
	if err := w.rt.Ready(); err != nil {
		return err
	}
	has := make(map[string]int)
	for _, s := range w.rt.Status() {
		has[s.Name] = readyOf(&s)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(w.least)) {
		if has[name] < w.least[name] {
			errs = append(errs, fmt.Errorf("watt: app %q: %d of its instances are ready, and %d have to be", name, has[name], w.least[name]))
		}
	}
	return errors.Join(errs...)
}

// readyOf returns how many instances can work.
func readyOf(s *watt.Status) (n int) {
	for i := range s.PerInstance {
		if s.PerInstance[i].State == "ready" {
			n++
		}
	}
	return n
}

// noteEndsLocked notes which instances have ended by themselves between the last two looks.
func (w *watch) noteEndsLocked() {
	n := len(w.looks)
	if n < 2 {
		return
	}
	before, after := w.looks[n-2].apps, w.looks[n-1].apps
	for i := range after {
		for j := range after[i].PerInstance {
			in, old := &after[i].PerInstance[j], new(watt.InstanceStatus)
			if j < len(before[i].PerInstance) {
				old = &before[i].PerInstance[j]
			} else if before[i].State != "new" {
				break // it was not there, and its ends of an earlier life are not of late
			}
			for range endsOf(in) - min(endsOf(old), endsOf(in)) {
				w.noteEndLocked(after[i].Name, in.Instance, w.looks[n-1].at)
			}
		}
	}
}

func (w *watch) noteEndLocked(app string, instance int, at time.Time) {
	if w.ends == nil {
		w.ends = make(map[string]map[int][]time.Time)
	}
	if w.ends[app] == nil {
		w.ends[app] = make(map[int][]time.Time)
	}
	w.ends[app][instance] = append(w.ends[app][instance], at)
}

// endedLocked returns how often instances have ended by themselves of late.
func (w *watch) endedLocked(app string, now time.Time) map[int]int {
	ended := make(map[int]int)
	for instance, times := range w.ends[app] {
		times = slices.DeleteFunc(times, func(at time.Time) bool { return now.Sub(at) > late })
		w.ends[app][instance], ended[instance] = times, len(times)
	}
	return ended
}

// endsOf returns how often an instance has ended by itself, or could not start.
func endsOf(in *watt.InstanceStatus) uint64 {
	return in.Restarts["ended"] + in.Restarts["killed"] + in.Restarts["start"]
}
