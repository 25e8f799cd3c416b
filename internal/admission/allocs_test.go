//go:build !race

// Under the race detector sync.Pool drops things at random, so that what is recycled cannot be counted.

package admission_test

import (
	"runtime"
	"testing"
)

func TestWaitingAllocatesNothing(t *testing.T) {
	p := benchPool(1, 1)
	acquire := make(chan struct{})
	released := make(chan struct{})
	go func() {
		defer close(released)
		for range acquire {
			ticket, err := p.Acquire(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			ticket.Release()
			released <- struct{}{}
		}
	}()
	got := testing.AllocsPerRun(100, func() {
		ticket, err := p.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		acquire <- struct{}{}
		for p.Stats().Queued == 0 {
			runtime.Gosched()
		}
		ticket.Release()
		<-released
	})
	close(acquire)
	<-released
	if got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}
