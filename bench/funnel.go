package main

import (
	"runtime"

	wattlib "github.com/org/watt"
)

// The funnel group asks what becomes of work that many instances do and one app keeps: how much of it there is, and
// how much is lost when something is slow, or dies. As in the process group, the load comes from the first process,
// which has the keeping app.

func funnelBenchmarks(cfg config) []benchmark {
	jobs := newJobs(cfg.time)
	return append(summingBenchmarks(), batchBenchmark(), pressureBenchmark(jobs), repeatedBenchmark(jobs), streamBenchmark())
}

// summingBenchmarks differ in whether the megabyte is sent; where it is, sending costs more than summing. A worker waits
// for the keeping app as well, so that there are as many as clients.
func summingBenchmarks() []benchmark {
	const alone, once = "the loop alone", "in process"
	inside := wattlib.App{Isolation: wattlib.InProcess, Workers: sums}
	outside := hashers()
	outside.Workers = sums / outside.Instances
	return []benchmark{{
		name: "funnel/job", unit: "ns/job",
		contenders: []contender{
			{name: watt, start: summing(outside, false)},
			{name: once, start: summing(inside, false)},
			{name: alone, floor: true, start: sumsAlone},
		},
		bars: []bar{atLeast(0.9, "jobs vs the loop alone", ratio(valueOf(alone), valueOf(watt)))},
	}, {
		name: "funnel/upload", unit: "ns/job",
		contenders: []contender{
			{name: watt, start: summing(outside, true)},
			{name: once, start: summing(inside, true)},
			{name: alone, floor: true, start: sumsAlone},
		},
	}}
}

func batchBenchmark() benchmark {
	const each, sync = "a transaction each", "fsync, p50"
	return benchmark{
		name: "funnel/batch", unit: "ns/write", also: []figure{{sync, "ms"}},
		contenders: []contender{
			{name: watt, start: writing(batched)},
			{name: each, start: writing(oneByOne)},
		},
		bars: []bar{atLeast(1, "of the gain that the disk's fsync asks for", ratio(
			ratio(valueOf(each), valueOf(watt)), askedOf(alsoOf(sync)),
		))},
	}
}

// askedOf is how much faster writing together has to be than one by one: what an fsync costs is what is shared.
func askedOf(fsync quantity) quantity {
	return func(r *result) (float64, bool) {
		ms, ok := fsync(r)
		switch {
		case ms >= 1:
			return 8, ok
		case ms >= 0.15:
			return 4, ok
		}
		return 1, ok
	}
}

func pressureBenchmark(jobs *jobs) benchmark {
	const wasted, grown = "CPU for what was refused then", "memory, end vs early"
	return benchmark{
		name: "funnel/backpressure", unit: "% of CPU wasted", once: true,
		also:       []figure{{wasted, "%"}, {grown, "x"}, {"stored", "/s"}, {"refused before work", "/s"}, {"refused after it", "/s"}, {"Retry-After, p50", "s"}},
		contenders: []contender{{name: watt, start: pressed(jobs)}},
		bars:       []bar{atMost(5, wasted, alsoOf(wasted)), atMost(1.2, grown, alsoOf(grown))},
	}
}

func repeatedBenchmark(jobs *jobs) benchmark {
	const failed, wrong = "failed", "not stored exactly once"
	return benchmark{
		name: "funnel/kill", unit: "failed", once: true,
		also:       []figure{{failed, ""}, {wrong, ""}, {"requests", ""}, {"tries", ""}, {"kills", ""}},
		contenders: []contender{{name: watt, start: repeated(jobs)}},
		bars:       []bar{atMost(0, failed, alsoOf(failed)), atMost(0, wrong, alsoOf(wrong))},
	}
}

func streamBenchmark() benchmark {
	const more = "more memory in any process"
	return benchmark{
		name: "funnel/stream", unit: "MiB", once: true,
		also:       []figure{{more, "MiB"}, {"streamed", "MiB"}, {"rate", "MiB/s"}},
		contenders: []contender{{name: watt, start: streaming}},
		bars:       []bar{atMost(32, more, alsoOf(more))},
	}
}

// hashers is the CPU side of most cases.
func hashers() wattlib.App {
	return wattlib.App{Instances: runtime.GOMAXPROCS(0), MaxRestarts: -1}
}
