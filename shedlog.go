package watt

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// shedLog sums up what an app has refused, so that an overload is a line now and then instead of a flood.
type shedLog struct {
	log   *zap.Logger
	what  string
	mu    sync.Mutex
	n     uint64
	last  error
	since time.Time
	timer *time.Timer
}

// shedLogEvery is how long shed requests are counted before a line says so.
const shedLogEvery = 5 * time.Second

// note counts one that was refused for err.
func (s *shedLog) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = err
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
	s.log.Warn(s.what, zap.Uint64("requests", s.n), zap.Duration("within", time.Since(s.since)), zap.NamedError("last", s.last))
	s.n, s.last = 0, nil
}
