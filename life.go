package watt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// start waits for the callees, and starts all instances, then the public side.
func (a *app) start(ctx context.Context) error {
	for _, callee := range a.callees {
		select {
		case <-callee.started:
		case <-ctx.Done():
			return nil // whoever has failed says so
		}
	}
	a.place.open()
	if a.elsewhere() {
		close(a.started)
		return nil
	}
	a.news.Info("starting")
	if err := a.grow(ctx, a.conf().Instances); err != nil {
		return fmt.Errorf("watt: app %q: start: %w", a.name, err)
	}
	close(a.started)
	a.place.publish()
	return nil
}

// doorEnded is called when a door serves no more, with what its Serve has returned. Unless it was closed, that is a fault.
func (a *app) doorEnded(err error) {
	if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return
	}
	a.log.Error("a door has ended", zap.Error(err))
	a.mu.Lock()
	a.fault = err
	a.mu.Unlock()
	switch {
	case a.rt.child != nil: // whose parent sees to it
		a.rt.fail(fmt.Errorf("its door has ended: %w", err))
	case a.conf().Critical:
		a.rt.fail(fmt.Errorf("watt: app %q is critical, and its door has ended: %w", a.name, err))
	}
}

// grow starts instances until there are n, in parallel, and returns when all are ready. It starts none once the app drains.
func (a *app) grow(ctx context.Context, n int) error {
	a.mu.Lock()
	if a.closing && len(a.instances) < n {
		a.mu.Unlock()
		return errStopped
	}
	var added []*instance
	for len(a.instances) < n {
		in := newInstance(a, a.first+len(a.instances))
		a.instances = append(a.instances, in)
		added = append(added, in)
	}
	a.mu.Unlock()
	errs := make([]error, len(added))
	var starting sync.WaitGroup
	for i, in := range added {
		starting.Add(1)
		a.rt.owned.Go(func() {
			in.supervise(ctx, func(err error) {
				errs[i] = err
				starting.Done()
			})
		})
	}
	starting.Wait()
	if len(added) == 1 {
		return errs[0]
	}
	return joinAlike(errs, added)
}

// joinAlike joins the errors of instances, and tells once what several say alike.
func joinAlike(errs []error, instances []*instance) error {
	var first []error                // to say something
	who := make(map[string][]string) // says it
	for i, err := range errs {
		if err == nil {
			continue
		}
		text := err.Error()
		if who[text] == nil {
			first = append(first, err)
		}
		who[text] = append(who[text], strconv.Itoa(instances[i].index))
	}
	for i, err := range first {
		all := who[err.Error()]
		kind := "instance"
		if len(all) > 1 {
			kind = "instances"
		}
		first[i] = fmt.Errorf("%s %s: %w", kind, strings.Join(all, ", "), err)
	}
	return errors.Join(first...)
}

// shrink drains and removes the last instances until there are n.
func (a *app) shrink(n int) error {
	a.mu.Lock()
	var removed []*instance
	if len(a.instances) > n {
		removed = append(removed, a.instances[n:]...)
		a.instances = a.instances[:n:n]
	}
	a.mu.Unlock()
	err := a.end(a.rt.patience.ctx, removed)
	ctx, cancel := a.drainLimit(a.rt.patience.ctx, graceAfterCut) // not the time of those that had to be killed, or whose output is stuck
	defer cancel()
	errs := make([]error, len(removed))
	var removing sync.WaitGroup
	for i, in := range removed { // at once: each may have to wait for the same slow client
		removing.Go(func() { errs[i] = a.place.remove(ctx, in.index) })
	}
	removing.Wait()
	return errors.Join(err, errors.Join(errs...))
}

// end stops instances and returns what their drains had to report.
func (a *app) end(ctx context.Context, instances []*instance) error {
	errs := make([]error, len(instances))
	var ending sync.WaitGroup
	for i, in := range instances {
		ending.Go(func() {
			if err := in.end(ctx); err != nil {
				errs[i] = fmt.Errorf("%s%w", whose(a.name, in.index), err)
			}
			a.pool.Remove(in.member)
		})
	}
	ending.Wait()
	return errors.Join(errs...)
}

// whose begins an error of an instance.
func whose(app string, instance int) string {
	return fmt.Sprintf("watt: app %q, instance %d: ", app, instance)
}

// gaveUp is called when an instance was restarted too often.
func (a *app) gaveUp(index int, err error) {
	if a.conf().Critical {
		a.rt.fail(fmt.Errorf("watt: app %q is critical, and its instance %d has failed: %w", a.name, index, err))
	}
}

// drain ends the app: what is long-lived is told to go, the public side lets its clients go, what is
// in progress finishes, and then everything is closed. What is not over when ctx ends, or
// DrainTimeout has passed, is cut and reported.
func (a *app) drain(ctx context.Context) error {
	defer close(a.drained)
	ctx, cancel := a.drainLimit(ctx, 0)
	defer cancel()
	a.mu.Lock()
	a.closing = true
	instances := a.instances
	a.mu.Unlock()
	if len(instances) > 0 {
		a.news.Info("draining")
	}
	for _, in := range instances {
		if l := in.current(); l != nil {
			l.dismiss()
		}
	}
	cut := a.place.quiet(ctx)
	a.conns.refuse(errDraining)
	a.pool.Refuse(errDraining)
	err := errors.Join(cut, a.end(ctx, instances))
	if ctx.Err() == nil { // else what is left are, most likely, the answers of those who were cut, which is told
		err = errors.Join(err, a.place.awaitAnswers(ctx))
	}
	a.close(ctx)
	a.conns.refuse(errStopped)
	a.pool.Refuse(errStopped)
	if len(instances) > 0 {
		a.news.Info("stopped")
	}
	return err
}

// drainLimit returns a context that ends after DrainTimeout, and some more, or before with ctx.
func (a *app) drainLimit(ctx context.Context, more time.Duration) (context.Context, context.CancelFunc) {
	d := a.conf().DrainTimeout
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, d+more, fmt.Errorf("DrainTimeout of %v has passed", d))
}

// close releases what the instances did not own. If the drain's time is up, what is still open has had
// its grace.
func (a *app) close(drain context.Context) {
	ctx, cancel := a.rt.patience.grace()
	if drain.Err() != nil {
		cancel()
		ctx, cancel = context.WithTimeout(context.Background(), lastGrace)
	}
	defer cancel()
	a.conns.cut()
	a.mesh.closeIdle()
	a.place.close(ctx)
	a.sheds.flush()
	a.faults.flush()
	a.fails.flush()
}
