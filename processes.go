package watt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/org/watt/internal/count"
)

// processes are the instances of an app that live in processes of their own. Each has a door with its own
// admission; the page shows how busy they are.
type processes struct {
	sums
	public *frontage // nil if the app does not listen
}

func newProcesses(a *app) *processes {
	return &processes{sums: sums{app: a, nursery: a.rt.nursery, living: make(map[int]*own)}}
}

// open implements place. The mesh comes in by way of the instances.
func (p *processes) open() {}

func (p *processes) begin(index int) life { return newOwn(p, index) }

func (p *processes) listen(net.Listener) {}

// publish has nothing to do: each instance opens its part of the public side when it is ready.
func (p *processes) publish() {}

func (p *processes) addr() string {
	if p.public == nil {
		return ""
	}
	return p.public.port.address
}

// send sends the request to the instance that has least to do.
func (p *processes) send(c *call, req *http.Request) (*http.Response, error) {
	return c.cross(req, func(ctx context.Context, not target, by time.Time) (target, error) { return p.pick(ctx, not, by) })
}

func (p *processes) connect(ctx context.Context, caller string) (conn net.Conn, err error) {
	err = p.reach(ctx, func(o *own) error {
		conn, err = o.connect(ctx, caller, false)
		return err
	})
	return conn, err
}

// reach gives the instance that has least to do a connection, or another if that has just ended, as often as cross sends a
// request.
func (p *processes) reach(ctx context.Context, give func(*own) error) error {
	var not target
	for n, by := 1, p.app.waitsUntil(); ; n++ {
		o, err := p.pick(ctx, not, by)
		if err != nil {
			return err
		}
		err = give(o)
		if !errors.Is(err, ErrUnavailable) || n >= tries && !pauseTry(ctx, by) {
			return err
		}
		not = o
	}
}

// accept gives a connection from another process to the instance that was asked for, or if that is not ready to the
// idlest; but none for what a sibling hands over, which then looks for another itself.
func (p *processes) accept(ctx context.Context, conn *os.File, what connection, instance int) error {
	defer func() { _ = conn.Close() }()
	for o := range p.ready {
		if o.index == instance && !o.silent() {
			return o.give(ctx, conn, what)
		}
	}
	if what.Handed {
		return fmt.Errorf("%w: instance %d is not ready", ErrUnavailable, instance)
	}
	return p.reach(ctx, func(o *own) error { return o.give(ctx, conn, what) })
}

// pick returns the ready instance with least to do, other than not. If there is none it waits for one until by, unless
// that is zero.
func (p *processes) pick(ctx context.Context, not target, by time.Time) (*own, error) {
	for {
		change := p.app.changing()
		if o := p.idlest(not); o != nil {
			return o, nil
		}
		if by.IsZero() {
			return nil, errNoOther
		}
		if err := p.app.await(ctx, by); err != nil {
			return nil, err
		}
		if o := p.idlest(not); o != nil {
			return o, nil
		}
		select { // it is silent or about to end, or has, which its supervisor is about to notice
		case <-change:
		case <-time.After(time.Until(by)):
			return nil, fmt.Errorf("%w that shows that it lives", errAway)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

var errNoOther = fmt.Errorf("%w: there is no other instance", ErrUnavailable)

// idlest returns the ready instance with least to do, any of equals, that is not silent and other than not; or nil.
func (p *processes) idlest(not target) *own {
	ready := make([]*own, 0, 8) // enough for most, without an allocation
	for o := range p.ready {
		ready = append(ready, o)
	}
	i := idlest(len(ready), func(i int) (int64, bool) {
		o := ready[i]
		load := o.slot.Load()
		if o.slot.Doubted() {
			load += math.MaxInt32 // only if there is no other
		}
		return load, target(o) != not && !o.silent()
	})
	if i < 0 {
		return nil
	}
	return ready[i]
}

// ready calls yield for each instance that may be given work.
func (p *processes) ready(yield func(*own) bool) {
	p.app.mu.Lock()
	instances := p.app.instances
	p.app.mu.Unlock()
	for _, in := range instances {
		if o, ok := in.current().(*own); ok && !o.over() && !yield(o) {
			return
		}
	}
}

// check looks at the page.
func (p *processes) check(by time.Time) error {
	var all candidates
	for o := range p.ready {
		all = append(all, o.slot)
	}
	if len(all) == 0 {
		return p.app.away()
	}
	return all.check(by)
}

// listeners tells of those of the instances.
func (p *processes) listeners() []ListenerStatus {
	if p.public == nil {
		return nil
	}
	var all []ListenerStatus
	for i := range maxProcesses {
		if p.public.port.listener(i) == nil {
			continue
		}
		n, err := p.public.port.queued(i)
		if err != nil {
			n = -1
		}
		all = append(all, ListenerStatus{
			Instance: i, Accepted: count.Read(&p.served(i).Accepted), Queued: n, Chosen: p.public.port.chosen(i),
		})
	}
	return all
}

// adopt tells the instances of new limits. Raw connections to them are counted where they are dialled.
func (p *processes) adopt(config *App) {
	p.app.conns.resize(config.MaxConns)
	p.inform()
}

// inform tells the instances the terms in force.
func (p *processes) inform() {
	p.tell((*own).adopt) // one that ends begins with them, one that starts is told when it is ready
}

// tellTime is how long one instance may keep who tells all of them something.
const tellTime = 100 * time.Millisecond

// tell tells all ready instances something, at the same time. It returns when they were told, or soon: one that does not
// read keeps nobody waiting.
func (p *processes) tell(f func(*own)) {
	told, n := make(chan struct{}, maxProcesses), 0
	for o := range p.ready {
		n++
		p.app.rt.owned.Go(func() {
			f(o)
			told <- struct{}{} // which has room for all
		})
	}
	late := time.After(tellTime)
	for range n {
		select {
		case <-told:
		case <-late:
			return
		}
	}
}

// remove takes the instance's listener from the port.
func (p *processes) remove(ctx context.Context, index int) error {
	if p.public == nil {
		return nil
	}
	return p.public.removed(ctx, index)
}

func (p *processes) lameDuck() {
	p.tell(func(o *own) { _ = o.say(o.life, sayLame, nil) })
}

// quiet takes no more public connections. Those that there are belong to the instances, which drain then.
func (p *processes) quiet(ctx context.Context) error {
	if p.public != nil {
		p.public.quiet(ctx)
	}
	return nil
}

// awaitAnswers has nothing to do: the instances have.
func (p *processes) awaitAnswers(context.Context) error { return nil }

func (p *processes) close(ctx context.Context) {
	if p.public != nil {
		p.public.close(ctx)
	}
}
