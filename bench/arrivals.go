package main

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// arrive has do called for d, rate times a second at random moments, the same for all, whether others have returned or
// not: each call in a goroutine of requests, and with the moment at which it was due. It returns after the last moment.
func arrive(ctx context.Context, requests *sync.WaitGroup, rate float64, d time.Duration, do func(due time.Time)) {
	random := rand.New(rand.NewPCG(1, 2))
	timer := time.NewTimer(0)
	defer timer.Stop()
	start := time.Now()
	for due := start; due.Sub(start) < d; due = due.Add(time.Duration(random.ExpFloat64() / rate * float64(time.Second))) {
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
			requests.Go(func() { do(due) })
		case <-ctx.Done():
			return
		}
	}
}

// latencies are how long requests took, in ms. Add is safe for concurrent use.
type latencies struct {
	mu  sync.Mutex
	all []float64
}

func (l *latencies) add(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, took.Seconds()*1000)
}

// percentile returns the value that the part p of all is not above, NaN of nothing.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	return values[int(math.Ceil(p*float64(len(values))))-1]
}
