package admin

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// sampling has a sample be taken by one that has the last one already, and returns what ends it.
func sampling(t *testing.T) (s *shares, end func()) {
	t.Helper()
	s = &shares{cores: map[string]float64{"orders": 0.5}}
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
	return s, func() {
		close(over)
		<-done
	}
}

func TestTheLastSampleIsThereWhileTheNextIsTaken(t *testing.T) {
	s, end := sampling(t)
	defer end()
	if got := s.of("orders"); got != 0.5 {
		t.Errorf("got %v, want that of the last", got)
	}
}

func TestWhoAsksForAProfileDoesNotWaitForASample(t *testing.T) {
	s, end := sampling(t)
	defer end()
	began := time.Now()
	s.yielding(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), new(http.Request))
	if took := time.Since(began); took > sampleTime/2 {
		t.Errorf("it took %v", took)
	}
}
