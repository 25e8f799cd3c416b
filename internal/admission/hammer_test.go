package admission_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/watt/internal/admission"
)

// seat counts for the test what is in progress on one member; most is how
// much that may be.
type seat struct {
	busy atomic.Int32
	most int32
}

// hammer is many callers of one pool, and what became of their requests.
type hammer struct {
	*testing.T

	pool                     *admission.Pool[*seat]
	ran, shed, refused, gone atomic.Uint64
}

func TestNoWorkerIsLostOrGivenTwice(t *testing.T) {
	const most = 3
	pool := admission.New[*seat](admission.Limits{Workers: most, Queue: 8, Wait: 5 * time.Millisecond})
	h := &hammer{T: t, pool: pool}
	pool.Add().Open(&seat{most: most})
	pool.Add().Open(&seat{most: most})

	stop := make(chan struct{})
	var callers, trouble sync.WaitGroup
	trouble.Go(func() { h.disturb(stop, most) })
	const each = 400
	for range 48 {
		callers.Go(func() {
			for range each {
				h.request()
			}
		})
	}
	callers.Wait()
	close(stop)
	trouble.Wait()

	s := pool.Stats()
	if s.Busy != 0 || s.Queued != 0 || pool.DisarmTimer() {
		t.Errorf("all have gone, and still there are: %+v", s)
	}
	var shed uint64
	for _, n := range s.Shed {
		shed += n
	}
	if total := s.Admitted + s.Refused + s.Abandoned + shed; total != 48*each {
		t.Errorf("got %d requests counted, want %d: %+v", total, 48*each, s)
	}
	if h.ran.Load() == 0 || h.ran.Load() > s.Admitted || h.ran.Load()+h.gone.Load() < s.Admitted {
		t.Errorf("%d ran and %d went, and %d are said to be admitted", h.ran.Load(), h.gone.Load(), s.Admitted)
	}
	t.Logf("%d ran, %d shed, %d refused, %d gone: %+v",
		h.ran.Load(), h.shed.Load(), h.refused.Load(), h.gone.Load(), s)
}

// request is one request, by a caller who has all the time in the world, or a
// deadline, or hangs up in some moment.
func (h *hammer) request() {
	ctx, cancel := context.WithCancel(h.Context())
	defer cancel()
	switch rand.IntN(8) {
	case 0:
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.Int64N(int64(20*time.Millisecond))))
		defer cancel()
	case 1, 2:
		go func() {
			for range rand.IntN(200) {
				runtime.Gosched()
			}
			cancel()
		}()
	}
	ticket, err := h.pool.Acquire(ctx)
	switch {
	case err == nil:
		h.ran.Add(1)
		h.work(ticket)
	case errors.Is(err, errRefused):
		h.refused.Add(1)
		runtime.Gosched()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		h.gone.Add(1)
	default:
		if _, ok := errors.AsType[*admission.ShedError](err); !ok {
			h.Errorf("got %v, which is none of the errors there are", err)
		}
		h.shed.Add(1)
		runtime.Gosched()
	}
}

func (h *hammer) work(ticket admission.Ticket[*seat]) {
	end := ticket.Release
	if rand.IntN(4) == 0 {
		end = ticket.Discard
	}
	defer end()
	s := ticket.Value()
	if busy := s.busy.Add(1); busy > s.most {
		h.Errorf("%d in progress, on a member of %d workers", busy, s.most)
	}
	defer s.busy.Add(-1) // before the ticket ends
	for range rand.IntN(20) {
		runtime.Gosched()
	}
}

// disturb does to the pool whatever can be done to it, in no order. Limits
// stay at most workers, since those too many are not revoked.
func (h *hammer) disturb(stop <-chan struct{}, most int) {
	type member struct {
		*admission.Member[*seat]
		*seat
	}
	var members []member
	for {
		select {
		case <-stop:
			return
		default:
		}
		switch rand.IntN(6) {
		case 0:
			h.pool.Resize(admission.Limits{
				Workers: rand.IntN(most + 1), Queue: rand.IntN(64), Wait: time.Duration(rand.IntN(5000)) * time.Microsecond,
			})
		case 1:
			h.pool.Refuse(errRefused)
			for range rand.IntN(4) { // for a moment: who is refused comes again at once
				runtime.Gosched()
			}
			h.pool.Refuse(nil)
		case 2:
			if len(members) < 4 {
				members = append(members, member{h.pool.Add(), &seat{most: int32(most)}})
			}
		case 3:
			for _, m := range members {
				m.Open(m.seat)
			}
		case 4:
			for _, m := range members {
				m.Close()
			}
		case 5:
			if len(members) > 0 && rand.IntN(4) == 0 {
				h.pool.Remove(members[0].Member)
				members = members[1:]
			}
		}
		h.pool.Stats()
		h.pool.RetryAfter()
		_ = h.pool.Check(time.Time{})
		for range rand.IntN(100) { // not so often that nobody gets through
			runtime.Gosched()
		}
	}
}
