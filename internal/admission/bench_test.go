package admission_test

import (
	"context"
	"runtime"
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

// BenchmarkContended is 32 callers that queue for 4 workers and do nothing with
// them but let others run: the price of a handover. It counts tickets, not one
// caller's, for in this endless overload the oldest waiter is never served.
func BenchmarkContended(b *testing.B) {
	p := benchPool(1, 4)
	b.ReportAllocs()
	b.SetParallelism(max(32/runtime.GOMAXPROCS(0), 1))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			t, err := p.Acquire(b.Context())
			if err != nil {
				b.Error(err)
				return
			}
			runtime.Gosched()
			t.Release()
		}
	})
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
