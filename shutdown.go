package watt

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Shutdown stops all apps: every public door tells its clients to go away, requests in progress finish, callers before
// those they call, and everything is closed. What takes longer than an app's DrainTimeout, ShutdownTimeout or ctx is cut,
// and the error says what was. Further calls wait for the first and return the same error, unless their ctx ends before.
// Before the start it only keeps the runtime from starting. A handler that calls it waits for its own request until that
// is cut: it leaves that to another goroutine, or ends the context of Run. In the process of an instance it is an error:
// the first process ends that.
func (rt *Runtime) Shutdown(ctx context.Context) error {
	rt.mu.Lock()
	before, err := rt.phaseForLocked("Shutdown")
	if err == nil {
		rt.phase = phaseStopping
	}
	rt.mu.Unlock()
	if err != nil {
		return err
	}
	if before == phaseStopping {
		select {
		case <-rt.stopped:
			return rt.stopErr
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if before == phaseStarting {
		rt.cancelStart(errStopped)
		<-rt.startDone
	}
	rt.stopErr = rt.stop(ctx)
	close(rt.stopped)
	return rt.stopErr
}

// stop drains every app as soon as its callers have drained, and then ends what belongs to none.
func (rt *Runtime) stop(ctx context.Context) error {
	limit := rt.ShutdownTimeout
	if limit == 0 {
		limit = 30 * time.Second
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("ShutdownTimeout of %v has passed", limit))
		defer cancel()
	}
	rt.endLife(errStopped)
	defer context.AfterFunc(ctx, func() { rt.patience.end(context.Cause(ctx)) })()
	select {
	case rt.updating <- struct{}{}:
		defer func() { <-rt.updating }()
	case <-ctx.Done(): // whatever an Update is doing, its time is up too
	}
	rt.mesh.closeIdle()
	var laming sync.WaitGroup
	for _, a := range rt.apps {
		laming.Go(a.place.lameDuck)
	}
	laming.Wait()
	errs := make([]error, len(rt.apps), len(rt.apps)+1)
	var draining sync.WaitGroup
	for i, a := range rt.apps {
		draining.Go(func() {
			for _, caller := range a.callers {
				<-caller.drained
			}
			errs[i] = a.drain(ctx)
		})
	}
	draining.Wait()
	if rt.admin != nil {
		soon, cancelSoon := context.WithTimeout(ctx, adminTime)
		if rt.Admin.Shutdown(soon) != nil {
			_ = rt.Admin.Close()
		}
		cancelSoon()
		_ = rt.admin.Close() // where Serve has not got to it yet
	}
	if t, ok := rt.outside.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
	last, cancelLast := rt.patience.cleanupTime()
	defer cancelLast()
	errs = append(errs, rt.Env().cleanup(last))
	rt.owned.Wait()
	for _, a := range rt.apps {
		a.pool.Observe(nil) // who was abandoned may come back after the page has gone
	}
	rt.nursery.close()
	return errors.Join(errs...)
}

// adminTime is how long those who look at what goes on may keep a runtime from its end.
const adminTime = time.Second

// Code whose context has ended gets a grace to return before it counts as abandoned; once the whole
// runtime's time is up, all of it together gets one, and what comes after that a last one.
const (
	graceAfterCut = time.Second
	lastGrace     = 50 * time.Millisecond
	cleanupMost   = 10 * time.Second
)

// patience is what a runtime has until Shutdown's time is up.
type patience struct {
	ctx  context.Context //nolint:containedctx // of drains that nobody waits for; it ends with the patience
	lose context.CancelCauseFunc
	lost atomic.Pointer[time.Time] // when that was
}

func newPatience() *patience {
	p := new(patience)
	p.ctx, p.lose = context.WithCancelCause(context.Background())
	return p
}

// end ends it.
func (p *patience) end(why error) {
	now := time.Now()
	p.lost.Store(&now)
	p.lose(why)
}

// grace returns the time that code gets to return after its context has ended. After Shutdown's time is up there is
// one for all, and a last moment for each that comes later.
func (p *patience) grace() (context.Context, context.CancelFunc) {
	left := graceAfterCut
	if lost := p.lost.Load(); lost != nil {
		left = max(lastGrace, left-time.Since(*lost))
	}
	return context.WithTimeout(context.Background(), left)
}

// cleanupTime returns the time that the Cleanup functions of one instance have.
func (p *patience) cleanupTime() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupMost)
	stop := context.AfterFunc(p.ctx, func() { time.AfterFunc(graceAfterCut, cancel) })
	return ctx, func() {
		stop()
		cancel()
	}
}
