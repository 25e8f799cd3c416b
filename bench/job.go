package main

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// job is work for a processor: so many turns of a loop. Everybody who does the same job does the same work, whatever
// the machine's mood.
type job int64

// slice is how many turns are done before a job looks whether anybody still wants it. It takes some 50 µs.
const slice = 1 << 16

// do does the job, and returns what proves it, unless ctx ends before.
func (j job) do(ctx context.Context) (string, error) {
	x := uint64(88172645463325252)
	for rest := int64(j); rest > 0; rest -= slice {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		x = spin(x, min(rest, slice))
	}
	return strconv.FormatUint(x, 36), nil
}

// spin is xorshift (George Marsaglia, Xorshift RNGs, 2003): it needs no memory, and cannot be shortened.
func spin(x uint64, turns int64) uint64 {
	for range turns {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

// path is where a mill does the job.
func (j job) path() string { return "/grind/" + strconv.FormatInt(int64(j), 10) }

// proof is the right answer.
func (j job) proof() []byte {
	s, _ := j.do(context.Background()) // which does not end
	return []byte(s)
}

// jobs makes jobs that take each of the processors some time while all of them are busy.
type jobs struct{ rate func() float64 }

// newJobs measures how fast the processors are when it is first needed.
func newJobs(d time.Duration) *jobs {
	return &jobs{sync.OnceValue(func() float64 { return speed(max(d, 10*time.Millisecond)) })}
}

func (j *jobs) lasting(d time.Duration) job { return job(j.rate() * d.Seconds()) }

// speed returns how many turns one processor does in a second while all are busy.
func speed(d time.Duration) float64 {
	var (
		spinning sync.WaitGroup
		mu       sync.Mutex
		total    int64
	)
	began := time.Now()
	for range runtime.GOMAXPROCS(0) {
		spinning.Go(func() {
			x, turns := uint64(1), int64(0)
			for time.Since(began) < d {
				x = spin(x, slice)
				turns += slice
			}
			mu.Lock()
			defer mu.Unlock()
			if x != 0 { // it never is; but somebody must look at it
				total += turns
			}
		})
	}
	spinning.Wait()
	return float64(total) / time.Since(began).Seconds() / float64(runtime.GOMAXPROCS(0))
}

// rated is how many jobs of that length the machine does in a second.
func rated(length time.Duration) float64 {
	return float64(runtime.GOMAXPROCS(0)) * float64(time.Second/length)
}
