package watt

import (
	"context"
	"sync"
	"time"
)

// requestContext is the context of a request: with the values of the server's, the caller's deadline, and
// several reasons to end. Most handlers never ask when their context ends: the context that can tell is made
// when somebody first does, and until then there is no channel, no timer and no tie to the server's context.
type requestContext struct {
	base     context.Context //nolint:containedctx // the server's; this is a context itself
	deadline time.Time       // the caller's; zero if it has none

	lock    sync.Mutex
	real    context.Context //nolint:containedctx // made when first needed
	endReal context.CancelCauseFunc
	untime  context.CancelFunc // ends real's timer
	untie   func() bool        // ends real's tie to base
	err     error              // why it has ended, in one of the context package's two words; it never changes
	cause   error
}

// Deadline returns the caller's deadline.
func (c *requestContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done returns a channel that is closed when the context ends.
func (c *requestContext) Done() <-chan struct{} {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.realLocked().Done()
}

// Err returns why the context has ended, or nil.
func (c *requestContext) Err() error {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.errLocked()
}

// reason returns the cause of the end, or nil.
func (c *requestContext) reason() error {
	c.lock.Lock()
	defer c.lock.Unlock()
	_ = c.errLocked()
	return c.cause
}

// errLocked looks at the clock and at the server's context itself, if nobody watches them.
func (c *requestContext) errLocked() error {
	switch {
	case c.err != nil:
	case c.real != nil:
		if c.err = c.real.Err(); c.err != nil {
			c.cause = context.Cause(c.real)
		}
	case c.passed():
		c.err, c.cause = context.DeadlineExceeded, context.DeadlineExceeded
	default:
		if c.err = c.base.Err(); c.err != nil {
			c.cause = context.Cause(c.base)
		}
	}
	return c.err
}

func (c *requestContext) passed() bool {
	return !c.deadline.IsZero() && !time.Now().Before(c.deadline)
}

// Value returns what the server's context holds. What the context package asks for, to derive contexts from
// this one without a goroutine each and to find the cause of its end, is the real one's.
func (c *requestContext) Value(key any) any {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.real == nil && c.errLocked() == nil {
		return c.base.Value(key)
	}
	return c.realLocked().Value(key)
}

// realLocked returns the context that can tell when it ends.
func (c *requestContext) realLocked() context.Context {
	if c.real != nil {
		return c.real
	}
	err := c.errLocked()
	ctx, end := context.WithCancelCause(context.WithoutCancel(c.base))
	c.real, c.endReal = ctx, end
	if !c.deadline.IsZero() {
		c.real, c.untime = context.WithDeadline(ctx, c.deadline)
	}
	if err != nil {
		end(c.cause) // without effect where the deadline has passed
	} else {
		base := c.base // which detach may change
		c.untie = context.AfterFunc(base, func() { c.cancelAs(base.Err(), context.Cause(base)) })
	}
	return c.real
}

// cancel cancels the context with a cause. Only the first end counts.
func (c *requestContext) cancel(cause error) { c.cancelAs(context.Canceled, cause) }

func (c *requestContext) cancelAs(err, cause error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.errLocked() != nil || c.real != nil && c.passed() { // then its timer is about to end it
		return
	}
	c.err, c.cause = err, cause
	if c.real != nil {
		c.untie()
		c.endReal(cause) // with the lock held: whoever sees Err finds Done closed
	}
}

// finish ends the context with the request.
func (c *requestContext) finish() {
	c.cancel(context.Canceled)
	c.lock.Lock()
	untime := c.untime
	c.lock.Unlock()
	if untime != nil {
		untime()
	}
}

// detach leaves the context to its request: the server's has ended, or is about to, for reasons that do not matter.
func (c *requestContext) detach() {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.errLocked() != nil {
		return
	}
	if c.real != nil {
		c.untie()
	}
	c.base = context.WithoutCancel(c.base)
}
