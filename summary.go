package watt

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// summary sums up what has become of an app's requests, so that an overload is a line now and then instead of a flood.
type summary struct {
	log   *zap.Logger
	what  string
	mu    sync.Mutex
	n     uint64
	last  error
	since time.Time
	timer *time.Timer
}

// summaryEvery is how long requests are counted before a line says so.
const summaryEvery = 5 * time.Second

// note counts one that went wrong because of err.
func (s *summary) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = err
	if s.n++; s.n == 1 {
		s.since = time.Now()
		s.timer = time.AfterFunc(summaryEvery, s.flush)
	}
}

func (s *summary) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		return
	}
	s.timer.Stop()
	s.log.Warn(s.what, zap.Uint64("requests", s.n), zap.Duration("within", time.Since(s.since)), zap.NamedError("last", s.last))
	s.n, s.last = 0, nil
}
