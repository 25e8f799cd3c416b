package watt

import (
	"context"
	"fmt"
	"time"
)

// waitsUntil returns until when a request that comes now may wait.
func (a *app) waitsUntil() time.Time { return time.Now().Add(a.conf().longestWait()) }

// errAway means that no instance has come for as long as a call may wait, or that none will.
var errAway = fmt.Errorf("%w: no instance is there", ErrUnavailable)

// await returns when an instance is ready. It waits until by. Its own errors wrap errAway.
func (a *app) await(ctx context.Context, by time.Time) error {
	for {
		a.mu.Lock()
		state, change, closing := a.stateLocked(), a.change, a.closing
		a.mu.Unlock()
		switch {
		case state == stateReady, state == stateSilent: // better than none
			return nil
		case state == stateFailed:
			return fmt.Errorf("%w: %w", errAway, a.ready())
		case closing: // and does not come back, as one does whose only instance is replaced
			return fmt.Errorf("%w: the app is %s", errAway, state)
		}
		select {
		case <-change:
		case <-time.After(time.Until(by)):
			return fmt.Errorf("%w: the app is %s", errAway, state)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// away returns an error if no instance is there, nor expected soon.
func (a *app) away() error {
	if back := a.back(); !back.IsZero() {
		return awayUntil(back)
	}
	return nil
}

func awayUntil(back time.Time) error {
	return &CallError{RetryAfter: scattered(min(time.Until(back), mostPause)), Err: fmt.Errorf("%w: it could not start, and tries again later", ErrUnavailable)}
}

// back returns when the first instance may be back, if none is there, and a call had better not wait for one; or zero.
func (a *app) back() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.backLocked()
}

func (a *app) backLocked() time.Time {
	var first time.Time
	for _, in := range a.instances {
		in.mu.Lock()
		back := in.back
		in.mu.Unlock()
		if back.IsZero() {
			return back
		}
		if first.IsZero() || back.Before(first) {
			first = back
		}
	}
	return first
}

// showBack shows it to children: one after another, so that the last word is what is so.
func (a *app) showBack() {
	if a.rt.nursery == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	unix := int64(0)
	if back := a.backLocked(); !back.IsZero() {
		unix = back.UnixNano()
	}
	a.rt.nursery.slot(a.name, 0).Back.Store(unix)
}
