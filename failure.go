package watt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"syscall"
	"time"

	"github.com/org/watt/internal/roundtrip"
)

// failed returns err as the error of a call from this caller to app. If it is a CallError already, that names them from now on.
func (m *mesh) failed(app string, err error) *CallError {
	if call, ok := errors.AsType[*CallError](err); ok {
		e := *call
		e.Caller, e.App = m.caller, app
		return &e
	}
	return &CallError{Caller: m.caller, App: app, Err: err}
}

// failure explains why the call, which was on its way, has failed with err.
func (c *call) failure(err error) error {
	if c.known(err) {
		return c.mesh.failed(c.app.name, err)
	}
	e := &CallError{Caller: c.mesh.caller, App: c.app.name, Started: c.givenUp(err) || !unseen(err) || c.begun(), Err: err}
	over := c.endError()
	switch {
	case over != nil:
		e.Err = over
	case errors.Is(err, ErrUnavailable): // no instance came in time
	case unseen(err):
		e.Err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	case lost(err):
		e.Err = fmt.Errorf("%w: the connection was cut: %w", ErrInstanceDied, err)
	}
	return e
}

// endError returns the error for the caller of a call whose time is over, or nil.
func (c *call) endError() error {
	cause := c.endCause()
	switch {
	case cause == nil:
		return nil
	case isCall(cause), isDrain(cause): // of another call, or of the caller itself
		return fmt.Errorf("%w: %v", c.ctx.Err(), cause) //nolint:errorlint // its kind is not this one's
	case errors.Is(cause, context.DeadlineExceeded) && c.late():
		return fmt.Errorf("its Timeout of %v has passed: %w", c.by.Sub(c.began), cause)
	case errors.Is(cause, context.DeadlineExceeded), errors.Is(cause, context.Canceled):
		return cause
	}
	return fmt.Errorf("%w: %w", c.ctx.Err(), cause)
}

// endCause returns why the call's time is over, or nil. It looks at the clock too: the callee, which has the same deadline,
// may have noticed before the caller's context.
func (c *call) endCause() error {
	if cause := context.Cause(c.ctx); cause != nil {
		return cause
	}
	by, limited := c.ctx.Deadline()
	if !c.by.IsZero() && !c.answered.Load() {
		by, limited = c.by, true
	}
	if limited && !time.Now().Before(by) {
		return context.DeadlineExceeded
	}
	return nil
}

// late reports whether it was the callee's Timeout that has passed, and not the caller's deadline.
func (c *call) late() bool { return !c.by.IsZero() && !c.answered.Load() && !time.Now().Before(c.by) }

// endAtCallee returns with what Err and Cause the callee's context ends when the caller has closed the connection.
func (c *call) endAtCallee() (err, cause error) {
	cause = c.endCause()
	switch {
	case cause == nil:
		return context.Canceled, context.Canceled
	case c.ctx.Err() != nil && isDrain(cause):
		return c.ctx.Err(), fmt.Errorf("%w: the caller is gone: %v", c.ctx.Err(), cause) //nolint:errorlint // it is not the callee that drains
	case c.ctx.Err() != nil:
		return c.ctx.Err(), cause
	}
	return context.Canceled, cause // the callee's Timeout is no deadline
}

// known reports whether err is a CallError that says what has become of this call. One that has ended its context, or that
// its body has met, is another call's.
func (c *call) known(err error) bool {
	said, known := errors.AsType[*CallError](err)
	others, _ := errors.AsType[*CallError](context.Cause(c.ctx))
	return known && said != others && !bodyFailed(err)
}

// givenUp reports whether err is the cause with which the call's context has ended. It may look like a failed call, or a
// failed connection, and says nothing about this one.
func (c *call) givenUp(err error) bool {
	cause := context.Cause(c.ctx)
	return cause != nil && reflect.ValueOf(err).Comparable() && err == cause //nolint:errorlint // not what wraps it
}

// isDrain reports whether a request has ended because its app drains.
func isDrain(cause error) bool { return errors.Is(cause, errCut) || errors.Is(cause, errDraining) }

func isCall(err error) bool {
	_, is := errors.AsType[*CallError](err)
	return is
}

// bodyFailed reports whether err is what reading or closing the request's body has met. It too may look like a failed
// connection or another call's error.
func bodyFailed(err error) bool {
	_, found := errors.AsType[*roundtrip.BodyError](err)
	return found
}

// unseen reports whether err means that nobody has seen the request: there was no connection, or it had ended before.
func unseen(err error) bool {
	if bodyFailed(err) {
		return false
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial" || errors.Is(err, roundtrip.ErrNotSent)
}

// lost reports whether err means that the connection has ended under the call.
func lost(err error) bool {
	if bodyFailed(err) {
		return false
	}
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET},
		func(target error) bool { return errors.Is(err, target) })
}

// away reports whether err means that no instance is there, or not any more, rather than that it has no room.
func away(err error) bool { return unseen(err) || errors.Is(err, ErrUnavailable) }

// untouched reports whether err means that no handler has begun the request: a door has refused it, or nobody has seen it.
func untouched(err error) bool {
	call, refused := errors.AsType[*CallError](err)
	return refused && !bodyFailed(err) && !call.Started && !errors.Is(err, context.DeadlineExceeded) || unseen(err)
}
