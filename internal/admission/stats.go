package admission

import "time"

// Stats is a snapshot of a [Pool].
type Stats struct {
	Workers    int  // of the open members
	Busy       int  // requests in progress; more than Workers after a Close, Remove or shrinking Resize
	Queued     int  // requests waiting
	Overloaded bool // the queue has not been empty for 100 ms

	// Every request so far is in exactly one of these, or in Queued.
	Admitted  uint64          // was given a worker
	Shed      [Reasons]uint64 // by Reason
	Refused   uint64          // got the error of Pool.Refuse
	Abandoned uint64          // its caller was gone before there was a worker

	Served      uint64        // tickets released: those that ServiceTime is made of
	ServiceTime time.Duration // moving average of the time a ticket is held
	QueueWait   time.Duration // sum of the time that admitted requests waited
	BusyTime    time.Duration // sum of the time that workers were busy, up to now
}

// serve takes a request's service time into account. The average forgets half
// of what it knew in five requests, so it follows a change within moments.
func (s *Stats) serve(took time.Duration) {
	if s.Served == 0 {
		s.ServiceTime = took
	}
	s.ServiceTime += (took - s.ServiceTime) / 8
	s.Served++
}

// Stats returns what there was to count up to now.
func (p *Pool[T]) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	s := p.stats
	s.Workers = p.workersLocked()
	s.Busy = p.busy
	s.Queued = p.queue.length
	s.Overloaded = p.queue.overloaded(now)
	// Tickets in use have put their start into ended and not yet their end.
	s.BusyTime = p.ended + time.Duration(p.busy)*now
	return s
}

// retryAfterLocked returns how long it takes until those who wait now have been
// served, at the present rate, but at least 1 s and at most 60 s.
func (p *Pool[T]) retryAfterLocked() time.Duration {
	return min(max(p.timeToServeLocked(p.queue.length), time.Second), time.Minute)
}

// placesLocked returns how many can wait and be served in time, at the present rate.
func (p *Pool[T]) placesLocked() int {
	if p.limits.Queue <= 0 || p.limits.Wait <= 0 {
		return 0
	}
	each := max(p.timeToServeLocked(1), 1)
	return int(min(time.Duration(p.limits.Queue), p.limits.Wait/each))
}

// takesLocked returns how long it takes until a request has been served that comes now and has to wait for all others.
func (p *Pool[T]) takesLocked() time.Duration {
	return p.timeToServeLocked(p.queue.length+1) + p.stats.ServiceTime
}

// timeToServeLocked returns how long it takes to serve n requests at the present
// rate: 0 before the first has been served. If no member is open, all count,
// for they are expected back.
func (p *Pool[T]) timeToServeLocked(n int) time.Duration {
	workers := p.workersLocked()
	if workers == 0 {
		workers = len(p.members) * p.limits.Workers
	}
	return time.Duration(n) * p.stats.ServiceTime / time.Duration(max(workers, 1))
}
