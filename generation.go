package watt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/count"
	"github.com/org/watt/internal/pipe"
)

var (
	errAbandoned = errors.New("does not return, it is abandoned")
	errGivenUp   = errors.New("given up") // a start, because of another's failure
	errCut       = fmt.Errorf("%w: cut by the drain", ErrUnavailable)
)

// generation is a life in this process.
type generation struct {
	app      *app
	env      *Env
	handler  http.Handler   // of an app with requests
	listener *pipe.Listener // of a Serve app
	conns    conns          // those handed to Serve, and those that handlers have hijacked
	requests requests
	tally    *count.Served   // of the instance
	labels   context.Context //nolint:containedctx // of goroutines that work for it, in profiles

	ctx    context.Context //nolint:containedctx // New's: it lives as long as the generation
	cancel context.CancelFunc

	serving  context.Context //nolint:containedctx // Serve's: it ends when the drain begins
	endServe context.CancelFunc
	served   chan struct{} // closed when Serve has returned
	err      error         // what Serve returned; read after served
}

func newGeneration(a *app, index int) *generation {
	g := &generation{app: a, tally: a.tallies.instance(index), served: make(chan struct{})}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.serving, g.endServe = context.WithCancel(g.ctx)
	g.conns.resize(math.MaxInt) // the app's own limit is asked before
	registry := newRegistry(a.name, index)
	g.env = &Env{
		App:      a.name,
		Instance: index,
		Client:   a.client,
		Logger:   a.log.With(zap.Int("instance", index)),
		Metrics: prometheus.WrapRegistererWith(prometheus.Labels{
			"watt_app": a.name, "watt_instance": strconv.Itoa(index),
		}, registry),
		mesh:     a.mesh,
		registry: registry,
	}
	a.waits.follow(&g.requests, true)
	g.labels = pprof.WithLabels(a.rt.labels, pprof.Labels("app", a.name, "instance", strconv.Itoa(index)))
	g.env.labels = g.labels
	return g
}

// start runs the app's code until it is ready to be given work, or fails.
func (g *generation) start(ctx context.Context) error {
	config := g.app.conf()
	if config.Serve != nil {
		return g.startServe(ctx, config)
	}
	if g.handler = config.Handler; g.handler == nil {
		made := g.env.run("New", func() (err error) {
			g.handler, err = g.make(config)
			return err
		})
		if err := g.outlast(ctx, made); err != nil {
			return err
		}
	}
	return g.awaitReady(ctx, config.ReadyPath)
}

func (g *generation) open(m *admission.Member[*generation]) { m.Open(g) }
func (g *generation) ended() <-chan struct{}                { return g.served }
func (g *generation) over() bool                            { return g.ctx.Err() != nil } // its cleanup has begun
func (g *generation) metrics() prometheus.Gatherer          { return g.env.registry }

func (g *generation) dismiss() {
	g.requests.drain()
	g.app.passes.drain()
}

// outlast waits for New. If the time is up, New's context ends, and New has a moment to follow it; if
// it does not, it is abandoned, with whatever it has opened.
func (g *generation) outlast(ctx context.Context, made <-chan error) error {
	select {
	case err := <-made:
		return err
	case <-ctx.Done():
	}
	g.cancel()
	select {
	case err := <-made:
		late := fmt.Errorf("New did not return in time: %w", context.Cause(ctx))
		if err != nil {
			late = fmt.Errorf("%w; then it returned: %w", late, err)
		}
		return late
	case <-time.After(graceAfterCut):
		g.app.abandoned.Add(1)
		go func() {
			if err := errors.Join(<-made, g.cleanup()); err != nil {
				g.env.Logger.Warn("the abandoned New has returned", zap.Error(err))
			}
		}()
		return fmt.Errorf("New %w: %w", errAbandoned, context.Cause(ctx))
	}
}

// make calls New.
func (g *generation) make(config *App) (http.Handler, error) {
	h, err := config.New(g.ctx, g.env)
	if err == nil && h == nil {
		err = errors.New("New returned neither a handler nor an error")
	}
	return h, err
}

// drain ends the generation: what is long-lived is told to go, what is in progress may finish until
// ctx ends, and is cut then. It returns what had to be cut.
func (g *generation) drain(ctx context.Context, idle func(context.Context) error) error {
	g.dismiss()
	g.endServe()
	if g.wait(ctx, idle) == nil {
		return nil
	}
	what := were(g.requests.cut(&g.conns)+g.app.passes.cut(&g.conns)+g.conns.cut(), "request or connection", "requests or connections") + " cut"
	if g.listener != nil {
		_ = g.listener.Close()
		what = "Serve did not return after its context had ended; " + what
	}
	err := fmt.Errorf("%s: %w", what, context.Cause(ctx))
	began := cmp.Or(g.requests.oldest(), g.app.passes.oldest())
	grace, cancel := g.app.rt.patience.grace()
	defer cancel()
	switch {
	case g.wait(grace, idle) == nil:
		return err
	case g.listener != nil:
		g.app.abandoned.Add(1)
		return fmt.Errorf("its Serve %w: %w", errAbandoned, err)
	}
	g.app.abandoned.Add(1)
	g.requests.abandon()
	return fmt.Errorf("a handler (%s) %w: %w", began.what(), errAbandoned, err)
}

// were says how many were what follows.
func were(n int, one, many string) string {
	if n == 1 {
		return "1 " + one + " was"
	}
	return fmt.Sprintf("%d %s were", n, many)
}

// wait returns when no request is in progress and Serve has returned, or ctx has ended.
func (g *generation) wait(ctx context.Context, idle func(context.Context) error) error {
	if g.listener != nil {
		select {
		case <-g.served:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return nil
	}
	if err := idle(ctx); err != nil { // admitted, but perhaps not at the door yet
		return err
	}
	if err := g.requests.wait(ctx); err != nil {
		return err
	}
	return g.app.passes.close(ctx)
}

// abort ends a generation whose start has failed.
func (g *generation) abort() error {
	g.endServe()
	if g.listener != nil {
		_ = g.listener.Close()
		g.conns.cut()
		select {
		case <-g.served:
		case <-time.After(graceAfterCut):
			g.app.abandoned.Add(1)
			return errors.Join(fmt.Errorf("its Serve %w", errAbandoned), g.cleanup())
		}
	}
	return g.cleanup()
}

// cleanup ends the context of New and runs what the app has left to do, last added first.
func (g *generation) cleanup() error {
	g.cancel()
	g.app.waits.follow(&g.requests, false)
	g.conns.cut()
	if g.listener != nil {
		_ = g.listener.Close()
		g.app.forget(g)
	}
	ctx, cancel := g.app.rt.patience.cleanupTime()
	defer cancel()
	return g.env.cleanup(ctx)
}
