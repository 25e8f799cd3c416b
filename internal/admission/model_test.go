package admission_test

import (
	"context"
	"slices"
	"time"

	"github.com/org/watt/internal/admission"
)

// model is what a pool should do, said in the simplest way: plain slices, one
// goroutine, and a clock that is told what happens when.
type model struct {
	limits  admission.Limits
	members []*modelMember
	queue   []*modelCall // oldest first
	running []*modelCall
	refused error
	filled  time.Time // when the queue was last empty
	turned  time.Time // until then the newest are first
	turn    time.Duration
	stats   admission.Stats
	now     time.Time
}

type modelMember struct {
	open  bool
	value int
	busy  int
}

// modelCall is one Acquire: it waits, runs, or has failed.
type modelCall struct {
	deadline time.Time // zero is none
	since    time.Time
	member   *modelMember
	value    int
	err      error
}

func (m *model) overloaded() bool {
	return len(m.queue) > 0 && m.now.Sub(m.filled) >= 100*time.Millisecond
}

func (m *model) newestFirst() bool { return m.overloaded() && m.now.Before(m.turned) }

// missed is whenever somebody is shed or leaves who could have waited for patience.
func (m *model) missed(patience time.Duration) {
	if !m.overloaded() || m.newestFirst() {
		return
	}
	turn := patience / 2
	if again := m.now.Sub(m.turned) <= m.turn; again {
		turn = max(turn, 2*m.turn)
	}
	turn = min(turn, m.limits.Wait/2)
	m.turn, m.turned = turn, m.now.Add(turn)
}

func (m *model) next() *modelCall {
	if m.newestFirst() {
		return m.queue[len(m.queue)-1]
	}
	return m.queue[0]
}

func (m *model) workers() int {
	workers := 0
	for _, member := range m.members {
		if member.open {
			workers += m.limits.Workers
		}
	}
	return workers
}

func (m *model) drain(n int) time.Duration {
	workers := m.workers()
	if workers == 0 {
		workers = len(m.members) * m.limits.Workers
	}
	return time.Duration(n) * m.stats.ServiceTime / time.Duration(max(workers, 1))
}

func (m *model) retryAfter() time.Duration {
	return min(max(m.drain(len(m.queue)), time.Second), time.Minute)
}

func (m *model) busy() int {
	return len(m.running)
}

func (m *model) free() *modelMember {
	var free []*modelMember
	for _, member := range m.members {
		if member.open && member.busy < m.limits.Workers {
			free = append(free, member)
		}
	}
	if len(free) == 0 {
		return nil
	}
	return slices.MinFunc(free, func(a, b *modelMember) int { return a.busy - b.busy })
}

// acquire is somebody who has come some time ago, already gone or not.
func (m *model) acquire(c *modelCall, ago time.Duration, gone error) {
	c.since = m.now
	switch {
	case gone != nil:
		m.stats.Abandoned++
		c.err = gone
	case m.refused != nil:
		m.stats.Refused++
		c.err = m.refused
	case m.free() != nil:
		m.start(c)
	case m.limits.Queue <= 0 || m.limits.Wait <= 0:
		m.shed(c, admission.NoQueue, 0)
	case len(m.queue) >= m.limits.Queue && !m.overloaded():
		m.shed(c, admission.QueueFull, 0)
	default:
		m.wait(c, ago)
	}
}

func (m *model) wait(c *modelCall, ago time.Duration) {
	since, later := m.now.Add(-ago), 0
	for _, other := range m.queue {
		if other.since.After(since) {
			later++
		}
	}
	position := len(m.queue) - later + 1
	if m.newestFirst() {
		position = later + 1
	}
	expected := m.drain(position)
	if !c.deadline.IsZero() && m.now.Add(expected).After(c.deadline) {
		if left := c.deadline.Sub(m.now); left >= m.drain(1) {
			m.missed(left)
		}
		m.shed(c, admission.Deadline, expected)
		return
	}
	if len(m.queue) == 0 {
		m.filled, m.turn, m.turned = m.now, 0, m.now
	}
	c.since = since
	m.queue = append(m.queue, c)
	slices.SortStableFunc(m.queue, func(a, b *modelCall) int { return a.since.Compare(b.since) })
	m.expire()
	m.trim()
}

func (m *model) start(c *modelCall) {
	c.member = m.free()
	c.value = c.member.value
	c.member.busy++
	m.running = append(m.running, c)
	m.stats.Admitted++
	m.stats.QueueWait += m.now.Sub(c.since)
	c.since = m.now
}

func (m *model) newShed(reason admission.Reason, wait time.Duration) error {
	return &admission.ShedError{
		Reason: reason, Busy: m.busy(), Workers: m.workers(), Queued: len(m.queue),
		Wait: wait, RetryAfter: m.retryAfter(),
	}
}

func (m *model) shed(c *modelCall, reason admission.Reason, wait time.Duration) {
	m.stats.Shed[reason]++
	c.err = m.newShed(reason, wait)
	m.leave(c)
}

func (m *model) leave(c *modelCall) {
	m.queue = slices.DeleteFunc(m.queue, func(other *modelCall) bool { return other == c })
}

// cancel is a caller that goes while it waits.
func (m *model) cancel(c *modelCall, cause error) {
	m.missed(m.now.Sub(c.since))
	c.err = cause
	m.stats.Abandoned++
	m.leave(c)
}

// end gives the worker of c back and returns who runs now instead.
func (m *model) end(c *modelCall, served bool) []*modelCall {
	m.running = slices.DeleteFunc(m.running, func(other *modelCall) bool { return other == c })
	c.member.busy--
	held := m.now.Sub(c.since)
	m.stats.BusyTime += held
	if served {
		if m.stats.Served == 0 {
			m.stats.ServiceTime = held
		} else {
			m.stats.ServiceTime += (held - m.stats.ServiceTime) / 8
		}
		m.stats.Served++
	}
	return m.grant()
}

func (m *model) grant() []*modelCall {
	var granted []*modelCall
	for len(m.queue) > 0 && m.free() != nil {
		next := m.next()
		m.leave(next)
		m.start(next)
		granted = append(granted, next)
	}
	return granted
}

func (m *model) trim() {
	for len(m.queue) > max(m.limits.Queue, 0) {
		if m.overloaded() {
			m.missed(m.limits.Wait)
			m.shed(m.queue[0], admission.PushedOut, m.now.Sub(m.queue[0].since))
		} else {
			newest := m.queue[len(m.queue)-1]
			m.shed(newest, admission.QueueFull, m.now.Sub(newest.since))
		}
	}
}

func (m *model) resize(limits admission.Limits) {
	m.limits = limits
	m.turn, m.turned = 0, m.now
	m.grant()
	m.expire()
	m.trim()
}

func (m *model) expire() {
	for len(m.queue) > 0 && m.now.Sub(m.queue[0].since) >= m.limits.Wait {
		m.missed(m.limits.Wait)
		m.shed(m.queue[0], admission.WaitTooLong, m.now.Sub(m.queue[0].since))
	}
}

func (m *model) refuse(err error) {
	m.refused = err
	if err == nil {
		return
	}
	for _, c := range m.queue {
		c.err = err
		m.stats.Refused++
	}
	m.queue = nil
}

// advance lets time pass, and whoever waits give up or be shed when it is time.
func (m *model) advance(d time.Duration) {
	end := m.now.Add(d)
	for {
		c, due := m.firstDue()
		if c == nil || due.After(end) {
			break
		}
		m.now = due
		if due.Equal(c.deadline) {
			m.cancel(c, context.DeadlineExceeded)
		} else {
			m.missed(m.limits.Wait)
			m.shed(c, admission.WaitTooLong, due.Sub(c.since))
		}
	}
	m.now = end
}

func (m *model) firstDue() (first *modelCall, due time.Time) {
	for _, c := range m.queue {
		at := c.since.Add(m.limits.Wait)
		if !c.deadline.IsZero() && c.deadline.Before(at) {
			at = c.deadline
		}
		if first == nil || at.Before(due) {
			first, due = c, at
		}
	}
	return first, due
}

// snapshot is what Stats should return.
func (m *model) snapshot() admission.Stats {
	s := m.stats
	s.Workers, s.Busy, s.Queued, s.Overloaded = m.workers(), m.busy(), len(m.queue), m.overloaded()
	for _, c := range m.running {
		s.BusyTime += m.now.Sub(c.since)
	}
	return s
}

// places is how many can wait and be served in time.
func (m *model) places() int {
	places := m.limits.Queue
	if each := m.drain(1); each > 0 {
		places = min(places, int(m.limits.Wait/each))
	}
	return places
}

// check is what Check should return for a request that has that long.
func (m *model) check(within time.Duration) error {
	switch {
	case m.refused != nil:
		return m.refused
	case m.free() != nil:
		return nil
	case m.limits.Queue <= 0 || m.limits.Wait <= 0:
		return m.newShed(admission.NoQueue, 0)
	case len(m.queue) >= m.limits.Queue:
		return m.newShed(admission.QueueFull, 0)
	}
	wait := m.drain(len(m.queue) + 1)
	if len(m.queue) >= m.places() || wait+m.stats.ServiceTime > within {
		return m.newShed(admission.Deadline, wait)
	}
	return nil
}
