package admin

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/metrics"
)

// Figures are those of an app over some time.
type Figures struct {
	// Seconds are how many they are of: ten, or fewer after the start and after a change of workers.
	Seconds float64
	// Requests that have ended, those of them answered with 5xx, and those shed, per second.
	Requests, Errors, Shed float64
	// ConnsShed are streams and connections that MaxConns had no room for, per second. Streams among them are Errors too.
	ConnsShed float64
	// P50 and P99 of their durations, and P99 of the wait for a worker, also of those that waited in vain for as long as
	// they may, but not of those that were shed before, in seconds.
	P50, P99, Wait99 float64
	// Service is how long a request had a worker, in seconds, on average.
	Service float64
	// Utilisation is the part of their time that workers of instances that are ready were busy, and Downstream the part
	// that they waited for other apps: at most 1.
	Utilisation, Downstream float64
	// Saturation is how much of what the app can do it had to do, by its profile ([metrics.Saturation]): 1 is all.
	Saturation float64
	// CPU is how many processors its own processes used, and Sampled how many of the first process's, in the last sample
	// ([Options].CPUShares): 0 if there is none.
	CPU, Sampled float64
	// Calls of this app by others, per second, and Failed ones; by caller. Those that the caller has given up are neither.
	Calls, Failed map[string]float64
	// CallTime is how long calls took that have ended, by caller, in seconds per second.
	CallTime map[string]float64
}

// figuresOf are those of an app between two looks at it. A time that is too short has no rates.
func figuresOf(before, after *watt.Status, elapsed time.Duration) Figures {
	if elapsed < brief {
		elapsed = 0
	}
	f := Figures{
		Saturation: metrics.Saturation(before, after, elapsed),
		Calls:      make(map[string]float64), Failed: make(map[string]float64), CallTime: make(map[string]float64),
	}
	seconds := elapsed.Seconds()
	if seconds <= 0 {
		return f
	}
	f.Seconds = seconds
	rate := func(after, before uint64) float64 { return float64(after-min(before, after)) / seconds }
	f.ConnsShed = rate(after.ConnsShed, before.ConnsShed)
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
	if limit := longestWait(after); limit > 0 { // the end of its bucket may be later
		f.Wait99 = min(f.Wait99, limit.Seconds())
	}
	f.work(before, after, seconds)
	for i := range after.PerCaller {
		c := &after.PerCaller[i]
		old := new(watt.CallerStatus)
		if i < len(before.PerCaller) && before.PerCaller[i].Caller == c.Caller {
			old = &before.PerCaller[i]
		}
		givenUp := rate(c.Errors[canceled], old.Errors[canceled])
		f.Calls[c.Caller] = max(0, rate(c.Duration.Count, old.Duration.Count)-givenUp)
		f.CallTime[c.Caller] = max(0, c.Duration.Sum-old.Duration.Sum).Seconds() / seconds
		f.Failed[c.Caller] = max(0, rate(sum(c.Errors), sum(old.Errors))-givenUp)
	}
	return f
}

// work adds what the workers did.
func (f *Figures) work(before, after *watt.Status, seconds float64) {
	busy := max(0, after.BusyTime-before.BusyTime).Seconds() / seconds
	if f.Requests > 0 {
		f.Service = busy / f.Requests
	}
	if workers := float64(max(readyOf(before), readyOf(after)) * max(0, after.Workers)); workers > 0 {
		f.Utilisation = min(1, busy/workers)
		f.Downstream = min(f.Utilisation, max(0, after.DownstreamTime-before.DownstreamTime).Seconds()/seconds/workers)
	}
}

// canceled is the kind of those calls that their caller has given up: that says nothing about the callee.
const canceled = "canceled"

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
	n, limit := after.WaitTooLong-min(before.WaitTooLong, after.WaitTooLong), longestWait(after)
	if n == 0 || limit <= 0 {
		return
	}
	if *t == nil {
		*t = make(times)
	}
	(*t)[int(math.Ceil(4*math.Log2(limit.Seconds())))] += n
}

// longestWait is how long a request may wait for a worker.
func longestWait(s *watt.Status) time.Duration {
	if s.Timeout > 0 {
		return min(s.QueueTimeout, s.Timeout)
	}
	return s.QueueTimeout
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
