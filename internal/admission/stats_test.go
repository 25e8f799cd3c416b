package admission_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/admission"
)

func TestStatsCountEveryRequestOnce(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1, Queue: 1, Wait: time.Minute}, func(r rig) {
		running := r.run()
		r.sleep(2 * time.Second)
		waiting := r.wait()
		r.acquire(r.Context()) // shed
		r.sleep(3 * time.Second)
		got := r.Stats()
		want := admission.Stats{
			Workers: 1, Busy: 1, Queued: 1, Overloaded: true,
			Admitted: 1, Shed: [admission.Reasons]uint64{admission.QueueFull: 1},
			BusyTime: 5 * time.Second, // also of what is in progress
		}
		if got != want {
			r.Errorf("got  %+v\nwant %+v", got, want)
		}

		r.release(running)
		r.sleep(time.Second)
		waiting.ticket.Discard()
		want = admission.Stats{
			Workers: 1, Admitted: 2, Shed: want.Shed,
			Served: 1, ServiceTime: 5 * time.Second,
			QueueWait: 3 * time.Second, BusyTime: 6 * time.Second,
		}
		if got := r.Stats(); got != want {
			r.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
}

func TestTheServiceTimeIsAMovingAverage(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 1}, func(r rig) {
		for _, step := range []struct{ takes, want time.Duration }{
			{8 * time.Second, 8 * time.Second}, // the first counts in full, then an eighth
			{16 * time.Second, 9 * time.Second},
			{time.Second, 8 * time.Second},
		} {
			c := r.run()
			r.sleep(step.takes)
			r.release(c)
			if got := r.Stats().ServiceTime; got != step.want {
				r.Errorf("after one of %v: got %v, want %v", step.takes, got, step.want)
			}
		}
	})
}

func TestRetryAfterIsHowLongTheQueueTakesToDrain(t *testing.T) {
	inBubble(t, admission.Limits{Workers: 2, Queue: 64, Wait: time.Hour}, func(r rig) {
		retryAfter := func(when string, want time.Duration) {
			r.Helper()
			if got := r.RetryAfter(); got != want {
				r.Errorf("%s: got %v, want %v", when, got, want)
			}
		}
		retryAfter("nothing is known", time.Second)
		var shown time.Duration
		r.Observe(func(v admission.View) { shown = v.RetryAfter })
		c := r.run()
		r.sleep(4 * time.Second)
		r.release(c)
		retryAfter("nobody waits", time.Second)
		r.run()
		r.run()
		for range 3 {
			r.wait()
		}
		retryAfter("3 wait for 2 workers of 4s each", 6*time.Second)
		if shown != 6*time.Second {
			r.Errorf("got %v shown, want 6s", shown)
		}
		r.first.Close()
		retryAfter("the member is closed, but expected back", 6*time.Second)
		for range 40 {
			r.wait()
		}
		retryAfter("43 wait", time.Minute)
		r.Remove(r.first)
		retryAfter("there is no member", time.Minute)
		synctest.Wait()
	})
}

func TestAShedErrorIsUnderstoodAtNight(t *testing.T) {
	for _, test := range []struct {
		shed admission.ShedError
		want string
	}{
		{
			admission.ShedError{Reason: admission.NoQueue, Busy: 8, Workers: 8},
			"all workers are busy: 8 of 8, and none may wait",
		},
		{
			admission.ShedError{Reason: admission.NoQueue, Busy: 3},
			"no instance is open, and none may wait for one",
		},
		{
			admission.ShedError{Reason: admission.QueueFull, Queued: 32, Workers: 8},
			"queue is full: 32 wait for 8 workers",
		},
		{
			admission.ShedError{Reason: admission.QueueFull, Queued: 1, Workers: 1},
			"queue is full: 1 waits for 1 worker",
		},
		{
			admission.ShedError{Reason: admission.WaitTooLong, Queued: 32, Wait: 5*time.Second + 123},
			"waited 5s, which is the limit: 32 wait, and no instance is open",
		},
		{
			admission.ShedError{Reason: admission.PushedOut, Queued: 32, Workers: 8, Wait: 123456789},
			"pushed out of the queue by newer requests after 123.457ms: 32 wait for 8 workers",
		},
		{
			admission.ShedError{Reason: admission.Deadline, Queued: 9, Workers: 2, Wait: 1234567890},
			"the expected wait of 1.23s is too long: 9 wait for 2 workers",
		},
		{
			admission.ShedError{Reason: -1},
			"Reason(-1): 0 wait, and no instance is open",
		},
	} {
		if got := test.shed.Error(); got != test.want {
			t.Errorf("got  %q\nwant %q", got, test.want)
		}
	}
}

func TestEveryReasonHasAName(t *testing.T) {
	seen := make(map[string]bool)
	for r := range admission.Reason(admission.Reasons) {
		name := r.String()
		if seen[name] || strings.Contains(name, "Reason") {
			t.Errorf("reason %d is called %q", r, name)
		}
		seen[name] = true
	}
}
