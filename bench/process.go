package main

import (
	"context"
	"math"
	"runtime"
	"time"

	wattlib "github.com/org/watt"
)

// The process group asks what instances in processes of their own cost, and what they save. The load comes from this
// process, which is also the parent of the children except in process/isolation; they share the processors with it.

func processBenchmarks(cfg config) []benchmark {
	jobs := newJobs(cfg.time)
	return []benchmark{
		isolationBenchmark(jobs), throughputBenchmark(jobs),
		crossingBenchmark("process/mesh-down/c=32", down, downTCP), crossingBenchmark("process/mesh-up/c=32", up, upTCP),
		imbalanceBenchmark(jobs), restartBenchmark(jobs), killBenchmark(jobs), startBenchmark(),
	}
}

func isolationBenchmark(jobs *jobs) benchmark {
	const alone, beside = "p99, no jobs", "p99 beside jobs"
	return benchmark{
		name: "process/isolation", unit: "ms, p99 beside jobs",
		also: []figure{{"p50, no jobs", "ms"}, {"p50 beside jobs", "ms"}, {alone, "ms"}, {beside, "ms"}, {"answers beside jobs", "/s"}, {"jobs", "/s"}},
		contenders: []contender{
			{name: watt, start: isolation(ownProcesses, jobs)},
			{name: string(inProcess), start: isolation(inProcess, jobs)},
			{name: string(goroutines), start: isolation(goroutines, jobs)},
		},
		bars: []bar{atMost(2, "beside jobs vs no jobs", ratio(alsoOf(beside), alsoOf(alone)))},
	}
}

func throughputBenchmark(jobs *jobs) benchmark {
	const alone = "the loop alone"
	return benchmark{
		name: "process/throughput", unit: "ns/job",
		contenders: []contender{
			{name: watt, start: throughputOf(jobs)},
			{name: alone, floor: true, start: loopAlone(jobs)},
		},
		bars: []bar{atLeast(0.93, "jobs vs the loop alone", ratio(valueOf(alone), valueOf(watt)))},
	}
}

// throughputOf has twice as many jobs wait as there are processors, so that none of them has to.
func throughputOf(jobs *jobs) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		rt, end, err := started(ctx, wattlib.App{Profile: wattlib.CPUBound, Instances: runtime.GOMAXPROCS(0)})
		if err != nil {
			return session{}, err
		}
		j := jobs.lasting(jobTime)
		proof := j.proof() //nolint:contextcheck // it has no end
		ops := make([]op, 2*runtime.GOMAXPROCS(0))
		for i := range ops {
			ops[i] = get(rt.Env().Client.Do, url("mill")+j.path()[1:], proof)
		}
		return repeatLong(ops, end), nil
	}
}

// repeatLong is repeat for four times d: at the end a processor may be idle for the time of a job, while another has one.
func repeatLong(ops []op, end func()) session {
	return session{
		measure: func(ctx context.Context, d time.Duration) (sample, error) { return repeatFor(ctx, ops, 4*d) },
		close:   end,
	}
}

func loopAlone(jobs *jobs) func(context.Context) (session, error) {
	return func(context.Context) (session, error) {
		j := jobs.lasting(jobTime)
		ops := make([]op, runtime.GOMAXPROCS(0))
		for i := range ops {
			ops[i] = func(ctx context.Context) error { _, err := j.do(ctx); return err }
		}
		return repeatLong(ops, func() {}), nil
	}
}

func crossingBenchmark(name string, mesh, overTCP func(context.Context) (session, error)) benchmark {
	return benchmark{
		name: name, unit: "ns/op",
		contenders: []contender{{name: watt, start: mesh}, {name: tcp, start: overTCP}},
		bars:       []bar{vsTCP(0.6)},
	}
}

func imbalanceBenchmark(jobs *jobs) benchmark {
	const even = "spread evenly"
	return benchmark{
		name: "process/imbalance", unit: "ms, p99",
		also: []figure{{"p50", "ms"}, {"p99", "ms"}, {"jobs", ""}},
		contenders: []contender{
			{name: watt, start: imbalance(jobs, 1)},
			{name: even, floor: true, start: imbalance(jobs, runtime.GOMAXPROCS(0))},
		},
		bars: []bar{atMost(1.4, "all at one vs spread evenly", ratio(valueOf(watt), valueOf(even)))},
	}
}

func restartBenchmark(jobs *jobs) benchmark {
	mill := wattlib.App{Profile: wattlib.CPUBound, Instances: runtime.GOMAXPROCS(0)}
	return benchmark{
		name: "process/restart", unit: "failed", once: true,
		also:       []figure{{"failed", ""}, {"requests", ""}, {"p99", "ms"}, {"restarts", ""}},
		contenders: []contender{{name: watt, start: supervised(mill, jobs, restarting)}},
		bars:       []bar{atMost(0, "failed", valueOf(watt))},
	}
}

func killBenchmark(jobs *jobs) benchmark {
	const p99, calm = "p99", "no kills"
	mill := wattlib.App{Profile: wattlib.CPUBound, Instances: killInstances, MaxRestarts: -1}
	return benchmark{
		name: "process/kill", unit: "failed", once: true,
		also: []figure{{"failed", ""}, {"requests", ""}, {p99, "ms"}, {"kills", ""}, {"in progress there", ""}},
		contenders: []contender{
			{name: watt, start: supervised(mill, jobs, killing(true))},
			{name: calm, floor: true, start: supervised(mill, jobs, killing(false))},
		},
		bars: []bar{
			atMost(0, "failed but not in progress there", difference(valueOf(watt), alsoOf("in progress there"))),
			atMost(3, "p99 vs no kills", ratio(figureOf(watt, p99), figureOf(calm, p99))),
		},
	}
}

func startBenchmark() benchmark {
	return benchmark{
		name: "process/start", unit: "ms to ready",
		also:       []figure{{"resident memory, idle", "MiB"}, {"of its own", "MiB"}},
		contenders: []contender{{name: watt, start: func(context.Context) (session, error) { return session{startingChild, func() {}}, nil }}},
	}
}

// startingChild measures the start of a runtime with one child, again and again for d, and the memory of the last.
func startingChild(ctx context.Context, d time.Duration) (sample, error) {
	var took []float64
	for began := time.Now(); ; {
		start := time.Now()
		rt, end, err := started(ctx, wattlib.App{})
		if err != nil {
			return sample{}, err
		}
		took = append(took, time.Since(start).Seconds()*1000)
		if time.Since(began) < d {
			end()
			continue
		}
		all, own := memoryOf(rt.Status()[0].PerInstance[0].PID)
		end()
		return sample{value: median(took), allocs: math.NaN(), also: []float64{all, own}}, nil
	}
}
