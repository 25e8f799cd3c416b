package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	wattlib "github.com/org/watt"
)

// config is how long, how often and how large things are measured.
type config struct {
	rounds int           // how often each contender is measured
	time   time.Duration // how long in each round
	only   string        // the one contender to measure; all if empty
	conns  int           // idle connections in pipe/idle-bytes
	large  int           // bytes of a large body in mesh/
	apps   []int         // apps in one runtime in scale/apps, the fewest first
}

func defaults() config {
	return config{rounds: 5, time: 500 * time.Millisecond, conns: 10_000, large: megabyte, apps: []int{1, 10, 100, 1000}}
}

// benchmark is one case: something that all its contenders do.
type benchmark struct {
	name       string
	unit       string
	more       bool     // more is better
	once       bool     // measured once, and not to warm up: it takes long enough
	also       []figure // what a sample says beside its value
	contenders []contender
	bars       []bar
}

// figure is a number with a name.
type figure struct{ name, unit string }

// contender is one way to do what a case is about. The one named "watt" is measured, the others are
// what it is measured against.
type contender struct {
	name     string
	inMemory bool // a peer of watt's pipe: no system call
	timed    bool // what waits there can be given a time limit
	floor    bool // not a peer, but what no peer can go below
	start    func(ctx context.Context) (session, error)
}

const (
	watt = "watt"
	tcp  = "tcp"
)

// session is a contender that was started.
type session struct {
	measure func(ctx context.Context, d time.Duration) (sample, error)
	close   func()
}

// sample is what one measurement has given: numbers for the case's unit and its further figures.
// NaN is a number that this measurement does not give.
type sample struct {
	value  float64
	allocs float64 // for each operation
	also   []float64
}

// run measures the contenders in rounds. In each round another one goes first, so that a change of
// the machine's mood hits all of them.
func (b benchmark) run(ctx context.Context, cfg config) (*result, error) {
	n := len(b.contenders)
	sessions := make([]session, 0, n)
	defer func() {
		for _, s := range sessions {
			s.close()
		}
	}()
	for _, c := range b.contenders {
		s, err := c.start(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: start: %w", c.name, err)
		}
		sessions = append(sessions, s)
		if b.once {
			continue
		}
		if _, err := s.measure(ctx, cfg.time/4); err != nil { // to warm up
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	samples, rounds := make([][]sample, n), cfg.rounds
	if b.once {
		rounds = 1
	}
	for round := range rounds {
		for turn := range n {
			i := (round + turn) % n
			runtime.GC()
			s, err := sessions[i].measure(ctx, cfg.time)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", b.contenders[i].name, err)
			}
			samples[i] = append(samples[i], s)
		}
	}
	return b.result(samples), nil
}

// op does something once and verifies what came of it.
type op func(ctx context.Context) error

// repeat returns a session that has every op done again and again, each in a goroutine of its own,
// and measures the nanoseconds and allocations, anywhere in the program, of one operation.
func repeat(ops []op, end func()) session {
	return session{
		measure: func(ctx context.Context, d time.Duration) (sample, error) { return repeatFor(ctx, ops, d) },
		close:   end,
	}
}

func repeatFor(ctx context.Context, ops []op, d time.Duration) (sample, error) {
	var (
		workers sync.WaitGroup
		stop    atomic.Bool
		total   atomic.Int64
	)
	errs := make([]error, len(ops))
	before := mallocs()
	start := time.Now()
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	defer timer.Stop()
	for i, do := range ops {
		workers.Go(func() {
			n, err := int64(1), do(ctx)
			for ; err == nil && !stop.Load(); n++ {
				err = do(ctx)
			}
			total.Add(n)
			errs[i] = err
		})
	}
	workers.Wait()
	took, allocs, n := time.Since(start), mallocs()-before, float64(total.Load())
	return sample{value: float64(took) / n, allocs: float64(allocs) / n}, errors.Join(errs...)
}

// mallocs returns how many objects the program has allocated so far.
func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// memory returns the bytes in use on the heap and for stacks, after the collections that also empty
// the pools.
func memory() float64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// quiet makes a runtime that logs nothing: what is shed and killed here is so on purpose.
func quiet(apps ...wattlib.App) *wattlib.Runtime {
	rt := wattlib.New(apps...)
	rt.Logger = zap.NewNop()
	return rt
}
