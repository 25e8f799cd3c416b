package watt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
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

// asks begins to get the child a connection, unless it waits for too many.
func (o *own) asks(ask dialling) {
	select {
	case o.dials <- struct{}{}:
	default:
		o.refuseMore(ask)
		return
	}
	ctx, cancel := context.WithCancel(o.life)
	o.asked.Store(ask.ID, cancel)
	o.place.app.rt.owned.Go(func() {
		defer func() { <-o.dials }()
		defer o.asked.Delete(ask.ID)
		defer cancel()
		defer context.AfterFunc(o.place.app.rt.patience.ctx, cancel)()
		o.dial(ctx, ask)
	})
}

// forgets gives up a connection that the child does without.
func (o *own) forgets(f forgotten) {
	if cancel, waits := o.asked.Load(f.ID); waits {
		cancel.(context.CancelFunc)()
	}
}

// dial gets the child a connection to another app, if it may call that.
func (o *own) dial(ctx context.Context, ask dialling) {
	if ask.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ask.Within)
		defer cancel()
	}
	near, err := o.dialled(ctx, ask)
	if err == nil {
		defer func() { _ = near.Close() }()
		err = o.say(o.life, sayDialled, dialled{ID: ask.ID}, near)
	}
	if err != nil {
		o.refuse(ask, err)
	}
}

// refuseMore refuses a connection to a child that waits for too many. It does not wait until the child reads that.
func (o *own) refuseMore(ask dialling) {
	o.refusing.Lock()
	defer o.refusing.Unlock()
	if o.refused = append(o.refused, ask); len(o.refused) == 1 {
		o.place.app.rt.owned.Go(o.refuseAll)
	}
}

// refuseAll refuses those connections, one after the other.
func (o *own) refuseAll() {
	for {
		o.refusing.Lock()
		next := o.refused[0]
		o.refusing.Unlock()
		o.refuse(next, errManyDials)
		o.refusing.Lock()
		o.refused = o.refused[1:]
		over := len(o.refused) == 0
		o.refusing.Unlock()
		if over {
			return
		}
	}
}

// refuse tells the child why it gets no connection, if it can hear.
func (o *own) refuse(ask dialling, err error) {
	answer := dialled{ID: ask.ID, Kind: kindUnavailable, Text: brief(err)}
	for kind, known := range kinds() {
		if known != nil && errors.Is(err, known) {
			answer.Kind = kind
		}
	}
	_ = o.say(o.life, sayDialled, answer)
}

// maxBrief is how much of an error a child is told, in bytes.
const maxBrief = 500

// brief returns the first line of an error, or its beginning: why an instance has failed may be of any length, and whoever
// calls one is told.
func brief(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line[:min(len(line), maxBrief)]
}

func (o *own) dialled(ctx context.Context, ask dialling) (*os.File, error) {
	a := o.place.app
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
	if err := a.place.accept(ctx, far, connection{Caller: o.place.app.name, Handed: ask.Handed, Trunk: ask.Trunk}, ask.Instance); err != nil {
		_ = near.Close()
		return nil, err
	}
	return near, nil
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
	if err := o.say(ctx, sayConn, what, conn); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// reach opens a connection to the child, or gives up when ctx ends.
func (o *own) reach(ctx context.Context, what connection) (net.Conn, error) {
	near, far, err := control.Files()
	if err != nil {
		return nil, &CallError{Err: fmt.Errorf("%w: this process has no descriptors left: %w", ErrOverloaded, err)}
	}
	defer func() { _ = far.Close() }()
	if err := o.give(ctx, far, what); err != nil {
		_ = near.Close()
		return nil, &net.OpError{Op: "dial", Net: "unix", Addr: address(o.place.app.name), Err: err}
	}
	return control.ConnOf(near)
}
