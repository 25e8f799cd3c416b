package watt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/process"
)

// The pause before a restart is random between 0 and a limit that doubles with every failure in a
// row ("full jitter": Marc Brooker, Exponential Backoff and Jitter, AWS Architecture Blog, 2015).
const (
	firstPause = 100 * time.Millisecond
	mostPause  = 30 * time.Second
	stableTime = time.Minute // of running makes an instance's earlier failures forgotten
)

// The causes of restarts.
const (
	causeEnded  = "ended"  // Serve has returned or panicked, or the process has ended
	causeKilled = "killed" // the process, by a signal: the system's for want of memory, most likely
	causeStart  = "start"  // the start before has failed
	causeAsked  = "asked"  // by Restart
)

var (
	errDraining = fmt.Errorf("%w: draining", ErrUnavailable)
	errStopped  = fmt.Errorf("%w: stopped", ErrUnavailable)
)

// life is one generation of an instance, from its start to its cleanup.
type life interface { //nolint:interfacebloat // one for each step from the start to the cleanup
	// start returns when it can be given work. If it returns an error, abort follows, and nothing else.
	start(ctx context.Context) error
	abort() error
	// open lets the app's queue give it work by m.
	open(m *admission.Member[*generation])
	// ended is closed when it has ended by itself, and whyEnded says why.
	ended() <-chan struct{}
	whyEnded() error
	// dismiss tells what is long-lived to go, now and from now on.
	dismiss()
	// drain ends it: what is in progress, of which idle tells when it is over, may finish until ctx ends, and is cut
	// then. The error says what was cut. Then cleanup follows.
	drain(ctx context.Context, idle func(context.Context) error) error
	cleanup() error
	// metrics returns what its app has registered, or nil.
	metrics() prometheus.Gatherer
}

// instance supervises one numbered instance of an app: it starts generation after generation until
// it is told to stop.
type instance struct {
	app    *app
	index  int
	member *admission.Member[*generation]

	asked    chan wish       // what somebody wants of it
	done     chan struct{}   // closed when the supervision has ended
	stopping context.Context //nolint:containedctx // the supervision's own; it ends when told to stop
	stopNow  context.CancelCauseFunc
	recovery zapcore.Level // of the line that says that it is ready: a warning after one of a failure

	mu      sync.Mutex
	state   string
	since   time.Time
	life    life   // the one that may be given work; nil otherwise
	started uint64 // generations so far
	lastErr error
	back    time.Time       // when it may be there again, if calls had better not wait for that: its last start has failed, or is long to come
	drainBy context.Context //nolint:containedctx // set by stop: bounds the drain
	cut     error           // what the last drain and cleanup had to report
}

func newInstance(a *app, index int) *instance {
	in := &instance{
		app: a, index: index, member: a.pool.Add(), state: stateNew, since: time.Now(),
		asked: make(chan wish), done: make(chan struct{}), drainBy: a.rt.patience.ctx,
	}
	in.stopping, in.stopNow = context.WithCancelCause(context.Background())
	return in
}

func (in *instance) log() *zap.Logger { return in.app.log.With(zap.Int("instance", in.index)) }

// news is the log for the steps of its life.
func (in *instance) news() *zap.Logger { return in.app.news.With(zap.Int("instance", in.index)) }

func (in *instance) set(state string, err error) {
	in.mu.Lock()
	in.setLocked(state, err)
	in.mu.Unlock()
	in.app.changed()
}

func (in *instance) setLocked(state string, err error) {
	in.state, in.since = state, time.Now()
	if err != nil {
		in.lastErr = err
	}
}

// comesBack notes when it may be there again, or with zero that calls may wait for it.
func (in *instance) comesBack(at time.Time) {
	in.mu.Lock()
	in.back = at
	in.mu.Unlock()
	in.app.showBack()
}

// countRestart counts a restart.
func (in *instance) countRestart(cause string) { in.app.tallies.restarted(in.index, cause) }

// current returns the life that may be given work, or nil.
func (in *instance) current() life {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.life
}

// wish is what somebody wants of an instance: a new generation, or with hold that it is left out until there is to be one.
type wish struct {
	hold bool
	done chan error // answered when the new one is ready or has failed, or what was drained; it has room
}

// answer tells whoever has asked, if somebody has, how it went. By then Status tells the same.
func (a wish) answer(err error) {
	if a.done != nil {
		a.done <- err
	}
}

// ending is why a generation, or the pause after one, came to its end. If all are zero, it is time
// for the next generation.
type ending struct {
	err   error  // it ended by itself
	cause string // and how
	stop  bool   // told to stop
	ask   wish   // told to restart, or to be left out
}

// supervise runs until stop. started hears once how the first start went; if it failed, that is the end.
func (in *instance) supervise(ctx context.Context, started func(error)) {
	defer close(in.done)
	l, err := in.start(ctx)
	started(err)
	if err != nil {
		in.set(stateFailed, err)
		return
	}
	var asked wish // for the start that was the last
	for failures := 0; ; {
		end := ending{err: err, cause: causeStart, ask: asked}
		if err == nil {
			readyAt := time.Now()
			if end = in.live(l); time.Since(readyAt) >= stableTime {
				failures = 0
			}
		}
		if end.err != nil {
			failures++
			end = in.pause(failures, end)
		}
		if end.ask.hold {
			end = in.held(end.ask)
		}
		if end.stop {
			if errors.Is(err, errAbandoned) { // by a start that was given up
				in.mu.Lock()
				in.cut = err
				in.mu.Unlock()
			}
			return
		}
		if asked = end.ask; asked.done != nil {
			failures = 0
			in.countRestart(causeAsked)
		}
		if l, err = in.start(in.stopping); err == nil {
			asked.answer(nil)
		}
	}
}

// start brings a new generation up and lets the pool give it work.
func (in *instance) start(ctx context.Context) (life, error) {
	in.set(stateStarting, nil)
	config := in.app.conf()
	if config.StartTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, config.StartTimeout,
			lateError{fmt.Sprintf("StartTimeout of %v has passed: %v", config.StartTimeout, context.DeadlineExceeded)})
		defer cancel()
	}
	began := time.Now()
	l := in.app.place.begin(in.index)
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(err, l.abort())
	}
	in.mu.Lock()
	in.life = l
	in.started++
	number := in.started
	in.mu.Unlock()
	l.open(in.member)
	in.comesBack(time.Time{})
	in.set(stateReady, nil)
	in.news().Log(in.recovery, "ready", zap.Uint64("generation", number), zap.Duration("took", time.Since(began)))
	in.recovery = zap.InfoLevel
	return l, nil
}

// lateError is that of a start which has taken longer than StartTimeout.
type lateError struct{ text string }

func (e lateError) Error() string { return e.text }
func (lateError) Unwrap() error   { return context.DeadlineExceeded }

// live waits until the generation ends or has to, and ends it.
func (in *instance) live(l life) ending {
	var end ending
	byItself := false
	select {
	case <-l.ended():
		byItself = true
	case <-in.stopping.Done():
		end.stop = true
	case end.ask = <-in.asked:
		in.news().Info("draining, as asked for", zap.Bool("restart", !end.ask.hold))
	}
	in.member.Close()
	in.mu.Lock()
	in.life = nil
	in.setLocked(stateDraining, nil) // at once: who sees it ready looks for its process
	in.mu.Unlock()
	in.app.changed()
	if byItself {
		end = in.ended(l)
	}
	ctx, cancel := in.drainLimit()
	defer cancel()
	err := l.drain(ctx, in.member.Idle)
	if cleanup := l.cleanup(); cleanup != nil {
		err = errors.Join(err, fmt.Errorf("cleanup: %w", cleanup))
	}
	in.mu.Lock()
	in.cut = err
	in.mu.Unlock()
	if err != nil {
		in.news().Warn("drained, but not cleanly", zap.Error(err))
	} else {
		in.news().Info("drained")
	}
	return end
}

// ended tells how a generation came to end by itself. That may take a moment more.
func (in *instance) ended(l life) ending {
	end := ending{err: l.whyEnded(), cause: causeEnded}
	if exit, ok := errors.AsType[*process.ExitError](end.err); ok && exit.Killed {
		end.cause = causeKilled
	}
	in.mu.Lock()
	in.lastErr = end.err
	in.mu.Unlock()
	if in.app.rt.child != nil { // whose parent sees to it
		in.app.rt.fail(end.err)
	}
	return end
}

// drainLimit returns the time that a drain has: DrainTimeout, or less if the runtime stops.
func (in *instance) drainLimit() (context.Context, context.CancelFunc) {
	in.mu.Lock()
	by := in.drainBy
	in.mu.Unlock()
	return in.app.drainLimit(by, 0)
}

// end tells the supervision to stop, waits until it has, and returns what its drain had to report.
func (in *instance) end(ctx context.Context) error {
	in.mu.Lock()
	in.drainBy = ctx
	in.mu.Unlock()
	in.stopNow(errDraining)
	<-in.done
	in.set(stateStopped, nil) // also if it did not start
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.cut
}

// ask drains the current generation, and replaces it or leaves the instance out. It returns how the new one's start
// went, or what was cut.
func (in *instance) ask(hold bool) error {
	a := wish{hold, make(chan error, 1)}
	select {
	case in.asked <- a:
		return <-a.done
	case <-in.done:
		return errStopped
	}
}

// held leaves the instance out, which has drained, until somebody asks for the next generation.
func (in *instance) held(a wish) ending {
	in.comesBack(time.Now().Add(mostPause)) // if somebody sees to it
	in.mu.Lock()
	cut := in.cut
	in.cut = nil // it is told now
	in.mu.Unlock()
	in.set(stateDrained, nil)
	for {
		a.answer(cut)
		select {
		case <-in.stopping.Done():
			return ending{stop: true}
		case a = <-in.asked:
			if !a.hold {
				return ending{ask: a}
			}
			cut = nil
		}
	}
}

// pause waits before the restart that follows the given number of failures in a row; if they are too
// many, it waits until somebody asks for it. In a child there is none.
func (in *instance) pause(failures int, end ending) ending {
	err := end.err
	in.recovery = zap.WarnLevel
	var due <-chan time.Time // never
	if in.app.rt.child != nil {
		in.set(stateFailed, err)
	} else if most := in.app.conf().MaxRestarts; most >= 0 && failures > most {
		in.set(stateFailed, err)
		in.log().Error("failed, given up", zap.Int("restarts", most), zap.Error(err), pidOf(err))
		in.comesBack(time.Now().Add(mostPause)) // if somebody sees to it
		in.app.gaveUp(in.index, err)
	} else if in.stopping.Err() == nil {
		delay := 1 + rand.N(min(mostPause, firstPause<<min(failures-1, 16)))
		if end.cause == causeStart || delay > in.app.conf().longestWait() {
			in.comesBack(time.Now().Add(delay))
		}
		in.app.restarts.Add(1)
		in.countRestart(end.cause)
		in.set(stateRestarting, err)
		in.log().Warn("restarting", zap.Error(err), pidOf(err), zap.Duration("delay", delay), zap.Int("failures", failures))
		due = time.After(delay)
	}
	end.ask.answer(err)
	select {
	case <-due:
		return ending{}
	case <-in.stopping.Done():
		return ending{stop: true}
	case a := <-in.asked:
		return ending{ask: a}
	}
}
