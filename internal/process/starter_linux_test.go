package process_test

import (
	"runtime"
	"sync"
	"testing"
)

func TestAProcessOutlivesTheThreadsThatItsParentHadWhenItStarted(t *testing.T) {
	t.Parallel()
	s := starter(t)
	var all []*played
	for range 4 {
		p := playOf(t, s, "hang")
		endThreads()
		select {
		case <-p.up:
		case <-p.Done():
		}
		endThreads()
		all = append(all, p)
	}
	for _, p := range all {
		p.control.Close() // which ends it, if nothing else has
	}
	for _, p := range all {
		if exit := p.exit(t); exit.Reason != "exit status 0" {
			t.Errorf("got %q", exit.Reason)
		}
	}
}

// endThreads ends all threads of this program that have nothing to do. A goroutine that ends with a thread takes it along.
func endThreads() {
	const more = 100 // than there are
	var begun, ended sync.WaitGroup
	begun.Add(more)
	for range more {
		ended.Go(func() {
			runtime.LockOSThread()
			begun.Done()
			begun.Wait()
		})
	}
	ended.Wait()
}
