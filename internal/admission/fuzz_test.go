package admission_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/admission"
)

// FuzzThePoolDoesWhatTheModelDoes plays every byte string as a sequence of
// operations on a pool and on a model, and compares them after each.
func FuzzThePoolDoesWhatTheModelDoes(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2)) // the same every time
	for size := range 100 {
		ops := make([]byte, 4*size)
		for i := range ops {
			ops[i] = byte(random.Uint32())
		}
		f.Add(ops)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		synctest.Test(t, func(t *testing.T) {
			newPlay(t).run(ops[:min(len(ops), 500)])
		})
	})
}

// play is a pool and its model.
type play struct {
	*testing.T

	pool    *admission.Pool[int]
	model   *model
	members []*admission.Member[int] // as model.members
	calls   []*playCall
	values  int
	ops     []byte
	log     []string
}

// playCall is one Acquire, on both sides.
type playCall struct {
	*modelCall

	cancel context.CancelCauseFunc
	done   chan struct{}
	ticket admission.Ticket[int]
	got    error
}

var (
	errHungUp  = errors.New("hung up")
	errRefused = errors.New("refused")
)

func newPlay(t *testing.T) *play {
	t.Helper()
	limits := admission.Limits{Workers: 1, Queue: 2, Wait: 200*time.Millisecond + expiry}
	p := &play{
		T:     t,
		pool:  admission.New[int](limits),
		model: &model{limits: limits, now: time.Now()},
	}
	p.add()
	p.open(0)
	return p
}

// Whole milliseconds pass between operations, waiting times end a fraction
// after one and deadlines another, as do those who have come earlier: no two
// things are due at the same moment, for which of them comes first would be up
// to the scheduler.
const (
	expiry  = 300 * time.Microsecond
	timeout = 500 * time.Microsecond
	earlier = 100 * time.Microsecond
)

// next returns the next byte as a number below n: 0 when there is none left.
func (p *play) next(n int) int {
	if len(p.ops) == 0 {
		return 0
	}
	op := p.ops[0]
	p.ops = p.ops[1:]
	return int(op) % n
}

// millis returns one of the choices, in milliseconds.
func (p *play) millis(choices ...int) time.Duration {
	return time.Duration(choices[p.next(len(choices))]) * time.Millisecond
}

func (p *play) run(ops []byte) {
	p.ops = ops
	for len(p.ops) > 0 {
		p.step()
		p.compare()
	}
	// The order in which the rest is served is who waits in which order.
	for len(p.model.running) > 0 {
		p.release(p.running(), true)
		p.compare()
	}
	p.refuse(errRefused)
	p.compare()
}

// step does the next operation on both sides; acquire, release and time come
// most often.
func (p *play) step() {
	switch op := p.next(20); op {
	case 0, 1, 2:
		p.acquire(0, 0, nil)
	case 3:
		p.acquire(p.millis(1, 19, 70, 400)+earlier, 0, nil)
	case 4:
		p.acquire(0, p.millis(0, 5, 60, 150, 1000)+timeout, nil)
	case 5:
		p.acquire(p.millis(1, 19, 70, 400)+earlier, p.millis(0, 5, 60, 150, 1000)+timeout, nil)
	case 6:
		p.acquire(0, 0, errHungUp)
	case 7, 8, 9:
		p.release(p.running(), true)
	case 10:
		p.release(p.running(), false)
	case 11:
		p.cancel(p.waiting())
	case 12:
		p.cancelAndRelease(p.waiting(), p.running())
	case 13:
		p.releaseAndCancel(p.running())
	case 14, 15:
		p.advance(p.millis(1, 20, 50, 99, 100, 101, 400))
	case 16:
		p.resize(admission.Limits{
			Workers: p.next(4),
			Queue:   p.next(6) - 1,
			Wait:    p.millis(0, 30, 120, 500) + expiry,
		})
	case 17:
		p.open(p.next(5))
	case 18:
		p.shut(p.next(5))
	case 19:
		p.rare()
	}
}

func (p *play) rare() {
	switch p.next(5) {
	case 0:
		p.refuse(errRefused)
	case 1, 2:
		p.refuse(nil)
	case 3:
		p.add()
	case 4:
		p.remove(p.next(5))
	}
}

// compare stops the test where the pool is not as the model is.
func (p *play) compare() {
	p.Helper()
	synctest.Wait()
	for _, c := range p.calls {
		p.equal("a call", c.actual(), c.expected())
	}
	p.calls = slices.DeleteFunc(p.calls, func(c *playCall) bool { return c.err != nil })
	p.equal("Stats", p.pool.Stats(), p.model.snapshot())
	p.equal("Check", describe(p.pool.Check(time.Time{})), describe(p.model.check(math.MaxInt64)))
	within := 100*time.Millisecond + timeout
	p.equal("Check within a time", describe(p.pool.Check(time.Now().Add(within))), describe(p.model.check(within)))
	p.equal("RetryAfter", p.pool.RetryAfter(), p.model.retryAfter())
	for i, m := range p.members {
		p.equal("Busy", m.Busy(), p.model.members[i].busy)
	}
	if len(p.model.queue) == 0 && p.pool.DisarmTimer() {
		p.equal("the timer of an empty queue", "armed", "not armed")
	}
}

func (p *play) equal(what string, got, want any) {
	p.Helper()
	if got == want {
		return
	}
	for _, line := range p.log {
		p.Log(line)
	}
	p.Fatalf("%s: got  %+v\nwant %+v", what, got, want)
}

func (c *playCall) actual() string {
	select {
	case <-c.done:
	default:
		return "waits"
	}
	if c.got != nil {
		return describe(c.got)
	}
	return fmt.Sprintf("runs on %d", c.ticket.Value())
}

func (c *playCall) expected() string {
	if c.err != nil {
		return describe(c.err)
	}
	if c.member == nil {
		return "waits"
	}
	return fmt.Sprintf("runs on %d", c.value)
}

// describe says all there is to an error.
func describe(err error) string {
	if shed, ok := errors.AsType[*admission.ShedError](err); ok {
		return fmt.Sprintf("shed: %v %+v", shed, *shed)
	}
	return fmt.Sprint(err)
}
