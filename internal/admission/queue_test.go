package admission_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/admission"
)

func TestTheQueueIsServedInOrder(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 3, Wait: time.Minute}, func(r rig) {
		running := r.run()
		a, b, c := r.wait(), r.wait(), r.wait()
		for _, next := range []*call{a, b, c} {
			r.mustWait(next)
			r.release(running)
			r.mustRun(next)
			running = next
		}
	})
}

func TestANewcomerNeverOvertakesAWaiter(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 3, Wait: time.Minute}, func(r rig) {
		running, waiting := r.run(), r.wait()
		running.ticket.Release() // and before the waiter has noticed:
		newcomer := r.wait()
		r.mustRun(waiting)
		r.release(waiting)
		r.mustRun(newcomer)
	})
}

func TestAFullQueueShedsTheNewcomer(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 2, Wait: time.Minute}, func(r rig) {
		r.run()
		a, b := r.wait(), r.wait()
		shed := r.mustBeShed(r.acquire(r.Context()), admission.QueueFull)
		if shed.Queued != 2 || shed.Workers != 1 || shed.Busy != 1 || shed.RetryAfter != time.Second {
			r.Errorf("got %+v, want 2 queued, 1 busy of 1 worker, retry after 1s", *shed)
		}
		r.mustWait(a, b)
	})
}

func TestAQueueThatHasNotBeenEmptyFor100msIsOverloadedUntilItIs(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 3, Wait: time.Minute}, func(r rig) {
		running, a := r.run(), r.wait()
		r.sleep(60 * time.Millisecond)
		b := r.wait()
		r.release(running)
		r.mustRun(a)
		r.sleep(40*time.Millisecond - 1)
		if r.Stats().Overloaded {
			r.Fatal("overloaded before 100ms")
		}
		r.sleep(1) // b has waited for 40 ms, somebody for 100
		if !r.Stats().Overloaded {
			r.Fatal("not overloaded, and the queue has not been empty")
		}
		r.release(a)
		r.mustRun(b)
		if r.Stats().Overloaded {
			r.Fatal("overloaded, and the queue is empty")
		}
	})
}

// inOverload runs test with a full second of work in progress, and with two who wait for it in an overloaded queue.
func inOverload(t *testing.T, test func(r rig, running, oldest *call)) {
	t.Helper()
	inBubble(t, admission.Limits{Workers: 1, Queue: 3, Wait: 10 * time.Second}, func(r rig) {
		first := r.run()
		r.sleep(time.Second)
		r.release(first) // so it is known that a request takes a second
		running, oldest := r.run(), r.wait()
		r.sleep(100 * time.Millisecond)
		r.wait()
		test(r, running, oldest)
	})
}

// tooLate is shed at once, since it could not wait for more than left.
func (r rig) tooLate(left time.Duration) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), left)
	defer cancel()
	r.mustBeShed(r.acquire(ctx), admission.Deadline)
}

func TestAnOverloadedQueueIsServedInOrderWhileNobodyWaitsInVain(t *testing.T) {
	inOverload(t, func(r rig, running, oldest *call) {
		r.tooLate(time.Second - 1) // in any order
		r.release(running)
		r.mustRun(oldest)
	})
}

func TestWhenSomebodyWaitsInVainItIsTheTurnOfTheNewest(t *testing.T) {
	for name, c := range map[string]struct {
		inVain func(r rig, oldest *call)
		turn   time.Duration // half of what that one could have waited
	}{
		"pushed out": {func(r rig, oldest *call) {
			r.wait()
			r.wait()
			r.mustBeShed(oldest, admission.PushedOut)
		}, 5 * time.Second},
		"for too long": {func(r rig, oldest *call) {
			r.sleep(9800 * time.Millisecond)
			r.wait()
			r.sleep(100 * time.Millisecond)
			r.mustBeShed(oldest, admission.WaitTooLong)
		}, 5 * time.Second},
		"too late": {func(r rig, _ *call) { r.tooLate(1200 * time.Millisecond) }, 600 * time.Millisecond},
		"gone": {func(r rig, _ *call) {
			ctx, cancel := context.WithCancelCause(r.Context())
			gone := r.acquire(ctx)
			r.sleep(30 * time.Millisecond)
			cancel(errHungUp)
			synctest.Wait()
			r.mustFail(gone, errHungUp)
		}, 15 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			inOverload(t, func(r rig, running, oldest *call) {
				c.inVain(r, oldest)
				newest := r.wait()
				r.sleep(c.turn - 1)
				r.release(running)
				r.mustRun(newest)
			})
			inOverload(t, func(r rig, running, oldest *call) {
				c.inVain(r, oldest)
				newest := r.wait()
				r.sleep(c.turn)
				r.release(running)
				r.mustWait(newest)
			})
		})
	}
}

func TestTheTurnOfTheNewestEndsWithTheQueue(t *testing.T) {
	inOverload(t, func(r rig, running, oldest *call) {
		r.wait()
		newest := r.wait()
		r.mustBeShed(oldest, admission.PushedOut) // so it is their turn for 5 s
		r.release(running)
		r.mustRun(newest)
		r.Refuse(errHungUp) // empties it
		r.Refuse(nil)
		first, second := r.wait(), r.wait()
		r.sleep(100 * time.Millisecond)
		r.release(newest)
		r.mustRun(first)
		r.mustWait(second)
	})
}

func TestTurnsOfTheNewestGetLongerWhileTheyAreNeededAgainAndAgain(t *testing.T) {
	const first = 600 * time.Millisecond
	inBubble(t, admission.Limits{Workers: 1, Queue: 20, Wait: 10 * time.Second}, func(r rig) {
		running := r.run()
		r.sleep(time.Second)
		r.release(running)
		running = r.run()
		var waiting []*call // oldest first
		for range 10 {
			waiting = append(waiting, r.wait())
		}
		r.sleep(100 * time.Millisecond)
		turn := func(want time.Duration) {
			r.Helper()
			r.tooLate(2 * first)
			r.sleep(want - 1)
			newest := r.wait()
			r.release(running)
			r.mustRun(newest)
			r.sleep(1)
			r.release(newest)
			r.mustRun(waiting[0])
			running, waiting = waiting[0], waiting[1:]
		}
		turn(first)
		turn(2 * first)
		turn(4 * first)
		r.sleep(4*first + 1)
		turn(first)
	})
}

func TestInOverloadANewcomerPushesOutTheOldest(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 2, Wait: time.Minute}, func(r rig) {
		r.run()
		a, b := r.wait(), r.wait()
		r.sleep(100 * time.Millisecond)
		c := r.wait()
		shed := r.mustBeShed(a, admission.PushedOut)
		if shed.Wait != 100*time.Millisecond {
			r.Errorf("got a wait of %v, want 100ms", shed.Wait)
		}
		r.mustWait(b, c)
	})
}

func TestAQueueOfOneStaysOverloadedWhenItsOnlyWaiterIsPushedOut(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 1, Wait: time.Minute}, func(r rig) {
		r.run()
		a := r.wait()
		r.sleep(100 * time.Millisecond)
		b := r.wait()
		c := r.wait()
		r.mustBeShed(a, admission.PushedOut)
		r.mustBeShed(b, admission.PushedOut)
		r.mustWait(c)
	})
}

func TestNobodyWaitsLongerThanTheLimit(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 3, Wait: time.Second}, func(r rig) {
		r.run()
		a := r.wait()
		r.sleep(300 * time.Millisecond)
		b := r.wait()
		r.sleep(10 * time.Second)
		for _, c := range []*call{a, b} {
			shed := r.mustBeShed(c, admission.WaitTooLong)
			if c.after != time.Second || shed.Wait != time.Second {
				r.Errorf("shed after %v, and says %v, want 1s", c.after, shed.Wait)
			}
		}
	})
}

func TestTheTimerServesWhoeverIsTheOldest(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 3, Wait: time.Second}, func(r rig) {
		running, a := r.run(), r.wait()
		r.sleep(300 * time.Millisecond)
		b := r.wait()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		r.acquire(ctx)
		cancel() // so the one the timer was set for, and the newest, have left
		r.first.Close()
		r.release(running)
		r.mustWait(a)
		r.Resize(admission.Limits{Workers: 1, Queue: 3, Wait: 2 * time.Second})
		r.sleep(1700 * time.Millisecond)
		r.mustBeShed(a, admission.WaitTooLong)
		r.mustWait(b)
		r.sleep(300 * time.Millisecond)
		r.mustBeShed(b, admission.WaitTooLong)
		if b.after != 2*time.Second {
			r.Errorf("shed after %v, want 2s", b.after)
		}
	})
}

func TestNoTimerIsArmedWhileTheQueueIsEmpty(t *testing.T) {
	limits := admission.Limits{Workers: 1, Queue: 3, Wait: time.Second}
	for name, empty := range map[string]func(r rig, running *call, cancel func()){
		"granted":   func(r rig, running *call, _ func()) { r.release(running) },
		"cancelled": func(_ rig, _ *call, cancel func()) { cancel() },
		"refused":   func(r rig, _ *call, _ func()) { r.Refuse(context.Canceled) },
		"expired":   func(r rig, _ *call, _ func()) { r.sleep(time.Second) },
		"resized":   func(r rig, _ *call, _ func()) { r.Resize(admission.Limits{Workers: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, limits, func(r rig) {
				ctx, cancel := context.WithCancel(r.Context())
				defer cancel()
				running := r.run()
				r.mustWait(r.acquire(ctx))
				empty(r, running, cancel)
				synctest.Wait()
				if got := r.Stats().Queued; got != 0 {
					r.Fatalf("got %d queued, want none", got)
				}
				if r.DisarmTimer() {
					r.Error("the timer is armed")
				}
			})
		})
	}
}

func TestWhatWouldWaitBeyondItsDeadlineIsShedAtOnce(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 2, Queue: 9, Wait: time.Minute}, func(r rig) {
		within := func(d time.Duration) *call {
			ctx, cancel := context.WithTimeout(r.Context(), d)
			r.Cleanup(cancel)
			return r.acquire(ctx)
		}
		c := r.run()
		r.sleep(4 * time.Second)
		r.release(c) // so a request takes 4 s, and two workers take one every 2 s
		r.mustRun(within(time.Second))
		r.mustRun(within(time.Second)) // neither has to wait

		shed := r.mustBeShed(within(2*time.Second-1), admission.Deadline)
		if shed.Wait != 2*time.Second {
			r.Errorf("got an expected wait of %v, want 2s", shed.Wait)
		}
		r.mustWait(within(2 * time.Second))
		r.mustBeShed(within(4*time.Second-1), admission.Deadline)
		r.mustWait(within(4 * time.Second))

		r.sleep(100 * time.Millisecond)
		r.mustBeShed(within(2*time.Second), admission.Deadline)
		r.mustWait(within(2 * time.Second)) // it is the newest's turn
		r.mustBeShed(within(2*time.Second-1), admission.Deadline)
	})
}

func TestWhoComesBackIsExpectedToBeServedInItsPlace(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 9, Wait: time.Minute}, func(r rig) {
		within := func(d time.Duration, since time.Time) *call {
			ctx, cancel := context.WithTimeout(r.Context(), d)
			r.Cleanup(cancel)
			return r.acquireSince(ctx, since)
		}
		c := r.run()
		r.sleep(time.Second)
		r.release(c) // so a request takes a second
		first := time.Now()
		running := r.run()
		r.sleep(50 * time.Millisecond)
		later := []*call{r.wait(), r.wait()}

		shed := r.mustBeShed(within(time.Second-1, first), admission.Deadline)
		if shed.Wait != time.Second {
			r.Errorf("got an expected wait of %v, want 1s", shed.Wait)
		}
		back := within(time.Second, first)
		r.mustWait(back)
		running.ticket.Discard() // so that a request still takes a second
		synctest.Wait()
		r.mustRun(back)
		r.mustWait(later...)

		r.sleep(100 * time.Millisecond)
		r.mustBeShed(within(2*time.Second, time.Now()), admission.Deadline)
		r.mustWait(within(time.Second, time.Now())) // it is the newest's turn, and not that of who has come before
		r.mustBeShed(within(4*time.Second-1, first), admission.Deadline)
		r.mustWait(within(4*time.Second, first))
	})
}

func TestDeadlinesAreNotJudgedBeforeTheFirstRelease(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 9, Wait: time.Minute}, func(r rig) {
		c := r.run()
		r.sleep(time.Minute)
		c.ticket.Discard() // says nothing about how long a request takes
		r.run()
		ctx, cancel := context.WithTimeout(r.Context(), time.Millisecond)
		defer cancel()
		waiting := r.acquire(ctx)
		r.mustWait(waiting)
		r.sleep(time.Millisecond)
		r.mustFail(waiting, context.DeadlineExceeded)
	})
}

func TestAWaiterThatIsMovedLeavesTheQueueAndTheCounts(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 2, Wait: time.Minute}, func(r rig) {
		running, moved := r.run(), make(chan struct{})
		c := &call{done: make(chan struct{})}
		go func() {
			defer close(c.done)
			c.ticket, c.err = r.AcquireOr(r.Context(), time.Time{}, func() <-chan struct{} { return moved })
		}()
		synctest.Wait()
		next := r.wait()
		r.mustWait(c)
		close(moved)
		synctest.Wait()
		r.mustFail(c, admission.ErrMoved)
		r.release(running)
		r.mustRun(next)
		if s := r.Stats(); s.Admitted != 2 || s.Abandoned != 0 || s.Shed != [admission.Reasons]uint64{} {
			t.Errorf("got %+v", s)
		}
	})
}

func TestWhoNeedNotWaitIsNotAsked(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 1, Wait: time.Minute}, func(r rig) {
		ask := func() <-chan struct{} { t.Error("asked"); return nil }
		if _, err := r.AcquireOr(r.Context(), time.Time{}, ask); err != nil {
			t.Error(err)
		}
		r.wait()
		_, err := r.AcquireOr(r.Context(), time.Time{}, ask)
		r.mustShed(err, admission.QueueFull)
	})
}

func TestAWaiterThatIsMovedWhenItHasAWorkerKeepsIt(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 1, Wait: time.Minute}, func(r rig) {
		running, moved := r.run(), make(chan struct{})
		c := &call{done: make(chan struct{})}
		go func() {
			defer close(c.done)
			c.ticket, c.err = r.AcquireOr(r.Context(), time.Time{}, func() <-chan struct{} { return moved })
		}()
		synctest.Wait()
		running.ticket.Release() // and before the waiter has noticed:
		close(moved)
		synctest.Wait()
		r.mustRun(c)
		r.release(c)
		r.run()
	})
}
