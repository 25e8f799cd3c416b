package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-chi/chi/v5/middleware"

	wattlib "github.com/org/watt"
)

// The overload group asks what is left of a server when more comes than it can do.

const (
	serviceTime  = 5 * time.Millisecond // a timer, not CPU
	capacity     = float64(slots) * float64(time.Second/serviceTime)
	giveUp       = 250 * time.Millisecond // after its arrival a request's client has gone
	waiting      = 256                    // how many may wait, which is watt's default
	waitingLimit = time.Second            // how long, which is watt's default
)

// loads are the arrivals, in multiples of the capacity.
func loads() []float64 { return []float64{0.5, 1, 2, 4} }

func overloadBenchmarks() []benchmark {
	var further []figure
	var goodputs []quantity
	for _, load := range loads() {
		f := figure{fmt.Sprintf("goodput at %gx", load), "req/s"}
		further, goodputs = append(further, f), append(goodputs, alsoOf(f.name))
	}
	for _, load := range loads() {
		further = append(further, figure{fmt.Sprintf("p99 at %gx", load), "ms"})
	}
	return []benchmark{{
		name: "overload/goodput", unit: "req/s at 4x", more: true, also: further,
		contenders: []contender{
			{name: watt, start: overloadWatt},
			{name: "semaphore", start: overloadServer(unboundedWait)},
			{name: "chi", start: overloadServer(middleware.ThrottleBacklog(slots, waiting, waitingLimit))},
		},
		bars: []bar{
			atLeast(0.9, "goodput at 4x vs own peak", ratio(alsoOf("goodput at 4x"), greatest(goodputs...))),
			atMost(100, "p99 at 4x, ms", alsoOf("p99 at 4x")),
		},
	}}
}

// unboundedWait is a semaphore in front of a handler, as it is often written.
func unboundedWait(next http.Handler) http.Handler {
	busy := make(chan struct{}, slots)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		busy <- struct{}{}
		defer func() { <-busy }()
		next.ServeHTTP(w, r)
	})
}

// service works for a while, unless the client goes away.
func service() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(serviceTime)
		defer timer.Stop()
		select {
		case <-timer.C:
			_, _ = io.WriteString(w, "done") // the client sees it if that fails
		case <-r.Context().Done():
		}
	})
}

func overloadWatt(ctx context.Context) (session, error) {
	rt := quiet(wattlib.App{
		Name: "orders", Handler: service(), Workers: slots, Queue: waiting, QueueTimeout: waitingLimit,
	})
	if err := rt.Start(ctx); err != nil {
		return session{}, err
	}
	end := func() { _ = rt.Shutdown(ctx) } // if it fails, the next case still counts
	return session{measure: overload(rt.Env().Client.Do), close: end}, nil
}

// overloadServer serves over TCP, behind limit.
func overloadServer(limit func(http.Handler) http.Handler) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		ln, dial, err := listenTCP(ctx)
		if err != nil {
			return session{}, err
		}
		server := &http.Server{Handler: limit(service())}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(ln) }) // it ends with Close
		transport := newTransport(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) })
		transport.MaxIdleConnsPerHost = 1024
		end := func() { transport.CloseIdleConnections(); _ = server.Close(); serving.Wait() }
		return session{measure: overload((&http.Client{Transport: transport}).Do), close: end}, nil
	}
}

// overload measures one load after the other, each for four times d.
func overload(s send) func(ctx context.Context, d time.Duration) (sample, error) {
	return func(ctx context.Context, d time.Duration) (sample, error) {
		d = max(4*d, 100*time.Millisecond)
		var goodputs, p99s []float64
		for _, load := range loads() {
			latencies := arrivals(ctx, s, load*capacity, d)
			goodputs = append(goodputs, float64(inTime(latencies))/measured(d).Seconds())
			p99s = append(p99s, percentile(latencies, 0.99))
		}
		return sample{value: goodputs[len(goodputs)-1], allocs: math.NaN(), also: append(goodputs, p99s...)}, nil
	}
}

// measured is the part of d that counts: what ends in the first quarter is a warm-up, and what ends
// after the last arrival came too late to be part of the load.
func measured(d time.Duration) time.Duration { return d - d/4 }

// arrivals sends requests for d, rate a second, whether others have been answered or not. It returns
// the latencies in ms of those answered with 200, from the moment at which they were due.
func arrivals(ctx context.Context, s send, rate float64, d time.Duration) []float64 {
	var (
		requests sync.WaitGroup
		answered latencies
	)
	ctx, cancel := context.WithCancel(ctx)
	start := time.Now()
	arrive(ctx, &requests, rate, d, func(due time.Time) {
		if !served(ctx, s, due.Add(giveUp)) {
			return
		}
		now := time.Now()
		if now.Sub(start) >= d-measured(d) && now.Sub(start) <= d {
			answered.add(now.Sub(due))
		}
	})
	cancel() // what is not answered by now does not count
	requests.Wait()
	return answered.all
}

// inTime returns how many of the latencies a client has waited for: a busy machine may see the end of
// its patience late.
func inTime(latencies []float64) int {
	n := 0
	for _, ms := range latencies {
		if ms <= float64(giveUp.Milliseconds()) {
			n++
		}
	}
	return n
}

// served reports whether a request was answered with 200, and whole, before its client gave up.
func served(ctx context.Context, s send, deadline time.Time) bool {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url("orders"), http.NoBody)
	if err != nil {
		return false
	}
	resp, err := s(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK && string(body) == "done"
}
