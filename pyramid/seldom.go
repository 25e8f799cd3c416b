package pyramid

import (
	"sync"
	"time"
)

// saidEvery is how often there is a line of the log about the same part.
const saidEvery = 5 * time.Second

// seldom lets something be said now and then, and counts how often it would have been in between.
type seldom struct {
	mu    sync.Mutex
	since time.Time // it was said; zero if never
	more  int
}

// now reports whether to say it, and how often it was left unsaid since the last time.
func (s *seldom) now(at time.Time) (unsaid int, say bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.since.IsZero() && at.Sub(s.since) < saidEvery {
		s.more++
		return 0, false
	}
	unsaid, s.since, s.more = s.more, at, 0
	return unsaid, true
}
