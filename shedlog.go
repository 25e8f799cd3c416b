package watt

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// shedLog sums up what was shed, so that an overload is a line now and then instead of a flood.
type shedLog struct {
	log   *zap.Logger
	mu    sync.Mutex
	n     uint64
	since time.Time
	timer *time.Timer
}

// shedLogEvery is how long shed requests are counted before a line says so.
const shedLogEvery = 5 * time.Second

func (s *shedLog) note() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n++; s.n == 1 {
		s.since = time.Now()
		s.timer = time.AfterFunc(shedLogEvery, s.flush)
	}
}

func (s *shedLog) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		return
	}
	s.timer.Stop()
	s.log.Warn("shed requests", zap.Uint64("requests", s.n), zap.Duration("within", time.Since(s.since)))
	s.n = 0
}
