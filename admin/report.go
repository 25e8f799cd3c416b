package admin

import (
	"net/http"
	"runtime"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/internal/cgroup"
)

// Report is what GET /status answers.
type Report struct {
	Time time.Time
	// Ready is what is not, "" if everything is.
	Ready string
	// Apps are as they were at Time, or up to half a second before.
	Apps []App
	// Processors are how many the program may use, which a container may limit to a fraction, and Idle how much of them it
	// did not use in the last ten seconds; other programs may have.
	Processors, Idle float64
	// Advice is what should be done, the most urgent first.
	Advice []Advice
}

// App is what is known of one app.
type App struct {
	watt.Status
	// Now are figures of the last ten seconds, and Before those before the last change of its workers, of which
	// there were BeforeWorkers then: nil until something has changed, and ten seconds have passed since. Changes in
	// quick succession are one.
	Now           Figures
	Before        *Figures
	BeforeWorkers int
	// Peak is the most Utilisation of the last 15 minutes; 0 until so much has been seen since its workers changed.
	Peak float64
	// Ended says how often each instance has ended by itself, or could not start, in the last five minutes, as far as
	// that was seen.
	Ended map[int]int
}

// Point is a point of the charts.
type Point struct {
	Time time.Time
	Apps map[string]Figures
}

func (w *watch) report(now time.Time) Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last := w.looks[len(w.looks)-1].at; now.Sub(last) > every/2 {
		w.lookLocked(now)
	}
	r := Report{Time: now, Advice: []Advice{}}
	if err := w.ready(); err != nil {
		r.Ready = err.Error()
	}
	for i, s := range w.looks[len(w.looks)-1].apps {
		app := App{Status: s, Now: w.figuresLocked(i)}
		if c, ok := w.changes[s.Name]; ok && now.Sub(c.at) >= recent && now.Sub(c.at) < kept {
			app.Before, app.BeforeWorkers = c.before, c.workers
		}
		app.Peak, app.Ended = w.peakLocked(s.Name, now), w.endedLocked(s.Name, now)
		r.Apps = append(r.Apps, app)
	}
	r.Processors = min(float64(runtime.GOMAXPROCS(0)), cgroup.CPUs()) // GOMAXPROCS is 2 at least, and knows no parents' limits
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
