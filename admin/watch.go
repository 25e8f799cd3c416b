package admin

import (
	"maps"
	"math"
	"net/http"
	"runtime"
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
	late   = 5 * time.Minute    // that ends of instances are counted
	points = int(kept / spaced) // of a chart
	futile = time.Minute        // of looking at what does not start
)

// watch looks at a runtime from time to time, and remembers.
type watch struct {
	rt     *watt.Runtime
	over   chan struct{} // closed when the runtime has ended
	record bool          // what the scheduler does
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
	workers int // before
	before  Figures
}

// Report is what GET /status answers.
type Report struct {
	Time time.Time
	// Ready is what is not, "" if everything is.
	Ready string
	Apps  []App
	// Processors are how many the program may use, and Idle how much of them it did not use in the last ten seconds;
	// other programs may have.
	Processors, Idle float64
	// Advice is what should be done, the most urgent first.
	Advice []Advice
}

// App is what is known of one app.
type App struct {
	watt.Status
	// Now are figures of the last ten seconds, and Before those before the last change of its workers, of which
	// there were BeforeWorkers then: nil until something has changed, and ten seconds have passed since.
	Now           Figures
	Before        *Figures
	BeforeWorkers int
	// Peak is the most Utilisation of the last 15 minutes; 0 until so much has been seen since its workers changed.
	Peak float64
	// Ended says how often each instance has ended by itself, or could not start, in the last five minutes, as far as
	// that was seen.
	Ended map[int]int
}

// Figures are those of an app over some time.
type Figures struct {
	// Requests that have ended, those of them answered with 5xx, and those shed, per second.
	Requests, Errors, Shed float64
	// P50 and P99 of their durations, and P99 of the wait for a worker, also of those that waited in vain, in seconds.
	P50, P99, Wait99 float64
	// Utilisation is the part of their time that workers of instances that are ready were busy, and Downstream the part that they waited for
	// other apps: at most 1.
	Utilisation, Downstream float64
	// CPU is how many processors its own processes used, and Sampled how many of the first process's, in the last sample
	// ([Options].CPUShares): 0 if there is none.
	CPU, Sampled float64
	// Calls of this app by others, per second, and Failed ones; by caller.
	Calls, Failed map[string]float64
	// CallTime is how long calls took that have ended, by caller, in seconds per second.
	CallTime map[string]float64
}

// Point is a point of the charts.
type Point struct {
	Time time.Time
	Apps map[string]Figures
}

func newWatch(rt *watt.Runtime, o *Options) *watch {
	return &watch{rt: rt, over: make(chan struct{}), record: o.FlightRecorder, flight: flight{dir: o.FlightDir}, share: o.CPUShares}
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
		go w.shares.run(w.over)
	}
}

func (w *watch) tick() {
	now := time.Now()
	w.mu.Lock()
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

// allLocked reports whether that is the state of all apps: a runtime that has not started is new, and one that has ended
// stopped.
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

// figuresLocked compares the last look with the first that is remembered.
func (w *watch) figuresLocked(app int) Figures {
	first, last := w.looks[0], w.looks[len(w.looks)-1]
	f := figuresOf(&first.apps[app], &last.apps[app], last.at.Sub(first.at))
	f.Sampled = w.shares.of(last.apps[app].Name)
	return f
}

func (w *watch) report(now time.Time) Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last := w.looks[len(w.looks)-1].at; now.Sub(last) > every/2 {
		w.lookLocked(now)
	}
	r := Report{Time: now, Advice: []Advice{}}
	if err := w.rt.Ready(); err != nil {
		r.Ready = err.Error()
	}
	for i, s := range w.looks[len(w.looks)-1].apps {
		app := App{Status: s, Now: w.figuresLocked(i)}
		if c, ok := w.changes[s.Name]; ok && now.Sub(c.at) >= recent && now.Sub(c.at) < kept {
			app.Before, app.BeforeWorkers = &c.before, c.workers
		}
		app.Peak, app.Ended = w.peakLocked(s.Name, now), w.endedLocked(s.Name, now)
		r.Apps = append(r.Apps, app)
	}
	r.Processors = float64(runtime.GOMAXPROCS(0))
	r.Idle = w.idleLocked(&r)
	r.Advice = append(r.Advice, Advise(&r)...)
	return r
}

func (w *watch) history() []Point {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Point{}, w.chart...)
}

// events sends the report every second.
func (h *handler) events(w http.ResponseWriter, r *http.Request) {
	s := newStream(w)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		s.send(h.watch.report(time.Now()))
		if !s.flush() {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-h.watch.ended():
			return
		}
	}
}

// figuresOf are those of an app between two looks at it.
func figuresOf(before, after *watt.Status, elapsed time.Duration) Figures {
	f := Figures{Calls: make(map[string]float64), Failed: make(map[string]float64), CallTime: make(map[string]float64)}
	seconds := elapsed.Seconds()
	if seconds <= 0 {
		return f
	}
	rate := func(after, before uint64) float64 { return float64(after-min(before, after)) / seconds }
	f.Shed = rate(after.QueueFull+after.WaitTooLong+after.PushedOut+after.Deadline, before.QueueFull+before.WaitTooLong+before.PushedOut+before.Deadline)
	var took, waited times
	for i := range after.PerInstance {
		now, old := &after.PerInstance[i], new(watt.InstanceStatus)
		if i < len(before.PerInstance) {
			old = &before.PerInstance[i]
		} else if before.State != "new" {
			break // it was not there, or its counts of an earlier life were not seen
		}
		f.Requests += rate(answers(now, ""), answers(old, ""))
		f.Errors += rate(answers(now, "5xx"), answers(old, "5xx"))
		took.add(&old.Duration, &now.Duration)
		waited.add(&old.QueueWait, &now.QueueWait)
		if now.PID == old.PID {
			f.CPU += max(0, now.CPUTime-old.CPUTime).Seconds() / seconds
		}
	}
	waited.addInVain(before, after)
	f.P50, f.P99, f.Wait99 = took.quantile(0.5), took.quantile(0.99), waited.quantile(0.99)
	if workers := float64(max(readyOf(before), readyOf(after)) * max(0, after.Workers)); workers > 0 {
		f.Utilisation = min(1, max(0, after.BusyTime-before.BusyTime).Seconds()/seconds/workers)
		f.Downstream = min(f.Utilisation, max(0, after.DownstreamTime-before.DownstreamTime).Seconds()/seconds/workers)
	}
	for i := range after.PerCaller {
		c := &after.PerCaller[i]
		old := new(watt.CallerStatus)
		if i < len(before.PerCaller) && before.PerCaller[i].Caller == c.Caller {
			old = &before.PerCaller[i]
		}
		f.Calls[c.Caller] = rate(c.Duration.Count, old.Duration.Count)
		f.CallTime[c.Caller] = max(0, c.Duration.Sum-old.Duration.Sum).Seconds() / seconds
		f.Failed[c.Caller] = rate(sum(c.Errors), sum(old.Errors))
	}
	return f
}

// answers are an instance's, of one class of status or of all.
func answers(in *watt.InstanceStatus, class string) (n uint64) {
	for _, classes := range in.Requests {
		for name, count := range classes {
			if class == "" || name == class {
				n += count
			}
		}
	}
	return n
}

func sum(counts map[string]uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// times is a distribution of durations between two looks, in the buckets of [watt.Times].
type times map[int]uint64

func (t *times) add(before, after *watt.Times) {
	if *t == nil {
		*t = make(times)
	}
	for i, n := range after.Buckets {
		(*t)[i] += n - min(n, before.Buckets[i])
	}
}

// addInVain adds the waits of those that were shed because they had waited as long as they may.
func (t *times) addInVain(before, after *watt.Status) {
	n, limit := after.WaitTooLong-min(before.WaitTooLong, after.WaitTooLong), after.QueueTimeout
	if after.Timeout > 0 {
		limit = min(limit, after.Timeout)
	}
	if n == 0 || limit <= 0 {
		return
	}
	if *t == nil {
		*t = make(times)
	}
	(*t)[int(math.Ceil(4*math.Log2(limit.Seconds())))] += n
}

// quantile returns the upper end of the bucket that has it, in seconds; 0 if there is nothing.
func (t *times) quantile(q float64) float64 {
	var all uint64
	for _, n := range *t {
		all += n
	}
	rank := uint64(math.Ceil(q * float64(all)))
	for _, i := range slices.Sorted(maps.Keys(*t)) {
		if n := (*t)[i]; n < rank {
			rank -= n
		} else if rank > 0 {
			return math.Exp2(float64(i) / 4)
		}
	}
	return 0
}

// noteResizesLocked notices whose workers have changed between the last two looks. From then on, figures are of what
// came after.
func (w *watch) noteResizesLocked() {
	n := len(w.looks)
	if n < 2 {
		return
	}
	changed := false
	before, after := w.looks[n-2].apps, w.looks[n-1].apps
	for i := range after {
		was, is := workersOf(&before[i]), workersOf(&after[i])
		if was == is || was == 0 {
			continue
		}
		if w.changes == nil {
			w.changes = make(map[string]change)
		}
		first := w.looks[0]
		w.changes[after[i].Name] = change{w.looks[n-1].at, was, figuresOf(&first.apps[i], &before[i], w.looks[n-2].at.Sub(first.at))}
		changed = true
	}
	if changed {
		w.looks = w.looks[n-1:]
	}
}

func workersOf(s *watt.Status) int { return max(0, s.Workers) * len(s.PerInstance) }

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
			in, was := &after[i].PerInstance[j], uint64(0)
			if j < len(before[i].PerInstance) {
				was = endsOf(&before[i].PerInstance[j])
			}
			for range endsOf(in) - min(was, endsOf(in)) {
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

// peakLocked returns the most utilisation of an app in the time of the charts, or 0 if that is not over.
func (w *watch) peakLocked(app string, now time.Time) (peak float64) {
	if c, ok := w.changes[app]; len(w.chart) < points || ok && now.Sub(c.at) < kept {
		return 0
	}
	for _, p := range w.chart {
		peak = max(peak, p.Apps[app].Utilisation)
	}
	return peak
}

// idleLocked returns how many processors this program did not use.
func (w *watch) idleLocked(r *Report) float64 {
	first, last := w.looks[0], w.looks[len(w.looks)-1]
	elapsed := last.at.Sub(first.at).Seconds()
	if elapsed <= 0 {
		return r.Processors
	}
	used := (last.cpu - first.cpu).Seconds() / elapsed
	for i := range r.Apps {
		used += r.Apps[i].Now.CPU
	}
	return max(0, r.Processors-used)
}
