package watt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/org/watt/internal/control"
	"github.com/org/watt/internal/page"
	"github.com/org/watt/internal/process"
)

// controlFD is the one descriptor that a child inherits.
const controlFD = 3

// child is a runtime in a process of its own, for one instance of one app. The other apps it reaches by way of its
// parent.
type child struct {
	rt    *Runtime
	birth birth
	conn  *control.Conn
	app   *app // its own
	page  *page.Page
	slots map[string][]page.Slot // of the instances of each app
	slot  *page.Slot             // its own
	inlet *inlet                 // of the public side; nil if there is none

	handover *handover
	errands  *errands

	drain chan draining

	mu    sync.Mutex
	asked map[uint64]chan gift // connections that the parent was asked for
	last  uint64
}

// runChild is Run in a child: it runs the instance until the parent says otherwise or is gone, whether or not ctx ends. It does
// not return, unless this is another runtime than the parent's.
func (rt *Runtime) runChild(ctx context.Context, b birth) error {
	if process.Program() != b.Program {
		return fmt.Errorf("watt: this process for app %q runs another program than its parent: the file was replaced; start it anew", b.App)
	}
	c := &child{rt: rt, birth: b, drain: make(chan draining, 1), asked: make(map[uint64]chan gift)}
	if err := c.join(); err != nil {
		return err
	}
	rt.labels = context.WithoutCancel(ctx)
	if err := c.run(); err != nil {
		fmt.Fprintf(os.Stderr, "watt: the process of app %q, instance %d: %v\n", b.App, b.Instance, err)
		os.Exit(1) //nolint:forbidigo // the process is watt's own
	}
	os.Exit(0) //nolint:forbidigo // likewise
	return nil
}

// join makes the runtime this child, unless it is another one, or is or was something else.
func (c *child) join() error {
	c.rt.mu.Lock()
	defer c.rt.mu.Unlock()
	if tableOf(c.rt.configs) != c.birth.Table {
		return fmt.Errorf("watt: this process is for app %q of a runtime with other apps: "+
			"main has to describe the same ones in each process, all but their limits. "+
			"Of several runtimes, it starts the one with processes of their own first. "+
			"In a test, a function given to watttest.Main has to return what that has started, with what its Update has changed", c.birth.App)
	}
	if err := c.rt.mayStartLocked(); err != nil {
		return err
	}
	c.rt.child, c.rt.phase = c, phaseStarting
	return nil
}

// enter notes how far the runtime's life has come.
func (c *child) enter(p phase) {
	c.rt.mu.Lock()
	defer c.rt.mu.Unlock()
	c.rt.phase = p
}

func (c *child) run() error {
	conn, err := control.Open(os.NewFile(controlFD, "control"))
	if err != nil {
		return fmt.Errorf("no way to its parent: %w", err)
	}
	c.conn = conn
	if err := c.say(sayHello, nil); err != nil {
		return err
	}
	m, files, err := conn.Receive()
	if err != nil {
		return fmt.Errorf("nothing from its parent: %w", err)
	}
	if m.Kind != sayBegin || len(files) == 0 {
		return fmt.Errorf("a %q from its parent where it was to begin", m.Kind)
	}
	var t task
	if err := decode(m, func(told task) { t = told }); err != nil {
		return err
	}
	if err = c.begin(t, files); err == nil {
		err = c.start()
	}
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil { // its parent says of whom
			err = inner
		}
		_ = c.say(sayFailed, startFailure{shortened(err), errors.Is(err, context.DeadlineExceeded)})
		return err
	}
	select {
	case d := <-c.drain:
		return c.end(d)
	case why := <-c.rt.failed:
		return c.ended(why)
	}
}

// begin builds the app, and stands for the others.
func (c *child) begin(b task, files []*os.File) (err error) {
	process.CollectBelowLimit()
	if c.page, err = page.Open(files[0]); err != nil {
		return err
	}
	c.slots = make(map[string][]page.Slot, len(b.Slots))
	for name, at := range b.Slots {
		c.slots[name] = c.page.Slots(at.First, at.Len)
	}
	c.slot = &c.slots[c.birth.App][c.birth.Instance]
	c.speak(b.terms)
	rt := c.rt
	configs := allWithDefaults(rt.configs)
	for i := range configs {
		config := &configs[i]
		if l, told := b.Limits[config.Name]; told {
			*config = l.apply(*config)
		}
		if config.Name == c.birth.App {
			config.Isolation, config.Instances = InProcess, 1
		}
	}
	byName := rt.build(configs)
	c.app = byName[c.birth.App]
	c.app.first = c.birth.Instance
	c.countIn(b)
	if len(files) > 1 {
		ln, err := control.ListenerOf(files[1])
		if err != nil {
			return err
		}
		c.inlet = newInlet(ln)
		c.app.place.listen(c.inlet)
	}
	rt.running.Store(&byName)
	c.handover, c.errands = newHandover(c), newErrands(c.app)
	rt.owned.Go(c.errands.run)
	c.show()
	rt.owned.Go(c.listen)
	return nil
}

// countIn has the app count in the page, where its parent sees it.
func (c *child) countIn(b task) {
	c.app.tallies.put(c.birth.Instance, &c.slot.Served)
	for i, callee := range c.app.conf().Calls {
		c.app.mesh.edges[callee].calls = c.page.Calls(b.Calls + i)
	}
}

// start opens the ways to the other apps, and starts its own.
func (c *child) start() error {
	for _, a := range c.rt.apps {
		if a != c.app {
			c.rt.owned.Go(func() { _ = a.start(context.Background()) }) // which opens the way there, and cannot fail
		}
	}
	if err := c.app.start(context.Background()); err != nil {
		return err
	}
	process.CollectBelowLimit() // again: New may have taken what the collector knows nothing of

	if c.inlet != nil { // no sooner: what it takes would be lost with a start that fails
		c.rt.owned.Go(func() { c.inlet.run(c.app.log) })
	}
	c.enter(phaseRunning)
	return c.say(sayReady, nil)
}

// ended tells the parent why the app has ended by itself, and takes nothing more: the parent has others, or another soon.
func (c *child) ended(why error) error {
	c.enter(phaseStopping)
	if c.inlet != nil {
		_ = c.inlet.Close()
	}
	if err := c.say(sayEnded, fault{shortened(why)}); err != nil {
		return err
	}
	return c.end(<-c.drain)
}

// end drains the app, and tells the parent what had to be cut.
func (c *child) end(d draining) error {
	c.enter(phaseStopping)
	ctx := context.Background()
	if d.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d.Within, errors.New("it took too long"))
		defer cancel()
	}
	var report drained
	if err := c.app.drain(ctx); err != nil {
		report.Error = strings.TrimPrefix(shortened(err), whose(c.app.name, c.birth.Instance)) // its parent says of whom
	}
	c.showCounters() // for the last time
	return c.say(sayDrained, report)
}

func (c *child) say(kind string, what any) error {
	m, err := control.New(kind, what)
	if err != nil {
		return err
	}
	return c.conn.Send(context.Background(), m)
}

// listen hears what the parent says. When that has gone, so does the child.
func (c *child) listen() {
	for {
		m, files, err := c.conn.Receive()
		if err == nil {
			err = c.heard(m, files)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "watt: the parent of app %q, instance %d, has gone: %v\n", c.birth.App, c.birth.Instance, err)
			os.Exit(1) //nolint:forbidigo // the process is watt's own
		}
	}
}

func (c *child) heard(m control.Message, files []*os.File) error {
	switch m.Kind {
	case sayConn, sayPublic:
		if len(files) != 1 { // lost for want of descriptors: whoever is there sees it closed
			control.Drop(files)
			return nil
		}
		if m.Kind == sayPublic {
			c.inlet.take(files[0])
			return nil
		}
		return decode(m, func(what connection) {
			if c.app.conf().Serve != nil { // it may not accept, and let everybody wait
				go c.accept(files[0], what)
				return
			}
			c.accept(files[0], what) // before a drain that is announced after it
		})
	case sayDialled:
		return decode(m, func(d dialled) { c.given(d, files) })
	}
	return c.told(m)
}

// told does what the parent wants.
func (c *child) told(m control.Message) error {
	switch m.Kind {
	case sayAdopt:
		return decode(m, c.adopt)
	case sayLame:
		c.app.place.lameDuck()
	case sayDrain:
		return decode(m, func(d draining) { offer(c.drain, d) })
	default:
		return fmt.Errorf("unknown message %q", m.Kind)
	}
	return nil
}

func (c *child) accept(f *os.File, what connection) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if what.Errand {
		c.errands.accept(ctx, f)
		return
	}
	_ = c.app.place.accept(ctx, f, what, -1) // who has dialled sees it closed
}

// adopt puts the terms into force that its parent knows.
func (c *child) adopt(t terms) {
	c.speak(t)
	for name, l := range t.Limits {
		a := c.rt.app(name)
		config := l.apply(*a.conf())
		a.config.Store(&config)
		a.place.adopt(&config)
	}
}

// speak sets the level of the log to the parent's.
func (c *child) speak(t terms) {
	if t.Level != nil && c.rt.Level != nil {
		c.rt.Level.SetLevel(zapcore.Level(*t.Level))
	}
}
