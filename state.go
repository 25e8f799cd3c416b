package watt

import (
	"fmt"
	"time"
)

// The states of an instance and of an app.
const (
	stateNew        = "new"
	stateStarting   = "starting"
	stateReady      = "ready"
	stateSilent     = "silent" // seen from outside; to its supervisor it is ready
	stateRestarting = "restarting"
	stateDraining   = "draining"
	stateDrained    = "drained" // by Drain
	stateFailed     = "failed"
	stateStopped    = "stopped"
)

// changed is called when an instance's state has changed.
func (a *app) changed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.change)
	a.change = make(chan struct{})
	state := a.stateLocked()
	if state != a.was {
		a.was, a.since = state, time.Now()
	}
	if failed := state == stateFailed; !a.closing && failed != a.refusing {
		a.refusing = failed
		if failed {
			a.pool.Refuse(fmt.Errorf("%w: given up", ErrUnavailable))
		} else {
			a.pool.Refuse(nil)
		}
	}
}

// changing returns a channel that is closed when the state of an instance has changed.
func (a *app) changing() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.change
}

// stateLocked returns the state of the app: that of its best instance.
func (a *app) stateLocked() string {
	if a.elsewhere() && !a.closing {
		return stateReady
	}
	has := make(map[string]bool, len(a.instances))
	for _, in := range a.instances {
		in.mu.Lock()
		state, _ := in.seenLocked()
		has[state] = true
		in.mu.Unlock()
	}
	for _, state := range []string{stateReady, stateSilent, stateStarting, stateRestarting, stateDraining, stateFailed, stateDrained, stateNew} {
		if has[state] {
			if a.closing && state != stateFailed {
				return stateDraining
			}
			return state
		}
	}
	if a.closing || len(has) > 0 {
		return stateStopped
	}
	return stateNew
}

// seenLocked returns the state of the instance as it is seen from outside, and when that began.
func (in *instance) seenLocked() (state string, since time.Time) {
	o, ok := in.life.(*own)
	if !ok || in.state != stateReady {
		return in.state, in.since
	}
	since = in.since
	if turned := time.Unix(0, o.turned.Load()); turned.After(since) {
		since = turned
	}
	if o.slot.State.Load() == slotSilent {
		return stateSilent, since
	}
	return stateReady, since
}

// stateAndError returns the state of the instance, and why it last ended or could not start.
func (in *instance) stateAndError() (string, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	state, _ := in.seenLocked()
	return state, in.lastErr
}

// up reports whether an instance is ready.
func (a *app) up() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stateLocked() == stateReady
}

// ready returns nil if an instance is ready, and otherwise what state the app is in, and why.
func (a *app) ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fault != nil {
		return fmt.Errorf("watt: app %q: its door has ended: %w", a.name, a.fault)
	}
	state, reason := a.stateLocked(), ""
	for _, in := range a.instances {
		s, why := in.stateAndError()
		if s == stateFailed {
			return fmt.Errorf("watt: app %q: instance %d has failed: %w", a.name, in.index, why)
		}
		if why != nil && s != stateSilent && s != stateDrained { // those are not for that reason
			reason = ": " + why.Error()
		}
	}
	if state == stateReady {
		return nil
	}
	return fmt.Errorf("watt: app %q is %s%s", a.name, state, reason)
}
