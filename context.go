package watt

import (
	"context"
	"errors"
	"sync"
	"time"
)

// requestContext is the context of a request: with the values of the server's, the caller's deadline, and
// several reasons to end. It does what [context.WithCancelCause] and [context.WithDeadline] would do
// together, but most handlers never ask when their context ends: until somebody does, there is no
// channel, no timer and no tie to the server's context.
type requestContext struct {
	base     context.Context //nolint:containedctx // the server's; this is a context itself
	deadline time.Time       // the caller's; zero if it has none

	lock  sync.Mutex
	done  chan struct{}
	alarm *time.Timer        // at the deadline
	untie func() bool        // ends the tie to the server's context
	funcs map[*func()]func() // to be called at the end: the cancellation of contexts derived from this one
	err   error              // why it has ended, in one of the context package's two words
	cause context.Context    //nolint:containedctx // knows the cause; made when it is asked for
	why   error
}

// Deadline returns the caller's deadline.
func (c *requestContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done returns a channel that is closed when the context ends.
func (c *requestContext) Done() <-chan struct{} {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.done != nil {
		return c.done
	}
	c.done = make(chan struct{})
	if c.err != nil {
		close(c.done)
		return c.done
	}
	c.untie = context.AfterFunc(c.base, func() { c.cancelAs(c.base.Err(), context.Cause(c.base)) })
	if !c.deadline.IsZero() {
		c.alarm = time.AfterFunc(time.Until(c.deadline), func() { c.cancel(context.DeadlineExceeded) })
	}
	return c.done
}

// Err returns why the context has ended, or nil. It looks at the clock and at the server's context itself,
// which nobody may be watching.
func (c *requestContext) Err() error {
	c.lock.Lock()
	err := c.err
	c.lock.Unlock()
	switch {
	case err != nil:
		return err
	case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
		c.cancel(context.DeadlineExceeded)
	case c.base.Err() != nil:
		c.cancelAs(c.base.Err(), context.Cause(c.base))
	default:
		return nil
	}
	return c.Err()
}

// Value returns what the server's context holds. Of a context that has ended, [context.Cause] finds the
// cause here.
func (c *requestContext) Value(key any) any {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.err == nil {
		return c.base.Value(key)
	}
	if c.cause == nil {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(c.base))
		cancel(c.why)
		c.cause = ctx
	}
	return c.cause.Value(key)
}

// AfterFunc is what the context package asks for when another context is derived from this one.
func (c *requestContext) AfterFunc(f func()) (stop func() bool) {
	c.Done() // from now on the end is watched for
	c.lock.Lock()
	if c.err != nil {
		c.lock.Unlock()
		go f() // the context package calls this with a lock held that f wants
		return func() bool { return false }
	}
	defer c.lock.Unlock()
	if c.funcs == nil {
		c.funcs = make(map[*func()]func())
	}
	key := &f
	c.funcs[key] = f
	return func() bool {
		c.lock.Lock()
		defer c.lock.Unlock()
		_, waiting := c.funcs[key]
		delete(c.funcs, key)
		return waiting
	}
}

// cancel ends the context with a cause. Only the first end counts.
func (c *requestContext) cancel(cause error) {
	err := context.Canceled
	if errors.Is(cause, context.DeadlineExceeded) {
		err = context.DeadlineExceeded
	}
	c.cancelAs(err, cause)
}

func (c *requestContext) cancelAs(err, cause error) {
	c.lock.Lock()
	if c.err != nil {
		c.lock.Unlock()
		return
	}
	c.err, c.why = err, cause
	if c.done != nil {
		close(c.done)
		c.untie()
	}
	if c.alarm != nil {
		c.alarm.Stop()
	}
	funcs := c.funcs
	c.funcs = nil
	c.lock.Unlock()
	for _, f := range funcs {
		f()
	}
}

// finish ends the context with the request, unless it has ended before, noticed or not.
func (c *requestContext) finish() {
	if c.Err() == nil {
		c.cancel(context.Canceled)
	}
}
