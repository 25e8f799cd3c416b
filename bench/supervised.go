package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	wattlib "github.com/org/watt"
)

// What a full run does, which is one with the default -time; shorter ones do their share of it.
const (
	rollingRestarts = 10
	restartRequests = 50_000
	restartClients  = 8

	killTime      = time.Minute
	killPause     = 3 * time.Second
	killInstances = 3
	killBusy      = 0.3 // of the capacity

	shortJob = time.Millisecond
)

// share is the part of a full run that a measurement of d is.
func share(d time.Duration) float64 { return min(1, d.Seconds()/defaults().time.Seconds()) }

// failures are what requests have failed with. Add is safe for concurrent use.
type failures struct {
	mu   sync.Mutex
	errs []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
}

// err says how many there were, and the first few.
func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) == 0 {
		return nil
	}
	return fmt.Errorf("%d requests have failed: %w", len(f.errs), errors.Join(f.errs[:min(10, len(f.errs))]...))
}

// visits are requests for a job, each on a connection of its own.
type visits struct {
	address string
	job     job
	proof   []byte
	done    atomic.Int64
	took    latencies
	failed  failures
}

func (v *visits) visit(ctx context.Context, due time.Time) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if err := visitAt(ctx, v.address, v.job.path(), v.proof); err != nil {
		v.failed.add(err)
	} else {
		v.took.add(time.Since(due))
	}
	v.done.Add(1)
}

// supervised starts a mill, and has it measured by what does something to it.
func supervised(mill wattlib.App, jobs *jobs, measure func(context.Context, *wattlib.Runtime, *visits, float64) ([]float64, error)) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		rt, end, err := started(ctx, mill)
		if err != nil {
			return session{}, err
		}
		j := jobs.lasting(shortJob)
		proof := j.proof() //nolint:contextcheck // it has no end
		return session{close: end, measure: func(ctx context.Context, d time.Duration) (sample, error) {
			v := &visits{address: rt.Status()[0].Addr, job: j, proof: proof}
			also, err := measure(ctx, rt, v, share(d))
			if failed := v.failed.err(); failed != nil {
				fmt.Fprintln(os.Stderr, failed)
			}
			also = append([]float64{float64(len(v.failed.errs)), float64(v.done.Load()), percentile(v.took.all, 0.99)}, also...)
			return sample{value: also[0], allocs: math.NaN(), also: also}, err
		}}, nil
	}
}

// restarting restarts one instance after the other, again and again, while clients come and go.
func restarting(ctx context.Context, rt *wattlib.Runtime, v *visits, part float64) ([]float64, error) {
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for range restartClients {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					v.visit(ctx, time.Now())
				}
			}
		})
	}
	instances := runtime.GOMAXPROCS(0)
	restarts := int(math.Ceil(rollingRestarts*part)) * instances
	requests := int64(restartRequests * part)
	var errs []error
	for i := range restarts {
		errs = append(errs, rt.Restart("mill", i%instances))
		for v.done.Load() < requests*int64(i+1)/int64(restarts) && ctx.Err() == nil {
			pause(ctx, time.Millisecond)
		}
	}
	close(stop)
	clients.Wait()
	return []float64{float64(restarts)}, errors.Join(errs...)
}

// killing has requests arrive, and kills one instance after the other if it is to.
func killing(kill bool) func(context.Context, *wattlib.Runtime, *visits, float64) ([]float64, error) {
	return func(ctx context.Context, rt *wattlib.Runtime, v *visits, part float64) ([]float64, error) {
		var killer, requests sync.WaitGroup
		d := time.Duration(part * float64(killTime))
		ending, stop := context.WithTimeout(ctx, d-killPause/2)
		defer stop()
		var kills, cut int
		var err error
		if kill {
			killer.Go(func() {
				for pause(ending, min(killPause, d/2)); ending.Err() == nil && err == nil; pause(ending, killPause) {
					var n int
					n, err = killOne(rt, kills)
					kills, cut = kills+1, cut+n
				}
			})
		}
		arrive(ctx, &requests, killBusy*rated(shortJob), d, func(due time.Time) { v.visit(ctx, due) })
		killer.Wait()
		requests.Wait()
		return []float64{float64(kills), float64(cut)}, err
	}
}

// killOne kills an instance that is ready, the nth or one after it, and returns how many requests were in progress
// there: on its own connections, and those that siblings had handed to its workers. One that is both counts twice.
func killOne(rt *wattlib.Runtime, nth int) (int, error) {
	mill := rt.Status()[0]
	for i := range mill.PerInstance {
		in := mill.PerInstance[(nth+i)%len(mill.PerInstance)]
		if in.State != "ready" {
			continue
		}
		conns, err := freeze(in.PID, mill.Addr)
		if err != nil {
			return 0, err
		}
		busy := rt.Status()[0].PerInstance[in.Instance].Busy
		process, err := os.FindProcess(in.PID)
		if err != nil {
			return 0, err
		}
		return conns + busy, process.Kill()
	}
	return 0, nil
}
