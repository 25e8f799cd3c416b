package watt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/org/watt/internal/admission"
)

func poolLimits(config *App) admission.Limits {
	return admission.Limits{Workers: config.Workers, Queue: max(0, config.Queue), Wait: config.longestWait()}
}

// admit takes a worker for what has arrived at that time, waiting for it as long as the limits allow, or until m, which
// may be nil, is moved: see [admission.Pool.AcquireOr], whose errors it returns.
func (a *app) admit(ctx context.Context, arrived time.Time, m *move) (ticket, error) {
	t, err := a.pool.AcquireOr(ctx, arrived, m.waits)
	if shedError(err) != nil {
		a.sheds.note(err)
	}
	return admitted(t, arrived, err)
}

// admitNow is admit for what goes back to where it has come from, rather than to wait: its error is [errBusy] then.
func (a *app) admitNow(arrived time.Time) (ticket, error) {
	t, err := a.pool.AcquireNow()
	if errors.Is(err, admission.ErrMoved) {
		err = errBusy
	}
	return admitted(t, arrived, err)
}

// admitted notes how long what has got a ticket has waited for it, unless err says that there is none.
func admitted(t ticket, arrived time.Time, err error) (ticket, error) {
	if err == nil {
		t.Value().tally.Wait.Add(t.After(arrived))
	}
	return t, err
}

// shedError returns err, of a pool, if that has shed, or nil. A context may have ended because another pool has.
func shedError(err error) *admission.ShedError {
	shed, _ := err.(*admission.ShedError) //nolint:errorlint // a pool returns its own bare
	return shed
}

// shedConn notes that there was no seat for a connection or a stream, if that is why err refuses it: a drain is no overload.
func (a *app) shedConn(err error) {
	if errors.Is(err, ErrOverloaded) {
		a.connsShed.Add(1)
		a.sheds.note(err)
	}
}

// explain makes a CallError, without a caller, of an error of the pool.
func (a *app) explain(err error) error {
	shed := shedError(err)
	if shed == nil {
		return &CallError{App: a.name, Err: err}
	}
	kind := ErrOverloaded
	if !a.up() {
		kind = ErrUnavailable
	}
	return &CallError{App: a.name, RetryAfter: scattered(shed.RetryAfter), Err: fmt.Errorf("%w: %w", kind, shed)}
}

// scattered returns when to try again, at least in a second, and up to half as much later: or all would come back together.
func scattered(after time.Duration) time.Duration {
	after = max(after, time.Second)
	return after + rand.N(after/2+1)
}
