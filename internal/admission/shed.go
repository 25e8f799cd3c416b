package admission

import (
	"fmt"
	"time"
)

// Reason says why a request was shed.
type Reason int

// The reasons.
const (
	NoQueue     Reason = iota // no worker was free, and none may wait
	QueueFull                 // as many as may wait did already
	WaitTooLong               // it waited as long as it may
	PushedOut                 // newer requests took its place in an overloaded queue
	Deadline                  // it would have waited beyond its deadline; for Check, also beyond Limits.Wait
)

// Reasons is how many reasons there are: they count from 0.
const Reasons = int(Deadline) + 1

// String returns the reason as one word, fit for a metric's label.
func (r Reason) String() string {
	switch r {
	case NoQueue:
		return "no_queue"
	case QueueFull:
		return "queue_full"
	case WaitTooLong:
		return "wait_too_long"
	case PushedOut:
		return "pushed_out"
	case Deadline:
		return "deadline"
	}
	return fmt.Sprintf("Reason(%d)", int(r))
}

// ShedError tells a request that it was shed, and what the pool looked like.
type ShedError struct {
	Reason  Reason
	Busy    int // requests in progress, of any member
	Workers int // of the open members
	Queued  int // requests waiting, this one included if it did

	// Wait is how long the request waited, or for Deadline would have waited.
	Wait time.Duration
	// RetryAfter is how long it takes until those who wait have been served, at
	// the present rate, but at least 1 s and at most 60 s.
	RetryAfter time.Duration
}

// Error says what happened and how bad it is.
func (e *ShedError) Error() string {
	switch e.Reason {
	case NoQueue:
		if e.Workers == 0 {
			return "no instance is open, and none may wait for one"
		}
		return fmt.Sprintf("all workers are busy: %d of %d, and none may wait", e.Busy, e.Workers)
	case QueueFull:
		return "queue is full: " + e.crowd()
	case WaitTooLong:
		return fmt.Sprintf("waited %v, which is the limit: %s", round(e.Wait), e.crowd())
	case PushedOut:
		return fmt.Sprintf("pushed out of the queue by newer requests after %v: %s", round(e.Wait), e.crowd())
	case Deadline:
		return fmt.Sprintf("the expected wait of %v is too long: %s", round(e.Wait), e.crowd())
	}
	return e.Reason.String() + ": " + e.crowd()
}

// crowd says who waits for what.
func (e *ShedError) crowd() string {
	crowd := fmt.Sprintf("%d wait", e.Queued)
	if e.Queued == 1 {
		crowd = "1 waits"
	}
	switch e.Workers {
	case 0:
		return crowd + ", and no instance is open"
	case 1:
		return crowd + " for 1 worker"
	}
	return fmt.Sprintf("%s for %d workers", crowd, e.Workers)
}

// round keeps three digits of what people read, more or less.
func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Microsecond)
	}
	return d.Round(10 * time.Millisecond)
}

// shedLocked counts a request as shed and returns its error.
func (p *Pool[T]) shedLocked(reason Reason, wait time.Duration) error {
	p.stats.Shed[reason]++
	return p.shedErrorLocked(reason, wait)
}

func (p *Pool[T]) shedErrorLocked(reason Reason, wait time.Duration) error {
	return &ShedError{
		Reason:     reason,
		Busy:       p.busy,
		Workers:    p.workersLocked(),
		Queued:     p.queue.length,
		Wait:       wait,
		RetryAfter: p.retryAfterLocked(),
	}
}
