package admission_test

import (
	"context"
	"fmt"
	"slices"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/admission"
)

// What a play can do, each on the pool and on the model.

func (p *play) logf(format string, args ...any) {
	p.log = append(p.log, fmt.Sprintf(format, args...))
}

// running returns one of the calls that run, waiting one of those that wait, or nil.
func (p *play) running() *playCall { return p.pick(p.model.running) }
func (p *play) waiting() *playCall { return p.pick(p.model.queue) }

func (p *play) pick(from []*modelCall) *playCall {
	if len(from) == 0 {
		return nil
	}
	return p.callOf(from[p.next(len(from))])
}

func (p *play) callOf(c *modelCall) *playCall {
	i := slices.IndexFunc(p.calls, func(other *playCall) bool { return other.modelCall == c })
	return p.calls[i]
}

// acquire is somebody who has come some time ago; within is the deadline, gone why it has left already.
func (p *play) acquire(ago, within time.Duration, gone error) {
	p.logf("acquire since %v ago within %v, gone %v", ago, within, gone)
	c := &playCall{modelCall: new(modelCall), done: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(context.Background())
	c.cancel = cancel
	if within > 0 {
		c.deadline = time.Now().Add(within)
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, c.deadline)
		p.Cleanup(stop)
	}
	if gone != nil {
		cancel(gone)
	}
	p.calls = append(p.calls, c)
	p.model.acquire(c.modelCall, ago, gone)
	since := time.Now().Add(-ago)
	go func() {
		defer close(c.done)
		c.ticket, c.got = p.pool.AcquireOr(ctx, since, nil)
	}()
}

func (p *play) release(c *playCall, served bool) []*modelCall {
	if c == nil {
		return nil
	}
	p.logf("release a worker of %d, served %v", c.value, served)
	if served {
		c.ticket.Release()
	} else {
		c.ticket.Discard()
	}
	p.forget(c)
	return p.model.end(c.modelCall, served)
}

func (p *play) forget(c *playCall) {
	p.calls = slices.DeleteFunc(p.calls, func(other *playCall) bool { return other == c })
}

func (p *play) cancel(c *playCall) {
	if c == nil {
		return
	}
	p.logf("cancel a waiter since %v", c.since)
	c.cancel(errHungUp)
	p.model.cancel(c.modelCall, errHungUp)
}

// cancelAndRelease frees a worker before the caller that has gone notices.
func (p *play) cancelAndRelease(waiting, running *playCall) {
	if waiting == nil || running == nil || p.model.next() == waiting.modelCall { // and so does the pool
		p.cancel(waiting)
		p.release(running, true)
		return
	}
	p.logf("before, cancel a waiter since %v", waiting.since)
	waiting.cancel(errHungUp)
	p.release(running, true)
	p.model.cancel(waiting.modelCall, errHungUp)
}

// releaseAndCancel cancels who is admitted, in the same moment: it may have
// the ticket then, or not.
func (p *play) releaseAndCancel(running *playCall) {
	granted := p.release(running, true)
	if len(granted) == 0 {
		return
	}
	c := p.callOf(granted[0])
	p.logf("and cancel who gets it")
	c.cancel(errHungUp)
	synctest.Wait()
	if c.got == nil {
		return
	}
	p.logf("which was faster")
	p.model.end(c.modelCall, false)
	c.err = errHungUp
}

func (p *play) advance(d time.Duration) {
	p.logf("advance %v", d)
	time.Sleep(d)
	p.model.advance(d)
}

func (p *play) resize(limits admission.Limits) {
	if limits.Wait == expiry {
		limits.Wait = 0
	}
	p.logf("resize %+v", limits)
	p.pool.Resize(limits)
	p.model.resize(limits)
}

func (p *play) refuse(err error) {
	p.logf("refuse %v", err)
	p.pool.Refuse(err)
	p.model.refuse(err)
}

func (p *play) add() {
	p.logf("add")
	if len(p.members) < 4 {
		p.members = append(p.members, p.pool.Add())
		p.model.members = append(p.model.members, new(modelMember))
	}
}

func (p *play) remove(i int) {
	if i >= len(p.members) {
		return
	}
	p.logf("remove %d", i)
	p.pool.Remove(p.members[i])
	p.members = slices.Delete(p.members, i, i+1)
	p.model.members = slices.Delete(p.model.members, i, i+1)
}

func (p *play) open(i int) {
	if i >= len(p.members) {
		return
	}
	p.values++
	p.logf("open %d as %d", i, p.values)
	p.members[i].Open(p.values)
	m := p.model.members[i]
	m.open, m.value = true, p.values
	p.model.grant()
}

func (p *play) shut(i int) {
	if i >= len(p.members) {
		return
	}
	p.logf("close %d", i)
	p.members[i].Close()
	p.model.members[i].open = false
}
