package pipe

import (
	"net"
	"time"
)

// setDeadline wakes what waits only if t has passed: otherwise it goes on waiting, under the new deadline.
func (h *half) setDeadline(s *side, t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.disarm()
	if t.IsZero() {
		return nil
	}
	now := time.Now()
	left := t.Sub(now)
	if left <= 0 {
		s.expired = true
		s.wake()
		return nil
	}
	s.deadline = now.Add(left)
	if s.timer == nil {
		s.timer = time.AfterFunc(left, func() { h.expire(s) })
	} else {
		s.timer.Reset(left)
	}
	return nil
}

// expire runs when the timer fires. Stop and Reset do not take back a call that is already under way,
// so it asks the clock whether the deadline in force is the one that has passed.
func (h *half) expire(s *side) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !s.deadline.IsZero() && !time.Now().Before(s.deadline) {
		s.expired = true
		s.wake()
	}
}

// disarm leaves the side without a deadline.
func (s *side) disarm() {
	s.expired, s.deadline = false, time.Time{}
	if s.timer != nil {
		s.timer.Stop()
	}
}
