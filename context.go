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

	lock  sync.Mutex
	real  *realContext // made when first needed
	err   error        // why it has ended, in one of the context package's two words; it never changes
	cause error
}

// realContext can tell when it ends.
type realContext struct {
	ctx    context.Context //nolint:containedctx // it is one
	end    context.CancelCauseFunc
	untime context.CancelFunc // ends its timer; nil if there is none
	untie  func() bool        // ends its tie to the server's context
}

// Deadline returns the caller's deadline.
func (c *requestContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done returns a channel that is closed when the context ends.
func (c *requestContext) Done() <-chan struct{} {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.realLocked().ctx.Done()
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
		if c.err = c.real.ctx.Err(); c.err != nil {
			c.cause = context.Cause(c.real.ctx)
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
	return c.realLocked().ctx.Value(key)
}

// realLocked returns the real context, and makes it first if need be.
func (c *requestContext) realLocked() *realContext {
	if c.real != nil {
		return c.real
	}
	err := c.errLocked()
	ctx, end := context.WithCancelCause(context.WithoutCancel(c.base))
	c.real = &realContext{ctx: ctx, end: end}
	if !c.deadline.IsZero() {
		c.real.ctx, c.real.untime = context.WithDeadline(ctx, c.deadline)
	}
	if err != nil {
		end(c.cause) // without effect where the deadline has passed
	} else {
		base := c.base // which detach may change
		c.real.untie = context.AfterFunc(base, func() { c.cancelAs(base.Err(), context.Cause(base)) })
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
		c.real.untie()
		c.real.end(cause) // with the lock held: whoever sees Err finds Done closed
	}
}

// finish ends the context with the request.
func (c *requestContext) finish() {
	c.cancel(context.Canceled)
	c.lock.Lock()
	made := c.real
	c.lock.Unlock()
	if made != nil && made.untime != nil {
		made.untime()
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
		c.real.untie()
	}
	c.base = context.WithoutCancel(c.base)
}
