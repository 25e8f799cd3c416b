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
	alone int // how many have a line of their own before the others are summed up

	mu    sync.Mutex
	n     int // all, since the last line that sums up, or was not needed
	last  error
	since time.Time
	timer *time.Timer
}

// summaryEvery is how long requests are counted before a line says so.
const summaryEvery = 5 * time.Second

// mostFailures is how many failed requests of an app have a line of their own in that time.
const mostFailures = 10

// note counts one that went wrong because of err, and reports whether it is to have a line of its own.
func (s *summary) note(err error) (alone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = err
	if s.n++; s.n == 1 {
		s.since = time.Now()
		s.timer = time.AfterFunc(summaryEvery, s.flush)
	}
	return s.n <= s.alone
}

func (s *summary) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		return
	}
	s.timer.Stop()
	if n := s.n - s.alone; n > 0 {
		s.log.Warn(s.what, zap.Uint64("requests", uint64(n)), zap.Duration("within", time.Since(s.since)), zap.NamedError("last", s.last))
	}
	s.n, s.last = 0, nil
}
