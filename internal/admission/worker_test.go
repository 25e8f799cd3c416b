package admission_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/admission"
)

func TestTheIdlestMemberIsFirst(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 2}, func(r rig) {
		r.Add().Open("second")
		r.Add() // closed
		r.Add().Open("fourth")
		var order []string
		var calls []*call
		for range 6 {
			c := r.run()
			order = append(order, c.ticket.Value())
			calls = append(calls, c)
		}
		for i, want := range []string{"first", "second", "fourth", "first", "second", "fourth"} {
			if order[i] != want {
				r.Fatalf("got %v, want the first of those with fewest busy", order)
			}
		}
		r.release(calls[4])
		if got := r.run().ticket.Value(); got != "second" {
			r.Errorf("got %q, want second, which alone has a free worker", got)
		}
	})
}

func TestWithoutAnOpenMemberCallersWait(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 2, Wait: time.Second}, func(r rig) {
		r.first.Close()
		a, b := r.wait(), r.wait()
		r.mustBeShed(r.acquire(r.Context()), admission.QueueFull)
		r.sleep(time.Second)
		r.mustBeShed(a, admission.WaitTooLong)
		r.mustBeShed(b, admission.WaitTooLong)

		c := r.wait()
		r.first.Open("again")
		synctest.Wait()
		r.mustRun(c)
		if got := c.ticket.Value(); got != "again" {
			r.Errorf("got %q, want again", got)
		}
		r.first.Close()
		r.Resize(admission.Limits{Workers: 1})
		r.mustBeShed(r.acquire(r.Context()), admission.NoQueue)
	})
}

func TestWorkersBusyWithOldWorkStayTaken(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 2, Queue: 2, Wait: time.Minute}, func(r rig) {
		old := r.run()
		r.first.Close()
		r.first.Open("new")
		if got := r.run().ticket.Value(); got != "new" {
			r.Errorf("got %q, want new", got)
		}
		waiting := r.wait()
		if got := old.ticket.Value(); got != "first" {
			r.Errorf("got %q, want the value at admission", got)
		}
		r.release(old)
		r.mustRun(waiting)
		if got := r.first.Busy(); got != 2 {
			r.Errorf("got %d busy, want 2", got)
		}
	})
}

func TestAClosedMemberGetsNoNewWork(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 2, Wait: time.Minute}, func(r rig) {
		running, waiting := r.run(), r.wait()
		r.first.Close()
		r.release(running)
		r.mustWait(waiting)
		r.Add().Open("second")
		synctest.Wait()
		r.mustRun(waiting)
	})
}

func TestARemovedMemberIsGoneButItsTicketsAreNot(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 2, Wait: time.Minute}, func(r rig) {
		running, waiting := r.run(), r.wait()
		r.Remove(r.first)
		r.first.Open("zombie")
		synctest.Wait()
		r.mustWait(waiting)
		if got := r.Stats(); got.Busy != 1 || got.Workers != 0 {
			r.Errorf("got %+v, want 1 busy of 0", got)
		}
		r.release(running)
		r.mustWait(waiting)
		if got := r.Stats(); got.Busy != 0 {
			r.Errorf("got %+v, want none busy", got)
		}
	})
}

func TestIdleWaitsForTheWorkOfTheLastValue(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 3}, func(r rig) {
		old := r.run()
		r.first.Open("new")
		if err := r.first.Idle(r.Context()); err != nil {
			r.Errorf("nothing of the new value is in progress: got %v, want nil", err)
		}
		first, second := r.run(), r.run()
		idle := make(chan error)
		for range 2 {
			go func() { idle <- r.first.Idle(r.Context()) }()
		}
		for _, c := range []*call{first, second} {
			synctest.Wait()
			select {
			case err := <-idle:
				r.Fatalf("Idle returned %v while work is in progress", err)
			default:
			}
			r.release(c)
		}
		for range 2 {
			if err := <-idle; err != nil {
				r.Errorf("got %v, want nil", err)
			}
		}
		if got := r.first.Busy(); got != 1 {
			r.Errorf("got %d busy, want the old value's", got)
		}
		r.release(old)
		r.release(r.run()) // idle once more, and nobody waits for it
		if err := r.first.Idle(r.Context()); err != nil {
			r.Errorf("got %v, want nil", err)
		}
	})
}

func TestIdleEndsWithItsContext(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1}, func(r rig) {
		cause := errors.New("time is up")
		ctx, cancel := context.WithTimeoutCause(r.Context(), time.Second, cause)
		defer cancel()
		c := r.run()
		if err := r.first.Idle(ctx); err != cause { //nolint:errorlint // it is to be returned as is
			r.Errorf("got %v, want %v", err, cause)
		}
		r.release(c)
		if err := r.first.Idle(ctx); err != nil {
			r.Errorf("nothing is in progress: got %v, want nil", err)
		}
	})
}

func TestNothingIsLostWhenARequestPanics(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 1, Wait: time.Minute}, func(r rig) {
		running := r.run()
		waiting := r.wait()
		func() {
			defer func() {
				if recover() == nil {
					r.Error("no panic came through")
				}
			}()
			defer running.ticket.Release()
			panic("handler")
		}()
		synctest.Wait()
		r.mustRun(waiting)
	})
}
