package watt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/org/watt/internal/control"
)

// A child has no way to the other apps but its parent, which makes the connections that it asks for.

// gift is what the parent answers.
type gift struct {
	conn net.Conn
	err  error
}

// drop closes what nobody waits for any more.
func (g gift) drop() {
	if g.conn != nil {
		_ = g.conn.Close()
	}
}

// dial asks the parent for a connection.
func (c *child) dial(ctx context.Context, ask dialling) (net.Conn, error) {
	reply := make(chan gift, 1)
	c.mu.Lock()
	c.last++
	id := c.last
	c.asked[id] = reply
	c.mu.Unlock()
	ask.ID = id
	if by, limited := ctx.Deadline(); limited {
		ask.Within = max(time.Millisecond, time.Until(by))
	}
	if err := c.say(sayDial, ask); err != nil {
		return nil, &CallError{Err: fmt.Errorf("%w: %w", ErrUnavailable, err)}
	}
	select {
	case g := <-reply:
		if g.err != nil {
			return nil, g.err
		}
		return g.conn, nil
	case <-ctx.Done():
		if !c.forget(id, reply) && !errors.Is(ctx.Err(), context.DeadlineExceeded) { // when that is, the parent knows itself
			_ = c.say(sayForget, forgotten{id})
		}
		return nil, context.Cause(ctx)
	}
}

// forget does without a connection that was asked for. It reports whether there was an answer in the same moment.
func (c *child) forget(id uint64, reply <-chan gift) (answered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.asked, id)
	select {
	case g := <-reply:
		g.drop()
		return true
	default:
		return false
	}
}

// given hands a connection to whoever has asked for it.
func (c *child) given(d dialled, files []*os.File) {
	var g gift
	switch {
	case d.Kind > 0 && d.Kind < len(kinds()):
		control.Drop(files)
		g.err = &CallError{Err: fmt.Errorf("%w: by way of the parent: %s", kinds()[d.Kind], d.Text)}
	case len(files) == 1:
		if g.conn, g.err = control.ConnOf(files[0]); g.err != nil {
			g.err = &CallError{Err: fmt.Errorf("%w: %w", ErrUnavailable, g.err)}
		}
	default: // it was lost
		control.Drop(files)
		g.err = &CallError{Err: fmt.Errorf("%w: this process has no descriptors left", ErrUnavailable)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	reply := c.asked[d.ID]
	delete(c.asked, d.ID)
	if reply == nil {
		g.drop()
		return
	}
	reply <- g // it has room for the one answer
}

// maxDials is how many connections a child may wait for at a time; more are refused.
const maxDials = 1024

var errManyDials = fmt.Errorf("%w: its process waits for %d connections", ErrOverloaded, maxDials)

// dials are the connections that a child waits for, as its parent makes them.
type dials struct {
	child   *own
	waiting chan struct{} // holds an element for each
	ends    sync.Map      // of context.CancelFunc, by ID

	mu      sync.Mutex
	refused []dialling // that are to be told that they are too many
}

// begin begins to get the child a connection, unless it waits for too many.
func (d *dials) begin(ask dialling) {
	select {
	case d.waiting <- struct{}{}:
	default:
		d.refuseMore(ask)
		return
	}
	rt := d.child.place.app.rt
	ctx, cancel := context.WithCancel(d.child.life)
	d.ends.Store(ask.ID, cancel)
	rt.owned.Go(func() {
		defer func() { <-d.waiting }()
		defer d.ends.Delete(ask.ID)
		defer cancel()
		defer context.AfterFunc(rt.patience.ctx, cancel)()
		d.dial(ctx, ask)
	})
}

// forget gives up a connection that the child does without.
func (d *dials) forget(f forgotten) {
	if cancel, waits := d.ends.Load(f.ID); waits {
		cancel.(context.CancelFunc)()
	}
}

// dial gets the child a connection to another app, if it may call that.
func (d *dials) dial(ctx context.Context, ask dialling) {
	if ask.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ask.Within)
		defer cancel()
	}
	near, err := d.connect(ctx, ask)
	if err == nil {
		defer func() { _ = near.Close() }()
		err = d.child.say(d.child.life, sayDialled, dialled{ID: ask.ID}, near)
	}
	if err != nil {
		d.refuse(ask, err)
	}
}

// connect returns the child's end of a new connection, the other of which it has given to the app that was asked for.
func (d *dials) connect(ctx context.Context, ask dialling) (*os.File, error) {
	caller := d.child.place.app
	a := caller
	if !ask.Handed || ask.App != a.name { // else to a sibling
		e, err := a.mesh.resolve(ask.App)
		if err != nil {
			return nil, err
		}
		a = e.app
	}
	if err := a.await(ctx, a.waitsUntil()); err != nil {
		return nil, err
	}
	near, far, err := control.Files()
	if err != nil {
		return nil, err
	}
	if err := a.place.accept(ctx, far, connection{Caller: caller.name, Handed: ask.Handed, Trunk: ask.Trunk}, ask.Instance); err != nil {
		_ = near.Close()
		return nil, err
	}
	return near, nil
}

// refuseMore refuses a connection to a child that waits for too many. It does not wait until the child reads that.
func (d *dials) refuseMore(ask dialling) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused = append(d.refused, ask); len(d.refused) == 1 {
		d.child.place.app.rt.owned.Go(d.refuseAll)
	}
}

// refuseAll refuses those connections, one after the other.
func (d *dials) refuseAll() {
	for {
		d.mu.Lock()
		next := d.refused[0]
		d.mu.Unlock()
		d.refuse(next, errManyDials)
		d.mu.Lock()
		d.refused = d.refused[1:]
		over := len(d.refused) == 0
		d.mu.Unlock()
		if over {
			return
		}
	}
}

// refuse tells the child why it gets no connection, if it can hear.
func (d *dials) refuse(ask dialling, err error) {
	answer := dialled{ID: ask.ID, Kind: kindUnavailable, Text: brief(err)}
	for kind, known := range kinds() {
		if known != nil && errors.Is(err, known) {
			answer.Kind = kind
		}
	}
	_ = d.child.say(d.child.life, sayDialled, answer)
}

// maxBrief is how much of an error a child is told, in bytes.
const maxBrief = 500

// brief returns the first line of an error, or its beginning: why an instance has failed may be of any length, and whoever
// calls one is told.
func brief(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line[:min(len(line), maxBrief)]
}

// key implements target.
func (o *own) key() any { return o }

// doubt implements target.
func (o *own) doubt() { o.slot.Doubt() }

// connect opens a connection to the child for the app called caller.
func (o *own) connect(ctx context.Context, caller string, trunk bool) (net.Conn, error) {
	return o.reach(ctx, connection{Caller: caller, Trunk: trunk})
}

// give hands the child a connection, of which it has its own descriptor then. It blocks while the child does not read,
// until ctx ends.
func (o *own) give(ctx context.Context, conn *os.File, what connection) error {
	err := o.say(ctx, sayConn, what, conn)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx) // which says nothing about the child
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// reach opens a connection to the child, or gives up when ctx ends.
func (o *own) reach(ctx context.Context, what connection) (net.Conn, error) {
	conn, far, err := ends()
	if err != nil {
		return nil, &CallError{Err: fmt.Errorf("%w: this process has no descriptors left: %w", ErrOverloaded, err)}
	}
	defer func() { _ = far.Close() }()
	if err := o.give(ctx, far, what); err != nil {
		_ = conn.Close()
		return nil, &net.OpError{Op: "dial", Net: "unix", Addr: address(o.place.app.name), Err: err}
	}
	return conn, nil
}

// ends returns the two of a new connection. What needs a descriptor comes before anybody is given one of them.
func ends() (conn net.Conn, far *os.File, err error) {
	near, far, err := control.Files()
	if err != nil {
		return nil, nil, err
	}
	if conn, err = control.ConnOf(near); err != nil {
		_ = far.Close()
		return nil, nil, err
	}
	return conn, far, nil
}
