package watt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/control"
	"github.com/org/watt/internal/page"
	"github.com/org/watt/internal/process"
)

// own is a life in a process of its own, as the parent sees it.
type own struct {
	place   *processes
	index   int
	log     *zap.Logger
	slot    *page.Slot
	process *process.Process
	conn    *control.Conn
	begunBy terms // what it was told when it began

	pulse   *pulse
	turned  atomic.Int64    // when setSilent was called, in nanoseconds since 1970
	life    context.Context //nolint:containedctx // of what is done for the child; it ends with its cleanup
	endLife context.CancelFunc

	hello   chan struct{}
	ready   chan error
	fault   chan fault
	gone    chan struct{} // closed when the child has said that it has ended, or its process has
	why     error         // what it has said; read after gone
	drained chan drained
	deaf    chan struct{} // closed when nothing more is heard

	dials dials

	saying   chan struct{} // held by whoever says something
	closed   atomic.Bool   // it is given no more connections, since it would not take them
	unread   atomic.Int64  // since when it has read nothing of what it is told, in Unix nanoseconds; 0: it reads
	adopting sync.Mutex
}

func newOwn(p *processes, index int) *own {
	o := &own{
		place: p, index: index, log: p.app.log.With(zap.Int("instance", index)), slot: p.nursery.slot(p.app.name, index),
		hello: make(chan struct{}, 1), ready: make(chan error, 1), drained: make(chan drained, 1),
		fault: make(chan fault, 1), gone: make(chan struct{}),
		deaf: make(chan struct{}), saying: make(chan struct{}, 1),
	}
	o.dials = dials{child: o, waiting: make(chan struct{}, maxDials)}
	o.pulse = newPulse(o)
	o.life, o.endLife = context.WithCancel(context.Background())
	return o
}

// say sends the child a message. It blocks while the child does not read, until ctx ends, or for 10 s: then nothing was
// sent.
func (o *own) say(ctx context.Context, kind string, what any, files ...syscall.Conn) error {
	m, err := control.New(kind, what)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case o.saying <- struct{}{}:
	case <-ctx.Done():
		o.unheard()
		return context.Cause(ctx)
	}
	defer func() { <-o.saying }()
	if o.closed.Load() && (kind == sayConn || kind == sayPublic) {
		return errDraining
	}
	o.unread.CompareAndSwap(0, time.Now().UnixNano())
	switch err = o.conn.Send(ctx, m, files...); {
	case err == nil:
		o.unread.Store(0)
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
		o.unheard()
	}
	return err
}

// adopt tells the child the terms in force, as soon as it listens.
func (o *own) adopt() {
	o.adopting.Lock()
	defer o.adopting.Unlock()
	for errors.Is(o.say(o.life, sayAdopt, o.place.app.terms()), os.ErrDeadlineExceeded) {
		continue // it is silent, and gets nothing else
	}
}

// unreadMost is how long a child that shows itself may leave unread what it is told.
const unreadMost = 10 * time.Second

// unheard is called when the child did not read in time. Until it shows itself others are preferred, and if it only does
// that it is out of hand.
func (o *own) unheard() {
	o.slot.Doubt()
	if o.silent() {
		return
	}
	if since := o.unread.Load(); since != 0 && time.Since(time.Unix(0, since)) >= unreadMost {
		o.process.Kill(errors.New("the child does not listen"))
	}
}

// silent reports whether the child shows no sign of life.
func (o *own) silent() bool { return o.slot.State.Load() == slotSilent }

// listen hears what the child says, until it ends. A child that says nothing more, or nonsense, is out of hand.
func (o *own) listen() {
	defer close(o.deaf)
	for {
		m, files, err := o.conn.Receive()
		if err == nil {
			control.Drop(files) // a child has none to give
			err = o.heard(m)
		}
		if err != nil {
			o.slot.Doubt()
			o.part(err)
			return
		}
	}
}

// partTime is how long a child may take to end after its last words.
const partTime = time.Second

// part sees to it that a child ends from which nothing more will be heard.
func (o *own) part(err error) {
	if lost(err) {
		if o.endsSoon() {
			return
		}
		err = errors.New("it has closed its control socket")
	}
	o.process.Kill(fmt.Errorf("the child is out of hand: %w", err))
}

// endsSoon waits for the end of the process, for partTime at most, and reports whether it has come.
func (o *own) endsSoon() bool {
	select {
	case <-o.process.Ended():
		return true
	case <-time.After(partTime):
		return false
	}
}

func (o *own) heard(m control.Message) error {
	switch m.Kind {
	case sayHello:
		offer(o.hello, struct{}{})
	case sayReady:
		offer(o.ready, nil)
	case sayFailed:
		return decode(m, func(f startFailure) { offer(o.ready, f.err()) })
	case sayEnded:
		return decode(m, func(f fault) { offer(o.fault, f) })
	case sayDrained:
		return decode(m, func(d drained) { offer(o.drained, d) })
	case sayDial:
		return decode(m, o.dials.begin)
	case sayForget:
		return decode(m, o.dials.forget)
	default:
		return fmt.Errorf("unknown message %q", m.Kind)
	}
	return nil
}

// setSilent keeps new work away from the instance while it is silent. Only its pulse calls it.
func (o *own) setSilent(silent bool) {
	state := int64(slotReady)
	if silent {
		state = slotSilent
	} else {
		o.unread.Store(0) // while unheard still sees it silent
	}
	o.turned.Store(time.Now().UnixNano())
	o.slot.State.Store(state)
	o.place.app.changed()
	switch {
	case o.place.public == nil:
	case silent:
		o.place.public.down(o.index)
	default:
		o.expose()
	}
}

// open implements life: from now on the instance is given connections.
func (o *own) open(*admission.Member[*generation]) {
	if !reflect.DeepEqual(o.place.app.terms(), o.begunBy) { // an Update has not found it ready
		o.place.inform()
	}
	if o.place.public != nil {
		o.expose()
	}
}

// expose lets strangers in, unless the process has ended: then awaitEnd may have kept them away before.
func (o *own) expose() {
	o.place.public.up(o.index)
	if closed(o.process.Ended()) {
		o.place.public.down(o.index)
	}
}

func (o *own) ended() <-chan struct{} { return o.gone }

// awaitEnd waits until it has ended, one way or the other.
func (o *own) awaitEnd() {
	defer close(o.gone)
	select {
	case f := <-o.fault:
		o.why = errors.New(f.Error)
	case <-o.process.Ended():
		if o.place.public != nil {
			o.place.public.down(o.index) // while what it has written may be stuck
		}
	}
}

// over reports whether it has ended.
func (o *own) over() bool { return closed(o.gone) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// dismiss has nothing to do: the child hears of its drain, which follows.
func (o *own) dismiss() {}

// whyEnded implements life. An exit with 0 is none that the parent has asked for.
func (o *own) whyEnded() error {
	if o.why != nil {
		return o.why
	}
	<-o.process.Done()
	return fmt.Errorf("its process has ended: %w", o.process.Exit())
}

// drain lets the child finish, and kills it if it does not.
func (o *own) drain(ctx context.Context, _ func(context.Context) error) error {
	o.pulse.end()
	o.slot.State.Store(0)
	o.closed.Store(true)
	o.place.app.forget(o)
	if o.place.public != nil {
		o.place.public.down(o.index)
	}
	if closed(o.process.Done()) {
		return nil
	}
	var within time.Duration
	if by, limited := ctx.Deadline(); limited {
		within = max(time.Millisecond, time.Until(by))
	}
	grace, cancel := o.grace(ctx)
	defer cancel()
	said := o.say(grace, sayDrain, draining{within})
	if said != nil { // it has ended, which is about to be known, or does not listen
		defer time.AfterFunc(partTime, cancel).Stop()
	}
	if err, over := o.follow(ctx, grace); over {
		return err
	}
	o.process.Kill(errors.New("it did not end in time"))
	<-o.process.Done()
	o.place.app.abandoned.Add(1)
	why := context.Cause(ctx)
	if why == nil {
		why = fmt.Errorf("it could not be told: %w", said)
	}
	return fmt.Errorf("its process did not end and was killed: %w", why)
}

// grace returns a context that ends some time after ctx.
func (o *own) grace(ctx context.Context) (context.Context, context.CancelFunc) {
	grace, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, func() {
		last, _ := o.place.app.rt.patience.grace()
		context.AfterFunc(last, cancel)
	})
	return grace, func() {
		stop()
		cancel()
	}
}

// follow waits until the child has ended, or its grace is over. The child was told how long it has, and not why no longer:
// that ctx knows.
func (o *own) follow(ctx, grace context.Context) (err error, over bool) {
	select {
	case <-o.process.Ended(): // what it has written may be stuck
	case <-grace.Done():
		return nil, false
	}
	d, said := lastWords(o, o.drained)
	if by, limited := ctx.Deadline(); limited && !time.Now().Before(by) {
		<-ctx.Done() // its timer may be late, and the child's was not
	}
	switch {
	case !said:
		<-o.process.Done()
		return o.process.Exit(), true
	case d.Error == "":
		return nil, true
	case ctx.Err() == nil:
		return errors.New(d.Error), true
	}
	return fmt.Errorf("%s: %w", d.Error, context.Cause(ctx)), true
}

// lastWords returns what a child that has ended has said in c, if anything. That is known once all it has said was heard;
// but something that main has started may hold on to the control socket, so it waits no longer than partTime.
func lastWords[T any](o *own, c <-chan T) (words T, said bool) {
	select {
	case words = <-c:
		return words, true
	case <-o.deaf:
	case <-time.After(partTime):
	}
	select {
	case words = <-c:
		return words, true
	default:
		return words, false
	}
}

// abort ends a child that did not start.
func (o *own) abort() error { return o.cleanup() }

// cleanup releases what the child has left.
func (o *own) cleanup() error {
	if o.process != nil {
		o.process.Kill(nil)
		<-o.process.Done()
		<-o.gone // what awaitEnd does concerns no later child
	}
	o.endLife()
	if o.conn != nil {
		_ = o.conn.Close()
		<-o.deaf
	}
	o.place.collect(o)
	o.place.app.forget(o)
	return nil
}

// pidOf is for the log, if it is a process whose end err is.
func pidOf(err error) zap.Field {
	if exit, ended := errors.AsType[*process.ExitError](err); ended && exit.PID > 0 {
		return zap.Int("pid", exit.PID)
	}
	return zap.Skip()
}
