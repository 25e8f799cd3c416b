package admin

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/org/watt"
)

// Advice is a sentence on what should be done about an app, with the numbers that it comes from.
type Advice struct {
	App string
	// Kind is "restarts", "down", "hangs", "backend", "raise", "processors", "downstream", "connections", "fails", "bursts",
	// "burns", "entrypoint" or "lower".
	Kind string
	Text string
}

// kinds are in the order in which they are urgent: an app that others wait for comes before those who do.
func kinds() []string {
	return []string{"restarts", "down", "hangs", "backend", "raise", "processors", "downstream", "connections", "fails", "bursts", "burns", "entrypoint", "lower"}
}

// What the sentences depend on.
const (
	full       = 0.9  // utilisation from which workers are short
	calm       = 0.1  // utilisation below which they are too many
	waits      = 0.02 // seconds of queue wait, p99, that are too long
	aim        = 0.7  // utilisation that more workers should bring
	mostRaise  = 2    // times as many workers, at most, in one step
	headroom   = 0.1  // of the processors: less is none
	mostly     = 0.6  // of a time is most of it
	fewWorkers = 4    // no less is advised
	burning    = 0.5  // processors that an app may use that is not there to compute
	loop       = 3    // ends of an instance are no accident
	rarely     = 0.01 // of the requests may be shed without a word
	busyEntry  = 0.2  // workers that an entrypoint's own work takes, to be worth a word
)

// Advise says what should be done about apps, from the figures of a report: whose workers are short, by how much
// (Little's law: as many as arrive in the time that one takes), and where more would not help. An app of which it says
// nothing is to be left as it is.
func Advise(r *Report) []Advice {
	var all []Advice
	for i := range r.Apps {
		a := adviser{r, &r.Apps[i]}
		for _, find := range []func() (kind, text string){a.lives, a.short, a.connections, a.fails, a.bursts, a.burns, a.entrypoint, a.lower} {
			if kind, text := find(); kind != "" {
				all = append(all, Advice{a.Name, kind, text})
			}
		}
	}
	urgency := kinds()
	slices.SortStableFunc(all, func(a, b Advice) int {
		return cmp.Compare(slices.Index(urgency, a.Kind), slices.Index(urgency, b.Kind))
	})
	return all
}

// adviser finds what there is to say of one app.
type adviser struct {
	report *Report
	*App
}

// lives speaks of instances that do not.
func (a adviser) lives() (kind, text string) {
	for _, in := range a.PerInstance {
		why, _, _ := strings.Cut(in.LastError, "\n")
		ended := a.Ended[in.Instance]
		switch {
		case in.State == "failed":
			return "down", fmt.Sprintf("instance %d was given up after %d restarts, and stays down until it is restarted: %s", in.Instance, endsOf(&in), why)
		case in.State == "silent":
			return "down", fmt.Sprintf("instance %d shows no sign of life since %s: restart it, if need be after kill -QUIT %d, which has it write to stderr what it does",
				in.Instance, in.Since.Format(time.TimeOnly), in.PID)
		case ended >= loop && in.State != "stopped":
			return "restarts", fmt.Sprintf("instance %d has ended %d times in %.0f minutes: %s", in.Instance, ended, late.Minutes(), why)
		}
	}
	return "", ""
}

// short speaks of an app that has more to do than it can.
func (a adviser) short() (kind, text string) {
	if !a.pressed() {
		return "", ""
	}
	n, state := a.Now, a.state()
	if a.mostlyWaits() {
		who, room := a.waitedFor()
		if state += fmt.Sprintf("; %s of that time they wait for %s", percent(n.Downstream/n.Utilisation), who); !room {
			return "downstream", state
		}
	}
	if b := a.Before; b != nil && a.inVain(b) {
		return "backend", fmt.Sprintf("the backend is the limit: with %d workers instead of %d a request keeps one for %s instead of %s, and they serve %.3g a second instead of %.3g",
			workersOf(&a.Status), a.BeforeWorkers, seconds(n.Service), seconds(b.Service), n.Requests, b.Requests)
	}
	switch more, p := a.more(), a.report.Processors; {
	case a.report.Idle < headroom*p:
		return "processors", fmt.Sprintf("%s, and this program uses all of its %.3g processors: more workers would not help", state, p)
	case more == "":
		return "processors", fmt.Sprintf("%s, and there is one for each of %.3g processors: more would not help", state, p)
	case a.hangs():
		return "hangs", fmt.Sprintf("%s; of its requests, none has come to a good end in %.0f s: more workers would hang as well, and a goroutine profile shows where these do", state, n.Seconds)
	default:
		return "raise", fmt.Sprintf("%s, and this program leaves %.2g of %.3g processors idle: %s", state, a.report.Idle, p, more)
	}
}

// connections speaks of long-lived ones that there is no room for.
func (a adviser) connections() (kind, text string) {
	if a.Now.ConnsShed == 0 {
		return "", ""
	}
	return "connections", fmt.Sprintf("%d streams, upgraded and raw connections are open, and %.3g/s are refused: raise MaxConns from %d, or see who keeps them",
		a.Conns, a.Now.ConnsShed, max(0, a.MaxConns))
}

// fails speaks of an app that answers with errors of which most come from none of those that it calls, as far as they tell:
// one whose workers were changed meanwhile does not tell what it did before.
func (a adviser) fails() (kind, text string) {
	n := a.Now
	if n.Errors-n.ConnsShed <= rarely*n.Requests {
		return "", ""
	}
	why, behind := "its log or its metrics may say why", 0.0
	for c := range a.callees() {
		if c.Now.Seconds < n.Seconds {
			return "", ""
		}
		if bad := c.Now.Errors + c.Now.Shed; bad > rarely*(c.Now.Requests+c.Now.Shed) {
			behind += bad
		}
		if failed := c.Now.Failed[a.Name]; failed > rarely*c.Now.Calls[a.Name] {
			why = fmt.Sprintf("its calls of %s fail, %.3g/s", c.Name, failed)
		}
	}
	if behind >= n.Errors/2 {
		return "", ""
	}
	return "fails", fmt.Sprintf("it answers %s of its requests with 5xx, %.3g/s: %s", percent(n.Errors/n.Requests), n.Errors, why)
}

// bursts speaks of an app that sheds although it has workers enough, seen over ten seconds. What has only begun may yet
// fill them.
func (a adviser) bursts() (kind, text string) {
	n := a.Now
	if a.workers() == 0 || n.Utilisation >= full || n.Shed <= rarely*(n.Requests+n.Shed) || a.Overloaded {
		return "", ""
	}
	return "bursts", fmt.Sprintf("%s%s of the time, but %.3g/s are shed: they come many at a time, more than Workers and Queue (%d and %d) take, or their deadlines are too near",
		a.busy(), percent(n.Utilisation), n.Shed, a.Workers, max(0, a.Queue))
}

// pressed reports whether requests find all workers busy.
func (a adviser) pressed() bool {
	return a.workers() > 0 && a.Now.Utilisation >= full && (a.Now.Wait99 >= waits || a.Now.Shed > 0)
}

// hangs reports whether the workers serve nobody, and do not compute either.
func (a adviser) hangs() bool {
	n := a.Now
	return n.Seconds >= recent.Seconds() && n.Requests <= n.Errors && a.used() < n.Utilisation*float64(a.workers())/2
}

// used returns how many processors the program uses.
func (a adviser) used() float64 { return a.report.Processors - a.report.Idle }

// inVain reports whether the last increase of workers has brought latency, and no throughput. The wait for a worker is no
// part of that latency: where the queue is long it is most of a request's time, and hides what the backend takes.
func (a adviser) inVain(b *Figures) bool {
	return a.BeforeWorkers < workersOf(&a.Status) && b.Requests > 0 && a.Now.Requests < 1.1*b.Requests && a.Now.Service > 1.2*b.Service
}

// mostlyWaits reports whether the app waits for others most of the time that its workers are busy.
func (a adviser) mostlyWaits() bool { return a.Now.Downstream > mostly*a.Now.Utilisation }

// state says how full the app is.
func (a adviser) state() string {
	state := a.busy() + percent(a.Now.Utilisation) + " of the time"
	if a.Now.Wait99 > 0 {
		state += fmt.Sprintf(", requests wait %s (p99)", seconds(a.Now.Wait99))
	}
	if a.Now.Shed > 0 {
		state += fmt.Sprintf(", %.3g/s are shed", a.Now.Shed)
	}
	return state
}

// workers returns how many there are at work or ready for it.
func (a adviser) workers() int { return max(0, a.Workers) * readyOf(&a.Status) }

// busy begins to say how busy the workers are.
func (a adviser) busy() string {
	n, each := readyOf(&a.Status), fmt.Sprintf("%d workers", a.Workers)
	switch {
	case n == 1 && a.Workers == 1:
		return "its only worker is busy "
	case n == 1:
		return fmt.Sprintf("its %s are busy ", each)
	case a.Workers == 1:
		each = "one worker"
	}
	return fmt.Sprintf("its %d instances with %s each are busy ", n, each)
}

// waitedFor says what the app waits for, and whether that could do more: then the app's own workers are too few.
// Otherwise it is to be looked at.
func (a adviser) waitedFor() (who string, room bool) {
	switch callee, ends := a.slowest(); {
	case callee == nil:
		return "something that is no app: look at what it says by watt.Downstream", false
	case ends && callee.hasRoom():
		return callee.Name + ", which could do more", true
	default:
		return callee.Name + ": look there first", false
	}
}

// slowest returns the callee whose calls take most of the time or, where calls do not even end, the one that has most
// to do.
func (a adviser) slowest() (slow *adviser, ends bool) {
	var full *adviser
	var longest, all float64
	most := 0
	for c := range a.callees() {
		took, does := c.Now.CallTime[a.Name], c.Busy+c.Queued
		if all += took; took > longest {
			slow, longest = &c, took
		}
		if does > most {
			full, most = &c, does
		}
	}
	if all < a.Now.Downstream*float64(a.workers())/2 {
		return cmp.Or(full, slow), false
	}
	return slow, true
}

// callees are the apps that the app may call.
func (a adviser) callees() iter.Seq[adviser] {
	return func(yield func(adviser) bool) {
		for i := range a.report.Apps {
			if c := &a.report.Apps[i]; slices.Contains(a.Calls, c.Name) && !yield(adviser{a.report, c}) {
				return
			}
		}
	}
}

// hasRoom reports whether the app, and all that it may wait for, could do more.
func (a adviser) hasRoom() bool {
	if n := a.Now; a.workers() == 0 || n.Utilisation >= full || n.Wait99 >= waits || n.Shed > 0 {
		return false
	}
	for c := range a.callees() {
		if !c.hasRoom() {
			return false
		}
	}
	return true
}

// more says what gives the app more workers, or nothing if it computes and has enough. They should be as many as
// requests arrive in the time that one takes a worker (John Little, A Proof for the Queuing Formula L = λW, 1961), and
// some to spare. Where a worker that is there to compute mostly waits, another one of its instance computes meanwhile.
func (a adviser) more() string {
	busy := a.Now.Utilisation * float64(a.workers()) // requests at work at a time
	if a.Now.Requests > 0 {
		busy *= (a.Now.Requests + a.Now.Shed) / a.Now.Requests // and those that were sent away
	}
	if a.Profile != watt.CPUBound || a.mostlyWaits() {
		return "raise " + a.change(clamp(busy/aim/float64(readyOf(&a.Status)), a.Workers))
	}
	has := len(a.PerInstance)
	wanted := min(clamp(busy/aim/float64(a.Workers), has), int(a.report.Processors)/a.Workers)
	if wanted <= has {
		return ""
	}
	return fmt.Sprintf("raise Instances from %d to %d", has, wanted)
}

// clamp returns how many there should be instead of has: more, but not far more in one step.
func clamp(wanted float64, has int) int {
	return int(min(max(math.Ceil(wanted), float64(has+1)), float64(mostRaise*has)))
}

// change says that Workers should be another number.
func (a adviser) change(to int) string {
	of := "Workers"
	if len(a.PerInstance) > 1 {
		of = "Workers of each"
	}
	return fmt.Sprintf("%s from %d to %d", of, a.Workers, to)
}

// burns speaks of an app that computes, and is not there for it.
func (a adviser) burns() (kind, text string) {
	cores := a.Now.CPU + a.Now.Sampled
	if a.Profile == watt.CPUBound || cores < burning {
		return "", ""
	}
	return "burns", fmt.Sprintf("this %s app burns processor time: %.2g processors; what computes belongs in a CPUBound app", a.Profile, cores)
}

// entrypoint speaks of work in the place where everything passes.
func (a adviser) entrypoint() (kind, text string) {
	own := a.Now.Utilisation - a.Now.Downstream
	busy := own * float64(a.workers())
	if a.Profile != watt.Entrypoint || busy < busyEntry || own < mostly*a.Now.Utilisation {
		return "", ""
	}
	if used := a.used(); used < busy/2 {
		return "entrypoint", fmt.Sprintf("the entrypoint spends %s of its time neither waiting for apps behind nor computing, since this program uses only %.2g processors: its clients are slow, or it waits for something that is no app",
			percent(own/a.Now.Utilisation), used)
	}
	return "entrypoint", fmt.Sprintf("the entrypoint spends %s of its time on work of its own, and not waiting for apps behind: move logic out of it",
		percent(own/a.Now.Utilisation))
}

// lower speaks of connections to a backend that nobody needs. Other workers cost nothing while they are idle.
func (a adviser) lower() (kind, text string) {
	if a.Profile != watt.IOBound || a.workers() == 0 || a.Peak == 0 || a.Peak > calm {
		return "", ""
	}
	fewer := max(fewWorkers, int(math.Ceil(a.Peak*float64(a.Workers)/aim)))
	if 2*fewer > a.Workers {
		return "", ""
	}
	return "lower", fmt.Sprintf("%s%s of the time at most, in the last %.0f minutes: lower %s", a.busy(), percent(a.Peak), kept.Minutes(), a.change(fewer))
}

func percent(part float64) string { return fmt.Sprintf("%.0f %%", 100*part) }

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Duration(math.Pow10(max(3, int(math.Log10(max(s, 1e-6)*1e9))-1)))).String()
}
