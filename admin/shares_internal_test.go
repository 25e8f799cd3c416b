package admin

import (
	"testing"
	"time"
)

func TestTheLastSampleIsThereWhileTheNextIsTaken(t *testing.T) {
	s := &shares{cores: map[string]float64{"orders": 0.5}}
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		s.sample(over)
	}()
	takes := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.running != nil
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !takes() {
		<-tick.C
	}
	if got := s.of("orders"); got != 0.5 {
		t.Errorf("got %v, want that of the last", got)
	}
	close(over)
	<-done
}
