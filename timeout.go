package watt

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// AnswerBy returns the time by which the first byte of the answer to the request of ctx must be out: the
// earlier of what the app's Timeout leaves and ctx's deadline. It reports false where nothing limits it.
// Timeout is no deadline, since an answer that has begun may go on; whoever gathers the parts of an answer
// has to come before it nevertheless.
func AnswerBy(ctx context.Context) (time.Time, bool) {
	by, limited := ctx.Deadline()
	if q := requestOf(ctx); q != nil && !q.by.IsZero() && (!limited || q.by.Before(by)) {
		return q.by, true
	}
	return by, limited
}

// startTimer sets the time by which the request has to be answered.
func (q *request) startTimer() {
	if d := q.app.conf().Timeout; d > 0 {
		q.by = q.arrived.Add(d)
		q.timer = time.AfterFunc(time.Until(q.by), q.expire)
	}
}

// stopTimer is called before the first byte of the answer goes out. The timer does not strike from then on.
func (q *request) stopTimer() {
	if q.timer == nil {
		return
	}
	q.timer.Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.untimed = true
}

// expire interrupts a request that has not been answered in time.
func (q *request) expire() {
	q.mu.Lock()
	defer q.mu.Unlock() // the server's writer is of no use to anybody once the request is over
	if !q.untimed {
		q.interrupt(context.DeadlineExceeded)
	}
}

// reason returns the cause of the end of the request's context, or nil. Of a client that has gone when its time was up, that
// is the reason.
func (q *request) reason() error {
	cause := q.requestContext.reason()
	if q.call == nil && errors.Is(cause, context.Canceled) && q.timeUp() {
		return context.DeadlineExceeded
	}
	return cause
}

// clocksApart is how much earlier than this process a caller in another one may find that time is up: it has begun to count
// before. Where there is little time, it is half of that at most.
const clocksApart = 100 * time.Millisecond

// timeUp reports whether the caller's deadline has passed, or Timeout, which an answer that is going out no longer has.
func (q *request) timeUp() bool {
	by := q.deadline
	if q.answer.stage < goingOut && !q.by.IsZero() && (by.IsZero() || q.by.Before(by)) {
		by = q.by
	}
	return !by.IsZero() && time.Until(by) < min(clocksApart, by.Sub(q.arrived)/2)
}

// explainTimeout says of a deadline that has passed if it was the app's own.
func (q *request) explainTimeout(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) || q.by.IsZero() || time.Now().Before(q.by) {
		return err
	}
	return fmt.Errorf("Timeout of %v has passed: %w", q.by.Sub(q.arrived), err)
}
