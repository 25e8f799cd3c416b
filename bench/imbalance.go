package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"

	wattlib "github.com/org/watt"
)

// Of the load on instances whose connections may be spread unevenly.
const (
	keptConns = 32
	partBusy  = 0.7 // of the capacity
)

// imbalance measures jobs that arrive over connections that are kept, all at the first instances of a mill with as
// many as there are processors.
func imbalance(jobs *jobs, at int) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		rt, end, err := started(ctx, wattlib.App{Profile: wattlib.CPUBound, Instances: runtime.GOMAXPROCS(0), Queue: 256})
		if err != nil {
			return session{}, err
		}
		l := &keptLoad{conns: make(chan *client, keptConns)}
		j := jobs.lasting(jobTime)
		proof := j.proof() //nolint:contextcheck // it has no end
		for i := range keptConns {
			c, err := dialInstance(ctx, rt.Status()[0].Addr, i%at)
			if err != nil {
				l.close()
				end()
				return session{}, err
			}
			c.ask(j.path(), proof)
			l.conns <- c
		}
		return session{measure: l.measure, close: func() { l.close(); end() }}, nil
	}
}

// keptLoad are connections, each of which has one request at a time.
type keptLoad struct{ conns chan *client }

func (l *keptLoad) close() {
	for range len(l.conns) {
		_ = (<-l.conns).conn.Close()
	}
}

// measure takes twenty times d.
func (l *keptLoad) measure(ctx context.Context, d time.Duration) (sample, error) {
	d = max(20*d, 100*time.Millisecond)
	var (
		requests sync.WaitGroup
		took     latencies
		failed   failures
	)
	arrive(ctx, &requests, partBusy*rated(jobTime), d, func(due time.Time) {
		c := <-l.conns
		if err := c.get(ctx); err != nil {
			failed.add(err)
		}
		l.conns <- c
		took.add(time.Since(due))
	})
	requests.Wait()
	also := []float64{percentile(took.all, 0.5), percentile(took.all, 0.99), float64(len(took.all))}
	return sample{value: also[1], allocs: math.NaN(), also: also}, failed.err()
}

// dialInstance dials until the connection is one of that instance.
func dialInstance(ctx context.Context, address string, instance int) (*client, error) {
	for range 1000 {
		c, err := dialClient(ctx, address, job(1).path(), nil)
		if err != nil {
			return nil, err
		}
		if _, err := c.conn.Write(c.request); err != nil {
			return nil, err
		}
		resp, err := c.head()
		if err != nil {
			return nil, err
		}
		if _, err = c.read.Discard(resp.length); err == nil && resp.instance == instance {
			return c, nil
		}
		_ = c.conn.Close()
	}
	return nil, fmt.Errorf("no connection gets to instance %d", instance)
}
