package watt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/direct"
)

// app is an App that runs: its door or whatever stands for it, its admission, and its instances.
type app struct {
	rt     *Runtime
	name   string
	log    *zap.Logger
	news   *zap.Logger         // log, for the steps of its life; a child's are its parent's to tell
	direct direct.Common       // what calls without a wire share; its ErrorLog writes to log
	config atomic.Pointer[App] // with defaults; Update replaces it

	mesh    *mesh // the way out
	client  *http.Client
	callers []*app
	callees []*app

	place place

	pool   *admission.Pool[*generation]
	passes requests // those that siblings serve, in a process of its own
	conns  conns
	sheds  summary // at the door
	faults summary // by handlers, with 503
	fails  summary // those that are answered with another error

	restarts, abandoned atomic.Uint64
	connsShed           atomic.Uint64
	streams             atomic.Int64 // long-lived requests, which conns has too
	tallies             tallies
	waits               waits

	started chan struct{} // closed when the first start has succeeded
	drained chan struct{} // closed when the drain is over

	mu        sync.Mutex
	instances []*instance
	first     int // the number of the first instance: 0, but in a child
	since     time.Time
	was       string        // the state that since belongs to
	change    chan struct{} // closed and replaced when an instance's state changes
	closing   bool          // the app drains or has
	refusing  bool          // every instance has failed
	fault     error         // why a door has ended by itself
}

func newApp(rt *Runtime, config App) *app {
	a := &app{
		rt: rt, name: config.Name, log: rt.log().With(zap.String("app", config.Name)),
		started: make(chan struct{}), drained: make(chan struct{}),
		since: time.Now(), was: stateNew, change: make(chan struct{}),
	}
	a.config.Store(&config)
	a.pool = admission.New[*generation](poolLimits(&config))
	a.conns.resize(config.MaxConns)
	a.mesh = newMesh(rt, a.name)
	a.mesh.transport = a.mesh.wrapped()
	a.client = &http.Client{Transport: a.mesh.transport, CheckRedirect: checkRedirect}
	a.sheds.log, a.faults.log, a.fails.log, a.news = a.log, a.log, a.log, a.log
	a.direct = direct.Common{Buffers: &rt.buffers, Timers: &rt.timers, ErrorLog: zap.NewStdLog(a.log)}
	a.sheds.what, a.faults.what, a.fails.what = "shed requests", "answered requests with 503", "more requests failed"
	a.fails.alone = mostFailures
	if rt.child != nil {
		a.news = zap.NewNop()
	}
	a.place = newPlace(a, &config)
	return a
}

func poolLimits(config *App) admission.Limits {
	return admission.Limits{Workers: config.Workers, Queue: max(0, config.Queue), Wait: config.longestWait()}
}

// waitsUntil returns until when a request that comes now may wait.
func (a *app) waitsUntil() time.Time { return time.Now().Add(a.conf().longestWait()) }

// conf returns the configuration in force.
func (a *app) conf() *App { return a.config.Load() }

// elsewhere reports whether nothing of the app runs here.
func (a *app) elsewhere() bool {
	_, across := a.place.(*across)
	return across || a.conf().URL != ""
}

// admit takes a worker for what has arrived at that time, waiting for it as long as the limits allow, or until m, which
// may be nil, is moved: see [admission.Pool.AcquireOr], whose errors it returns.
func (a *app) admit(ctx context.Context, arrived time.Time, m *move) (ticket, error) {
	t, err := a.pool.AcquireOr(ctx, m.waits)
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

// shedConn notes that there was no seat for a connection or a stream, if that is why err refuses it: a drain is no overload.
func (a *app) shedConn(err error) {
	if errors.Is(err, ErrOverloaded) {
		a.connsShed.Add(1)
		a.sheds.note(err)
	}
}

// shedError returns err, of a pool, if that has shed, or nil. A context may have ended because another pool has.
func shedError(err error) *admission.ShedError {
	shed, _ := err.(*admission.ShedError) //nolint:errorlint // a pool returns its own bare
	return shed
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

// away returns an error if no instance is there, nor expected soon.
func (a *app) away() error {
	if back := a.back(); !back.IsZero() {
		return awayUntil(back)
	}
	return nil
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

// errAway means that no instance has come for as long as a call may wait, or that none will.
var errAway = fmt.Errorf("%w: no instance is there", ErrUnavailable)

// await returns when an instance is ready. It waits until by. Its own errors wrap errAway.
func (a *app) await(ctx context.Context, by time.Time) error {
	var due <-chan time.Time
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
		if due == nil {
			timer := time.NewTimer(time.Until(by))
			defer timer.Stop()
			due = timer.C
		}
		select {
		case <-change:
		case <-due:
			return fmt.Errorf("%w: the app is %s", errAway, state)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// instance returns one of the instances, or nil.
func (a *app) instance(index int) *instance {
	a.mu.Lock()
	defer a.mu.Unlock()
	if index < 0 || index >= len(a.instances) {
		return nil
	}
	return a.instances[index]
}

// changing returns a channel that is closed when the state of an instance has changed.
func (a *app) changing() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.change
}
