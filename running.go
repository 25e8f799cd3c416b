package watt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/watt/internal/admission"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// app is an App that runs: its door or whatever stands for it, its admission, and its instances.
type app struct {
	rt     *Runtime
	name   string
	log    *zap.Logger
	config atomic.Pointer[App] // with defaults; Update replaces it

	mesh    *mesh // the way out
	client  *http.Client
	callers []*app
	callees []*app

	// One of three ways in, besides the instances' own listeners of a Serve app.
	door   *door
	serve  *serveListener // the public side of a Serve app; nil if it does not listen
	remote *remote
	// reachable tells whether anybody can connect: a caller, main, or the public.
	reachable bool

	pool  *admission.Pool[*generation]
	conns conns
	sheds shedLog

	panics, restarts, abandoned atomic.Uint64

	started chan struct{} // closed when the first start has succeeded
	drained chan struct{} // closed when the drain is over

	mu        sync.Mutex
	instances []*instance
	since     time.Time
	was       string        // the state that since belongs to
	change    chan struct{} // closed and replaced when an instance's state changes
	closing   bool          // the app drains or has
	refusing  bool          // every instance has failed
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
	calls := make(map[string]bool, len(config.Calls))
	for _, name := range config.Calls {
		calls[name] = true
	}
	a.mesh = newMesh(rt, a.name, calls)
	a.client = a.mesh.client()
	a.sheds.log = a.log
	switch {
	case config.URL != "":
		a.remote = newRemote(a, &config)
	case config.Serve == nil:
		a.door = newDoor(a, &rt.buffers)
	}
	return a
}

func poolLimits(config *App) admission.Limits {
	return admission.Limits{Workers: config.Workers, Queue: max(0, config.Queue), Wait: max(0, config.QueueTimeout)}
}

// limits returns the configuration in force.
func (a *app) limits() *App { return a.config.Load() }

// listen opens the app's public side on ln; it serves once the app is ready.
func (a *app) listen(ln net.Listener) {
	if a.door != nil {
		a.door.public = newPublicServer(a.door, a.config.Load(), ln)
		return
	}
	a.serve = newServeListener(a, ln)
}

// addr returns the address that the app listens at, or "".
func (a *app) addr() string {
	switch {
	case a.door != nil && a.door.public != nil:
		return a.door.public.listener.Addr().String()
	case a.serve != nil:
		return a.serve.listener.Addr().String()
	}
	return ""
}

// start waits for the callees, and starts all instances, then the public side.
func (a *app) start(ctx context.Context) error {
	for _, callee := range a.callees {
		select {
		case <-callee.started:
		case <-ctx.Done():
			return nil // whoever has failed says so
		}
	}
	if a.remote != nil {
		a.pool.Add().Open(&generation{app: a})
		close(a.started)
		return nil
	}
	a.log.Info("starting")
	if a.door != nil {
		a.rt.owned.Go(func() { a.report(a.door.mesh.Serve(a.door.listener)) })
	}
	if err := a.grow(ctx, a.config.Load().Instances); err != nil {
		return fmt.Errorf("watt: app %q: start: %w", a.name, err)
	}
	close(a.started)
	switch {
	case a.door != nil && a.door.public != nil:
		a.rt.owned.Go(func() { a.report(a.door.public.serve()) })
	case a.serve != nil:
		a.rt.owned.Go(a.serve.run)
	}
	return nil
}

func (a *app) report(err error) {
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		a.log.Error("a door has ended", zap.Error(err))
	}
}

// grow starts instances until there are n, in parallel, and returns when all are ready.
func (a *app) grow(ctx context.Context, n int) error {
	a.mu.Lock()
	var added []*instance
	for len(a.instances) < n {
		in := newInstance(a, len(a.instances))
		a.instances = append(a.instances, in)
		added = append(added, in)
	}
	a.mu.Unlock()
	results := make(chan error, len(added))
	for _, in := range added {
		a.rt.owned.Go(func() { in.supervise(ctx, func(err error) { results <- err }) })
	}
	var errs []error
	for range added {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
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
	return a.end(context.Background(), removed)
}

// end stops instances and returns what their drains had to report.
func (a *app) end(ctx context.Context, instances []*instance) error {
	errs := make([]error, len(instances))
	var ending sync.WaitGroup
	for i, in := range instances {
		ending.Go(func() {
			if err := in.end(ctx); err != nil {
				errs[i] = fmt.Errorf("watt: app %q, instance %d: %w", a.name, in.index, err)
			}
			a.pool.Remove(in.member)
		})
	}
	ending.Wait()
	return errors.Join(errs...)
}

// admit takes a worker, waiting for it as long as the limits allow. Its errors are CallErrors without
// a caller, or the cause of ctx's end.
func (a *app) admit(ctx context.Context) (ticket, error) {
	t, err := a.pool.Acquire(ctx)
	if err == nil {
		return t, nil
	}
	return ticket{}, a.refusal(err)
}

// refusal explains an error of the pool.
func (a *app) refusal(err error) error {
	var shed *admission.ShedError
	if !errors.As(err, &shed) {
		return &CallError{App: a.name, Err: err}
	}
	a.sheds.note()
	kind := ErrOverloaded
	if !a.up() {
		kind = ErrUnavailable
	}
	after := shed.RetryAfter + rand.N(shed.RetryAfter/2+1) // or all would come back together
	return &CallError{App: a.name, RetryAfter: after, Err: fmt.Errorf("%w: %w", kind, shed)}
}

func (a *app) check() error {
	if err := a.pool.Check(); err != nil {
		return a.refusal(err)
	}
	return nil
}

// await returns when an instance is ready. It waits as long as a request may.
func (a *app) await(ctx context.Context) error {
	var due <-chan time.Time
	for {
		a.mu.Lock()
		state, change := a.stateLocked(), a.change
		a.mu.Unlock()
		switch state {
		case stateReady:
			return nil
		case stateFailed, stateDraining, stateStopped:
			return fmt.Errorf("%w: the app is %s", ErrUnavailable, state)
		}
		if due == nil {
			timer := time.NewTimer(max(0, a.limits().QueueTimeout))
			defer timer.Stop()
			due = timer.C
		}
		select {
		case <-change:
		case <-due:
			return fmt.Errorf("%w: the app is %s", ErrUnavailable, state)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// connect opens a connection to the app for caller.
func (a *app) connect(ctx context.Context, caller string) (net.Conn, error) {
	if a.remote != nil {
		return a.remote.connect(ctx)
	}
	var conn net.Conn
	var err error
	if a.door != nil {
		conn, err = a.door.listener.Dial(ctx, address(caller), caller)
	} else if g := a.emptiest(); g != nil {
		return g.connect(ctx, caller)
	} else {
		return nil, fmt.Errorf("%w: no instance is ready", ErrUnavailable)
	}
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return conn, err
}

// emptiest returns the generation with the fewest connections, or nil if none is ready.
func (a *app) emptiest() *generation {
	a.mu.Lock()
	instances := a.instances
	a.mu.Unlock()
	var best *generation
	for _, in := range instances {
		if g := in.current(); g != nil && (best == nil || g.conns.count() < best.conns.count()) {
			best = g
		}
	}
	return best
}

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

// stateLocked returns the state of the app: that of its best instance.
func (a *app) stateLocked() string {
	if a.remote != nil && !a.closing {
		return stateReady
	}
	has := make(map[string]bool, len(a.instances))
	for _, in := range a.instances {
		in.mu.Lock()
		has[in.state] = true
		in.mu.Unlock()
	}
	for _, state := range []string{stateReady, stateStarting, stateRestarting, stateDraining, stateFailed, stateNew} {
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

// up reports whether an instance is ready.
func (a *app) up() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stateLocked() == stateReady
}

// gaveUp is called when an instance was restarted too often.
func (a *app) gaveUp(index int, err error) {
	if a.limits().Critical {
		a.rt.fail(fmt.Errorf("watt: app %q is critical, and its instance %d has failed: %w", a.name, index, err))
	}
}

// ready returns nil if an instance is ready, and otherwise what state the app is in, and why.
func (a *app) ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	state := a.stateLocked()
	if state == stateReady {
		return nil
	}
	err := fmt.Errorf("watt: app %q is %s", a.name, state)
	for _, in := range a.instances {
		if s := in.status(); s.LastError != "" {
			return fmt.Errorf("%w: %s", err, s.LastError)
		}
	}
	return err
}

// registries returns those of the generations that live.
func (a *app) registries() []prometheus.Gatherer {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []prometheus.Gatherer
	for _, in := range a.instances {
		if g := in.current(); g != nil {
			all = append(all, g.env.registry)
		}
	}
	return all
}

// lameDuck makes every answer of the public side tell its client to go away.
func (a *app) lameDuck() {
	if a.door != nil && a.door.public != nil {
		a.door.public.lame.Store(true)
	}
}

// drain ends the app: what is long-lived is told to go, the public side lets its clients go, what is
// in progress finishes, and then everything is closed. What is not over when ctx ends, or
// DrainTimeout has passed, is cut and reported.
func (a *app) drain(ctx context.Context) error {
	defer close(a.drained)
	if d := a.limits().DrainTimeout; d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, fmt.Errorf("DrainTimeout of %v has passed", d))
		defer cancel()
	}
	a.mu.Lock()
	a.closing = true
	instances := a.instances
	a.mu.Unlock()
	if len(instances) > 0 {
		a.log.Info("draining")
	}
	for _, in := range instances {
		if g := in.current(); g != nil {
			g.requests.drain()
		}
	}
	if a.door != nil && a.door.public != nil {
		a.door.public.quiet(ctx)
	}
	if a.serve != nil {
		a.serve.close()
	}
	a.conns.refuse(errDraining)
	a.pool.Refuse(errDraining)
	err := a.end(ctx, instances)
	a.close()
	if len(instances) > 0 {
		a.log.Info("stopped")
	}
	return err
}

// close releases what the instances did not own.
func (a *app) close() {
	ctx, cancel := context.WithTimeout(context.Background(), graceAfterCut)
	defer cancel()
	a.conns.cut()
	a.mesh.closeIdle()
	if a.door != nil {
		a.door.close(ctx)
	}
	if a.remote != nil {
		a.remote.close()
	}
	a.sheds.flush()
}

// shedLog sums up what was shed, so that an overload is a line now and then instead of a flood.
type shedLog struct {
	log   *zap.Logger
	mu    sync.Mutex
	n     uint64
	since time.Time
	timer *time.Timer
}

// shedLogEvery is how long shed requests are counted before a line says so.
const shedLogEvery = 5 * time.Second

func (s *shedLog) note() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n++; s.n == 1 {
		s.since = time.Now()
		s.timer = time.AfterFunc(shedLogEvery, s.flush)
	}
}

func (s *shedLog) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		return
	}
	s.timer.Stop()
	s.log.Warn("shed requests", zap.Uint64("requests", s.n), zap.Duration("within", time.Since(s.since)))
	s.n = 0
}
