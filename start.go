package watt

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"go.uber.org/zap"
)

// Start starts all apps, those that are called before those that call them, and returns when all are
// ready. If one cannot start, or ctx ends before, everything is stopped again and the error says why.
// All mistakes in the configuration come back together, before anything is started. Once Start has
// returned, the end of ctx means nothing.
func (rt *Runtime) Start(ctx context.Context) error {
	if b, child := born(); child {
		return rt.runChild(ctx, b)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := rt.begin(ctx, cancel); err != nil {
		return err
	}
	err := rt.bind(ctx)
	if err == nil {
		err = rt.startApps(ctx)
	}
	rt.mu.Lock()
	if err == nil && rt.phase == phaseStopping {
		err = errStopped
	}
	if err == nil {
		rt.phase = phaseRunning
	}
	rt.mu.Unlock()
	close(rt.startDone)
	if err != nil {
		return errors.Join(err, rt.Shutdown(context.WithoutCancel(ctx)))
	}
	rt.log().Info("all apps are ready", zap.Int("apps", len(rt.apps)))
	return nil
}

// begin checks the configuration and builds the apps.
func (rt *Runtime) begin(ctx context.Context, cancel context.CancelCauseFunc) error {
	configs, err := rt.claim(cancel)
	if err != nil {
		return err
	}
	rt.warnOfHunger(configs)
	rt.labels = context.WithoutCancel(ctx)
	byName := rt.build(configs)
	if rt.nursery != nil {
		for _, a := range rt.apps {
			if a.conf().Isolation != OwnProcess {
				a.pool.Observe(showing(rt.nursery.slot(a.name, 0)))
			}
		}
		rt.owned.Go(rt.watchCrowd)
	}
	rt.running.Store(&byName)
	return nil
}

// build makes the apps, links those that call with those that they call, and makes main's way to all of them. They are of
// use to nobody before they are stored as running.
func (rt *Runtime) build(configs []App) map[string]*app {
	apps, byName := make([]*app, len(configs)), make(map[string]*app, len(configs))
	for i := range configs {
		apps[i] = newApp(rt, configs[i])
		byName[apps[i].name] = apps[i]
		rt.mesh.leadTo(apps[i])
	}
	for _, a := range apps {
		for _, name := range a.conf().Calls {
			callee := byName[name]
			a.mesh.leadTo(callee)
			a.callees, callee.callers = append(a.callees, callee), append(callee.callers, a)
		}
	}
	rt.mesh.transport = rt.mesh.wrapped()
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.apps = apps
	return byName
}

// claim makes this the start, if the configuration is right and what own processes need is there, and returns the
// configuration with its defaults. The rest of the start runs code of the caller's, and so without the lock.
func (rt *Runtime) claim(cancel context.CancelCauseFunc) ([]App, error) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if err := rt.mayStartLocked(); err != nil {
		return nil, err
	}
	if err := validate(rt.configs, rt.Admin); err != nil {
		return nil, err
	}
	configs := allWithDefaults(rt.configs)
	var err error
	if rt.nursery, err = newNursery(configs); err != nil {
		return nil, err
	}
	rt.phase, rt.cancelStart = phaseStarting, cancel
	return configs, nil
}

// mayStartLocked returns an error if the runtime is not new.
func (rt *Runtime) mayStartLocked() error {
	switch rt.phase {
	case phaseRunning:
		return errRunning
	case phaseStarting:
		return errStarting
	case phaseStopping:
		return errEnded
	case phaseNew:
	}
	return nil
}

// bind opens the listeners, all of them before any app starts: a port in use is known at once.
func (rt *Runtime) bind(ctx context.Context) error {
	if rt.Admin != nil {
		if err := rt.bindAdmin(ctx); err != nil {
			return fmt.Errorf("watt: Admin: %w", err)
		}
	}
	for _, a := range rt.apps {
		if err := a.bind(ctx); err != nil {
			return fmt.Errorf("watt: app %q: Listen: %w", a.name, err)
		}
	}
	return nil
}

// bindAdmin opens the listener of Admin, which is served from then on.
func (rt *Runtime) bindAdmin(ctx context.Context) error {
	ln, err := listenSoon(ctx, rt.Admin.Addr, rt.Listen)
	if err != nil {
		return err
	}
	rt.mu.Lock()
	rt.admin = ln
	rt.mu.Unlock()
	rt.log().Info("admin is listening", zap.Stringer("address", ln.Addr()))
	rt.owned.Go(func() {
		if err := rt.Admin.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			rt.log().Error("admin has ended", zap.Error(err))
		}
	})
	return nil
}

// bind opens the app's public side, if it has one here. Nobody is let in yet.
func (a *app) bind(ctx context.Context) error {
	config := a.conf()
	if config.Listen == "" || config.URL != "" {
		return nil
	}
	if p, ok := a.place.(*processes); ok {
		return p.expose(ctx, config)
	}
	ln, err := listenSoon(ctx, config.Listen, a.rt.Listen)
	if err != nil {
		return err
	}
	a.rt.mu.Lock() // Admin may ask for Status already
	a.place.listen(ln)
	a.rt.mu.Unlock()
	a.log.Info("listening", zap.Stringer("address", ln.Addr()))
	return nil
}

// startApps starts all apps, each as soon as its callees have. The first failure ends the others, which is no
// failure of theirs.
func (rt *Runtime) startApps(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make(chan error, len(rt.apps))
	for _, a := range rt.apps {
		rt.owned.Go(func() {
			err := a.start(ctx)
			if err != nil {
				cancel(fmt.Errorf("%w: app %q has failed", errGivenUp, a.name))
			}
			results <- err
		})
	}
	var errs []error
	for range rt.apps {
		if err := <-results; err != nil && (!errors.Is(err, errGivenUp) || errors.Is(err, errAbandoned)) {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 && ctx.Err() != nil {
		errs = append(errs, context.Cause(ctx))
	}
	return errors.Join(errs...)
}
