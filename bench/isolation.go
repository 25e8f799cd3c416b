package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	wattlib "github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// Where the jobs are done beside which a gateway has a light route.
const (
	ownProcesses role = "own processes"
	inProcess    role = "in process"
	goroutines   role = "goroutines"
)

// Of the load on it.
const (
	lightClients = 8
	lightPause   = 2 * time.Millisecond // of a client between two requests
	jobTime      = 20 * time.Millisecond
	jobPatience  = time.Second // after its arrival a job's client has gone
)

// gatewayBeside is a gateway in front of the app that does the jobs.
func gatewayBeside(where wattlib.Isolation) *wattlib.Runtime {
	return quiet(pyramid.New(
		wattlib.App{Name: "gateway", Listen: "127.0.0.1:0", New: func(_ context.Context, env *wattlib.Env) (http.Handler, error) {
			return lightBeside(pyramid.Proxy(env, "mill")), nil
		}},
		wattlib.App{Name: "mill", Profile: wattlib.CPUBound, Isolation: where, New: newMill},
	)...)
}

// lightBeside is the light route, and the way to the jobs.
func lightBeside(jobs http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /light", answer(document(600), "application/json"))
	mux.Handle("GET /grind/{turns}", jobs)
	return mux
}

// isolation measures the light route with and without jobs that arrive at twice the rate at which they could be done.
func isolation(r role, jobs *jobs) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		servers, err := startServers(ctx, r)
		if err != nil {
			return session{}, err
		}
		b := &beside{servers: servers, address: servers[0].address, job: jobs.lasting(jobTime)}
		b.proof = b.job.proof() //nolint:contextcheck // it has no end
		end := func() {
			for _, c := range b.clients {
				_ = c.conn.Close()
			}
			endServers(servers)
		}
		for range lightClients {
			c, err := dialClient(ctx, b.address, "/light", document(600))
			if err != nil {
				end()
				return session{}, err
			}
			b.clients = append(b.clients, c)
		}
		return session{measure: b.measure, close: end}, nil
	}
}

// beside is a load on a light route, beside jobs.
type beside struct {
	servers []*server
	address string
	clients []*client
	job     job
	proof   []byte
}

// measure takes four times d for each of the two loads.
func (b *beside) measure(ctx context.Context, d time.Duration) (sample, error) {
	d = max(4*d, 50*time.Millisecond)
	alone, err := b.light(ctx, d)
	if err != nil {
		return sample{}, err
	}
	measuring := ctx
	ctx, stop := context.WithCancel(ctx)
	var arriving, requests sync.WaitGroup
	var done atomic.Int64
	arriving.Go(func() {
		arrive(ctx, &requests, 2*rated(jobTime), 2*d, func(due time.Time) {
			ctx, cancel := context.WithDeadline(ctx, due.Add(jobPatience))
			defer cancel()
			if visitAt(ctx, b.address, b.job.path(), b.proof) == nil {
				done.Add(1)
			}
		})
	})
	pause(ctx, d/4)
	before := done.Load()
	loaded, err := b.light(ctx, d)
	finished := float64(done.Load()-before) / d.Seconds()
	stop()
	arriving.Wait()
	requests.Wait()
	settle(measuring, b.servers)
	also := []float64{
		percentile(alone, 0.5), percentile(loaded, 0.5), percentile(alone, 0.99), percentile(loaded, 0.99),
		float64(len(loaded)) / d.Seconds(), finished,
	}
	return sample{value: also[3], allocs: math.NaN(), also: also}, err
}

// settle waits until servers do nothing more for clients that have gone: it would count as what comes next.
func settle(ctx context.Context, servers []*server) {
	const while, idle = 500 * time.Millisecond, 20 * time.Millisecond // with the queue of a child, whose time does not show
	for was, _ := usage(servers); ctx.Err() == nil; {
		pause(ctx, while)
		is, _ := usage(servers)
		if is-was <= idle {
			return
		}
		was = is
	}
}

// light returns how long requests to the light route have taken, in ms.
func (b *beside) light(ctx context.Context, d time.Duration) ([]float64, error) {
	ops, times := make([]op, len(b.clients)), make([]*timing, len(b.clients))
	for i, c := range b.clients {
		times[i] = new(timing)
		get := times[i].of(c.get)
		ops[i] = func(ctx context.Context) error {
			pause(ctx, lightPause)
			return get(ctx)
		}
	}
	_, err := repeatFor(ctx, ops, d)
	var all []float64
	for _, t := range times {
		all = append(all, t.took...)
	}
	slices.Sort(all)
	return all, err
}

// pause waits.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// visitAt asks for path on a connection of its own.
func visitAt(ctx context.Context, address, path string, want []byte) error {
	c, err := dialClient(ctx, address, path, want)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer func() { _ = c.conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })()
	return c.get(ctx)
}
