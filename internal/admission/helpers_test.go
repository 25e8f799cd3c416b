package admission_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/admission"
)

// rig is a pool and its first member, inside a bubble.
type rig struct {
	*testing.T
	*admission.Pool[string]

	first *admission.Member[string]
}

// inBubble runs test with fake time, on a pool with one open member. Callers
// that still wait when it returns go with the test's context.
func inBubble(t *testing.T, limits admission.Limits, test func(r rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := admission.New[string](limits)
		r := rig{T: t, Pool: p, first: p.Add()}
		r.first.Open("first")
		test(r)
	})
}

// call is an Acquire in a goroutine of its own.
type call struct {
	done   chan struct{} // closed when it has returned, and all else is set
	after  time.Duration
	ticket admission.Ticket[string]
	err    error
}

func (c *call) returned() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// acquire calls Acquire and returns when it has, or waits.
func (r rig) acquire(ctx context.Context) *call {
	r.Helper()
	return r.acquireSince(ctx, time.Time{})
}

// acquireSince is acquire for who has come at that time.
func (r rig) acquireSince(ctx context.Context, since time.Time) *call {
	r.Helper()
	c := &call{done: make(chan struct{})}
	start := time.Now()
	go func() {
		defer close(c.done)
		c.ticket, c.err = r.AcquireOr(ctx, since, nil)
		c.after = time.Since(start)
	}()
	synctest.Wait()
	return c
}

// run acquires a worker that must be free.
func (r rig) run() *call {
	r.Helper()
	c := r.acquire(r.Context())
	r.mustRun(c)
	return c
}

// wait acquires a worker that must not be free.
func (r rig) wait() *call {
	r.Helper()
	c := r.acquire(r.Context())
	r.mustWait(c)
	return c
}

// sleep lets fake time pass, and what is due then happen.
func (r rig) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// release ends the ticket of c, and lets what follows happen.
func (r rig) release(c *call) {
	c.ticket.Release()
	synctest.Wait()
}

func (r rig) mustRun(calls ...*call) {
	r.Helper()
	for i, c := range calls {
		if !c.returned() {
			r.Fatalf("call %d waits, want it to run", i)
		}
		if c.err != nil {
			r.Fatalf("call %d does not run: %v", i, c.err)
		}
	}
}

func (r rig) mustWait(calls ...*call) {
	r.Helper()
	for i, c := range calls {
		if c.returned() {
			r.Fatalf("call %d does not wait: error %v", i, c.err)
		}
	}
}

func (r rig) mustFail(c *call, want error) {
	r.Helper()
	if !c.returned() {
		r.Fatalf("the call waits, want error %v", want)
	}
	if c.err != want { //nolint:errorlint // it is to be returned as is
		r.Fatalf("got error %v, want %v", c.err, want)
	}
}

// mustBeShed returns the error that says so.
func (r rig) mustBeShed(c *call, want admission.Reason) *admission.ShedError {
	r.Helper()
	if !c.returned() {
		r.Fatalf("the call waits, want it shed: %v", want)
	}
	return r.mustShed(c.err, want)
}

func (r rig) mustShed(err error, want admission.Reason) *admission.ShedError {
	r.Helper()
	shed, ok := errors.AsType[*admission.ShedError](err)
	if !ok || shed.Reason != want {
		r.Fatalf("got error %v, want it shed: %v", err, want)
	}
	return shed
}
