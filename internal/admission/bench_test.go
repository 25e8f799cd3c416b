package admission_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/watt/internal/admission"
)

// benchPool returns a pool with open members, each with the given workers.
func benchPool(members, workers int) *admission.Pool[*int] {
	p := admission.New[*int](admission.Limits{Workers: workers, Queue: 1024, Wait: time.Minute})
	for range members {
		p.Add().Open(new(int))
	}
	return p
}

func BenchmarkUncontended(b *testing.B) {
	for name, members := range map[string]int{"1 member": 1, "8 members": 8, "64 members": 64} {
		b.Run(name, func(b *testing.B) {
			p := benchPool(members, 4)
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			b.ReportAllocs()
			for b.Loop() {
				t, err := p.Acquire(ctx)
				if err != nil {
					b.Fatal(err)
				}
				t.Release()
			}
		})
	}
}

// BenchmarkContended is one of 32 callers that queue for 4 workers and do
// nothing with them but let others run: 28 wait at any time. The time per
// ticket is the price of one handover.
func BenchmarkContended(b *testing.B) {
	p := benchPool(1, 4)
	request := func() {
		t, err := p.Acquire(b.Context())
		if err != nil {
			b.Error(err)
			return
		}
		runtime.Gosched()
		t.Release()
	}
	var stop atomic.Bool
	var others sync.WaitGroup
	for range 31 {
		others.Go(func() {
			for !stop.Load() {
				request()
			}
		})
	}
	b.ReportAllocs()
	before := p.Stats()
	for b.Loop() {
		request()
	}
	after := p.Stats()
	stop.Store(true)
	others.Wait()
	tickets := float64(after.Admitted - before.Admitted)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/tickets, "ns/ticket")
	b.ReportMetric(float64(after.QueueWait-before.QueueWait)/tickets, "ns-waiting/ticket")
}

// BenchmarkShed is the answer to a newcomer when the queue is full.
func BenchmarkShed(b *testing.B) {
	p := admission.New[*int](admission.Limits{Workers: 1})
	p.Add().Open(new(int))
	if _, err := p.Acquire(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Acquire(b.Context()); err == nil {
			b.Fatal("admitted")
		}
	}
}
