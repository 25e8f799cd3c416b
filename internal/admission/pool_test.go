package admission_test

import (
	"context"
	"errors"
	"runtime"
	"runtime/metrics"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/admission"
)

func TestAFreeWorkerIsGivenAtOnce(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 2}, func(r rig) {
		c := r.run()
		if got := c.ticket.Value(); got != "first" {
			r.Errorf("got a worker of %q, want first", got)
		}
		r.run()
		if got := r.Stats(); got.Busy != 2 || got.Workers != 2 || got.Admitted != 2 {
			r.Errorf("got %+v, want 2 busy of 2 workers, 2 admitted", got)
		}
	})
}

func TestWhoDoesNotWaitIsInNoCountAndPushesNobodyOut(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 1, Wait: time.Minute}, func(r rig) {
		ticket, err := r.AcquireNow()
		if err != nil {
			r.Fatal(err)
		}
		waits := r.acquire(r.Context())
		time.Sleep(time.Second) // the queue is overloaded: who came to stay would push out who waits
		before := r.Stats()
		if _, err := r.AcquireNow(); !errors.Is(err, admission.ErrMoved) {
			r.Errorf("got %v, want %v", err, admission.ErrMoved)
		}
		if got := r.Stats(); got != before || waits.returned() {
			r.Errorf("got %+v, %t, want %+v and that the other waits on", got, waits.returned(), before)
		}
		ticket.Release()
		synctest.Wait()
		waits.ticket.Release()
		gone := errors.New("gone")
		r.Refuse(gone)
		if _, err := r.AcquireNow(); !errors.Is(err, gone) || r.Stats().Refused != 1 {
			r.Errorf("got %v and %+v, want it to be refused", err, r.Stats())
		}
	})
}

func TestAnAcquireAllocatesNothingWhenAWorkerIsFree(t *testing.T) {
	p := admission.New[*int](admission.Limits{Workers: 1})
	p.Add().Open(new(int))
	ctx := t.Context()
	allocs := testing.AllocsPerRun(100, func() {
		ticket, err := p.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ticket.Release()
	})
	if allocs != 0 {
		t.Errorf("got %v allocations, want none", allocs)
	}
}

// switches returns how often a goroutine has got a processor so far, as a sample of those that had to wait for one.
func switches(t *testing.T) (n uint64) {
	t.Helper()
	sample := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(sample)
	for _, count := range sample[0].Value.Float64Histogram().Counts {
		n += count
	}
	return n
}

func TestAnAcquireGoesOnInItsGoroutineWhenAWorkerIsFree(t *testing.T) {
	const times = 100_000
	p := admission.New[*int](admission.Limits{Workers: 1})
	p.Add().Open(new(int))
	ctx := t.Context()
	before := switches(t)
	for range times {
		ticket, err := p.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ticket.Release()
	}
	own := switches(t) - before
	for range times {
		runtime.Gosched()
	}
	if purposely := switches(t) - before - own; purposely == 0 || own > purposely/4 { // others have gone on meanwhile, too
		t.Errorf("got %d samples of switches, and %d with as many on purpose", own, purposely)
	}
}

func TestWithoutAQueueNobodyWaits(t *testing.T) {
	for name, limits := range map[string]admission.Limits{
		"no queue": {Workers: 1, Wait: time.Second},
		"no wait":  {Workers: 1, Queue: 8},
		"negative": {Workers: 1, Queue: -1, Wait: -1},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, limits, func(r rig) {
				r.run()
				r.mustBeShed(r.acquire(r.Context()), admission.NoQueue)
			})
		})
	}
}

func TestACallerThatIsGoneIsRefusedBeforeAnything(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1}, func(r rig) {
		cause := errors.New("hung up")
		ctx, cancel := context.WithCancelCause(r.Context())
		cancel(cause)
		r.mustFail(r.acquire(ctx), cause)

		r.Refuse(errors.New("closed"))
		r.mustFail(r.acquire(ctx), cause)
		if got := r.Stats(); got.Abandoned != 2 || got.Admitted != 0 || got.Refused != 0 {
			r.Errorf("got %+v, want 2 abandoned and nothing else", got)
		}
	})
}

func TestAWaiterWhoseCallerGoesIsDropped(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 2, Wait: time.Minute}, func(r rig) {
		running := r.run()
		ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
		defer cancel()
		gone, next := r.acquire(ctx), r.wait()
		r.sleep(3 * time.Second)
		r.mustFail(gone, context.DeadlineExceeded)
		r.release(running)
		r.mustRun(next)
		if got := r.Stats(); got.Abandoned != 1 || got.Admitted != 2 {
			r.Errorf("got %+v, want 1 abandoned, 2 admitted", got)
		}
	})
}

func TestAWorkerIsNotGivenToACallerThatIsGone(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 2, Wait: time.Minute}, func(r rig) {
		running := r.run()
		cause := errors.New("hung up")
		ctx, cancel := context.WithCancelCause(r.Context())
		gone, next := r.acquire(ctx), r.wait()
		cancel(cause)
		running.ticket.Release() // before the caller has noticed, perhaps
		synctest.Wait()
		r.mustFail(gone, cause)
		r.mustRun(next)
	})
}

func TestACallerThatGoesWhileItIsAdmittedHandsTheWorkerOn(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 2, Wait: time.Minute}, func(r rig) {
		// Which of the two it notices first is up to the scheduler.
		for range 100 {
			running := r.run()
			ctx, cancel := context.WithCancel(r.Context())
			going, next := r.acquire(ctx), r.wait()
			running.ticket.Release()
			cancel()
			synctest.Wait()
			if going.err == nil { // it was faster
				r.mustWait(next)
				r.release(going)
			}
			r.mustRun(next)
			r.release(next)
		}
		if got := r.Stats(); got.Busy != 0 || got.Queued != 0 {
			r.Errorf("got %+v, want nobody left", got)
		}
	})
}

func TestRefuseAnswersWaitersAndNewcomers(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 2, Wait: time.Minute}, func(r rig) {
		running, waiting := r.run(), r.wait()
		closed := errors.New("closed")
		r.Refuse(closed)
		synctest.Wait()
		r.mustFail(waiting, closed)
		r.mustFail(r.acquire(r.Context()), closed)
		r.release(running)
		r.mustFail(r.acquire(r.Context()), closed)
		if got := r.Check(time.Time{}); got != closed { //nolint:errorlint // it is to be returned as is
			r.Errorf("Check: got %v, want %v", got, closed)
		}

		r.Refuse(nil)
		r.run()
		r.wait()
		if got := r.Stats(); got.Refused != 3 || got.Busy != 1 || got.Queued != 1 {
			r.Errorf("got %+v, want 3 refused, 1 busy, 1 queued", got)
		}
	})
}

func TestCheckRefusesWhatWouldBeShedOrPushOutAnotherWithoutCountingIt(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 1, Wait: time.Minute}, func(r rig) {
		check := func(when string) {
			r.Helper()
			if err := r.Check(time.Time{}); err != nil {
				r.Errorf("%s: got %v, want nil", when, err)
			}
		}
		check("a worker is free")
		r.run()
		check("there is room in the queue")
		r.wait()
		r.mustShed(r.Check(time.Time{}), admission.QueueFull)
		r.sleep(100 * time.Millisecond)
		r.mustShed(r.Check(time.Time{}), admission.QueueFull) // though the oldest would make room
		r.Resize(admission.Limits{Workers: 1, Wait: time.Minute})
		r.mustShed(r.Check(time.Time{}), admission.NoQueue)
		if got := r.Stats(); got.Shed != [admission.Reasons]uint64{admission.PushedOut: 1} {
			r.Errorf("got %v shed, want only the one that was pushed out", got.Shed)
		}
	})
}

func TestCheckRefusesWhoeverWouldNotBeServedInTime(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 2, Queue: 9, Wait: 5 * time.Second}, func(r rig) {
		var shown admission.View
		r.Observe(func(v admission.View) { shown = v })
		within := func(d time.Duration) error { return r.Check(time.Now().Add(d)) }
		c := r.run()
		r.sleep(4 * time.Second)
		r.release(c) // so a request takes 4 s, and two workers take one every 2 s
		if err := within(time.Second); err != nil || shown.Room != 2+2 || shown.Takes != 0 {
			r.Errorf("got %v and %+v, want nil while a worker is free, room for 2 and 2 who wait", err, shown)
		}
		r.run()
		r.run()
		r.mustShed(within(6*time.Second-1), admission.Deadline) // 2 s of waiting, 4 s of work
		if err := within(6 * time.Second); err != nil || shown.Room != 2 || shown.Takes != 6*time.Second {
			r.Errorf("got %v and %+v", err, shown)
		}
		r.wait()
		r.sleep(100 * time.Millisecond)
		r.mustShed(within(8*time.Second-1), admission.Deadline) // also in overload, or who waits would be late
		r.wait()
		if shed := r.mustShed(r.Check(time.Time{}), admission.Deadline); shed.Wait != 6*time.Second || shown.Room != 0 {
			r.Errorf("got %+v and %+v", *shed, shown)
		}
	})
}

func TestMoreWorkersAreGivenToWaitersAtOnce(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 3, Wait: time.Minute}, func(r rig) {
		r.run()
		a, b, c := r.wait(), r.wait(), r.wait()
		r.Resize(admission.Limits{Workers: 3, Queue: 3, Wait: time.Minute})
		synctest.Wait()
		r.mustRun(a, b)
		r.mustWait(c)
	})
}

func TestFewerWorkersAreNotRevoked(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 3, Queue: 1, Wait: time.Minute}, func(r rig) {
		running := []*call{r.run(), r.run(), r.run()}
		r.Resize(admission.Limits{Workers: 1, Queue: 1, Wait: time.Minute})
		if got := r.Stats(); got.Busy != 3 || got.Workers != 1 {
			r.Errorf("got %+v, want 3 busy of 1", got)
		}
		next := r.wait()
		r.release(running[0])
		r.release(running[1])
		r.mustWait(next)
		r.release(running[2])
		r.mustRun(next)
	})
}

func TestASmallerQueueShedsTheNewest(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 3, Wait: time.Minute}, func(r rig) {
		r.run()
		a, b, c := r.wait(), r.wait(), r.wait()
		r.Resize(admission.Limits{Workers: 1, Queue: 1, Wait: time.Minute})
		synctest.Wait()
		r.mustWait(a)
		r.mustBeShed(b, admission.QueueFull)
		r.mustBeShed(c, admission.QueueFull)
	})
}

func TestASmallerQueueInOverloadShedsTheOldest(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 3, Wait: time.Minute}, func(r rig) {
		r.run()
		a, b, c := r.wait(), r.wait(), r.wait()
		r.sleep(100 * time.Millisecond)
		r.Resize(admission.Limits{Workers: 1, Queue: 1, Wait: time.Minute})
		synctest.Wait()
		r.mustBeShed(a, admission.PushedOut)
		r.mustBeShed(b, admission.PushedOut)
		r.mustWait(c)
	})
}

func TestAShorterWaitShedsWhoHasWaitedLonger(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 3, Wait: time.Minute}, func(r rig) {
		r.run()
		a := r.wait()
		r.sleep(10 * time.Second)
		b := r.wait()
		r.Resize(admission.Limits{Workers: 1, Queue: 3, Wait: 5 * time.Second})
		synctest.Wait()
		r.mustBeShed(a, admission.WaitTooLong)
		r.mustWait(b)
		r.sleep(5 * time.Second)
		r.mustBeShed(b, admission.WaitTooLong)
		if b.after != 5*time.Second {
			r.Errorf("shed after %v, want 5s", b.after)
		}
	})
}

// Both have come by the time that the waiter looks, and which it sees first is up to the scheduler.
func TestAWorkerThatComesInTheSameMomentAsAnotherEnd(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(cancel func()) (moved <-chan struct{})
		want error
	}{
		"is kept by who need not wait any more": {func(func()) <-chan struct{} {
			moved := make(chan struct{})
			close(moved)
			return moved
		}, nil},
		"is handed on by who is gone": {func(cancel func()) <-chan struct{} { cancel(); return nil }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, admission.Limits{Workers: 1, Queue: 1, Wait: time.Minute}, func(r rig) {
				for range 50 {
					running := r.run()
					ctx, cancel := context.WithCancel(r.Context())
					ticket, err := r.AcquireOr(ctx, time.Time{}, func() <-chan struct{} {
						running.ticket.Release()
						return test.end(cancel)
					})
					if !errors.Is(err, test.want) {
						t.Errorf("got error %v, want %v", err, test.want)
					}
					if err == nil {
						ticket.Release()
					}
					cancel()
				}
				if got := r.Stats(); got.Busy != 0 || got.Queued != 0 {
					r.Errorf("got %+v, want nobody left", got)
				}
			})
		})
	}
}
