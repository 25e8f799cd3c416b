package admin

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/org/watt"
)

// Advice is a sentence on what should be done about an app, with the numbers that it comes from.
type Advice struct {
	App string
	// Kind is "restarts", "down", "downstream", "backend", "raise", "processors", "burns", "entrypoint" or "lower".
	Kind string
	Text string
}

// kinds are in the order in which they are urgent.
func kinds() []string {
	return []string{"restarts", "down", "downstream", "backend", "raise", "processors", "burns", "entrypoint", "lower"}
}

// What the sentences depend on.
const (
	full       = 0.9  // utilisation from which workers are short
	calm       = 0.1  // utilisation below which they are too many
	waits      = 0.02 // seconds of queue wait, p99, that are too long
	aim        = 0.7  // utilisation that more workers should bring
	mostRaise  = 2    // times as many workers, at most, in one step
	headroom   = 0.1  // of the processors: less is none
	mostly     = 0.6
	fewWorkers = 4 // no less is advised
	burning    = 0.5
	busyEntry  = 0.2 // processors that an entrypoint's own work takes, to be worth a word
)

// Advise says what should be done about apps, from the figures of a report: whose workers are short, by how much
// (Little's law: as many as arrive in the time that one takes), and where more would not help. An app of which it says
// nothing is to be left as it is.
func Advise(r *Report) []Advice {
	var all []Advice
	for i := range r.Apps {
		a := adviser{r, &r.Apps[i]}
		for _, find := range []func() (kind, text string){a.lives, a.short, a.burns, a.entrypoint, a.lower} {
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
		restarts := in.Restarts["ended"] + in.Restarts["killed"] + in.Restarts["start"]
		switch {
		case in.State == "failed":
			return "down", fmt.Sprintf("instance %d was given up after %d restarts: %s", in.Instance, restarts, why)
		case in.State == "silent":
			return "down", fmt.Sprintf("instance %d shows no sign of life since %s", in.Instance, in.Since.Format(time.TimeOnly))
		case restarts >= 3 && in.State != "stopped" && a.report.Time.Sub(in.Since) < 5*time.Minute:
			return "restarts", fmt.Sprintf("instance %d has ended %d times: %s", in.Instance, restarts, why)
		}
	}
	return "", ""
}

// short speaks of an app that has more to do than it can.
func (a adviser) short() (kind, text string) {
	n, workers := a.Now, workersOf(&a.Status)
	if workers == 0 || n.Utilisation < full || n.Wait99 < waits && n.Shed == 0 {
		return "", ""
	}
	state := fmt.Sprintf("its %d workers are busy %s of the time, requests wait %s (p99), %.3g a second are shed",
		workers, percent(n.Utilisation), seconds(n.Wait99), n.Shed)
	if n.Downstream > mostly*n.Utilisation {
		return "downstream", fmt.Sprintf("%s; %s of that time they wait for %s: look there first",
			state, percent(n.Downstream/n.Utilisation), strings.Join(a.Calls, ", "))
	}
	if b := a.Before; b != nil && a.BeforeWorkers < workers && b.Requests > 0 && n.Requests < 1.1*b.Requests && n.P50 > 1.2*b.P50 {
		return "backend", fmt.Sprintf("the backend is the limit: with %d workers instead of %d latency rose from %s to %s (p50), and requests went from %.3g to %.3g a second",
			workers, a.BeforeWorkers, seconds(b.P50), seconds(n.P50), b.Requests, n.Requests)
	}
	if a.report.Idle < headroom*a.report.Processors {
		return "processors", fmt.Sprintf("%s, and the %.3g processors are used up: more workers would not help", state, a.report.Processors)
	}
	return "raise", fmt.Sprintf("%s, and %.2g of %.3g processors are idle: raise Workers to %d", state, a.report.Idle, a.report.Processors, a.wanted())
}

// wanted is how many workers each instance should have: as many as requests arrive in the time that one takes a
// worker (John Little, A Proof for the Queuing Formula L = λW, 1961), and some to spare.
func (a adviser) wanted() int {
	busy := a.Now.Utilisation * float64(workersOf(&a.Status)) // requests at work at a time
	if a.Now.Requests > 0 {
		busy *= (a.Now.Requests + a.Now.Shed) / a.Now.Requests // and those that were sent away
	}
	wanted := int(math.Ceil(busy / aim / float64(len(a.PerInstance))))
	return min(max(wanted, a.Workers+1), mostRaise*a.Workers)
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
	if a.Profile != watt.Entrypoint || own*float64(workersOf(&a.Status)) < busyEntry || own < mostly*a.Now.Utilisation {
		return "", ""
	}
	return "entrypoint", fmt.Sprintf("the entrypoint spends %s of its time on work of its own, and not waiting for apps behind: move logic out of it",
		percent(own/a.Now.Utilisation))
}

// lower speaks of connections to a backend that nobody needs. Other workers cost nothing while they are idle.
func (a adviser) lower() (kind, text string) {
	workers := workersOf(&a.Status)
	if a.Profile != watt.IOBound || a.Workers <= fewWorkers || a.Now.Requests == 0 || a.Now.Utilisation > calm || a.Before != nil {
		return "", ""
	}
	busy := a.Now.Utilisation * float64(workers)
	fewer := max(fewWorkers, int(math.Ceil(busy/aim/float64(len(a.PerInstance)))))
	if 2*fewer > a.Workers {
		return "", ""
	}
	return "lower", fmt.Sprintf("its %d workers are busy %s of the time: %d would do, if this is as much as it gets", workers, percent(a.Now.Utilisation), fewer)
}

func percent(part float64) string { return fmt.Sprintf("%.0f %%", 100*part) }

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Duration(math.Pow10(max(3, int(math.Log10(max(s, 1e-6)*1e9))-1)))).String()
}
