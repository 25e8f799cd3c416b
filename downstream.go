package watt

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Downstream counts the time until done is called as time that the request of ctx waits for another app: see
// [Status.DownstreamTime]. Calls by Env.Client count by themselves; this is for other ways to wait, such as gRPC over
// Env.Dial, or a call that is shared with another request. Only the first call of done has an effect.
func Downstream(ctx context.Context) (done func()) {
	q := requestOf(ctx)
	if q == nil {
		return func() {}
	}
	q.downstream.begin(time.Now())
	return sync.OnceFunc(func() { q.waited(time.Now()) })
}

// waited ends a wait for another app that [downstream] has begun.
func (q *request) waited(now time.Time) { q.app.waits.over.Add(int64(q.downstream.end(now))) }

// waits is the time that an app's requests have waited for other apps.
type waits struct {
	over atomic.Int64 // nanoseconds, of waits that are

	mu   sync.Mutex
	of   map[*requests]bool // where there may be more, in progress
	told time.Duration
}

// follow begins to look at requests in progress, or ends it.
func (w *waits) follow(l *requests, begin bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !begin {
		delete(w.of, l)
		return
	}
	if w.of == nil {
		w.of = make(map[*requests]bool)
	}
	w.of[l] = true
}

// sum returns the time up to now. It never goes back: what has just ended may be missing.
func (w *waits) sum() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum, now := time.Duration(w.over.Load()), time.Now()
	for l := range w.of {
		sum += l.waiting(now)
	}
	w.told = max(w.told, sum)
	return w.told
}

// downstream is the wait of a request for other apps while it holds its worker. Calls at the same time count once.
// The zero value is ready.
type downstream struct {
	mu    sync.Mutex
	calls int
	since time.Time // when there was none
	over  bool      // what comes now is not counted
}

func (d *downstream) begin(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calls++; d.calls == 1 {
		d.since = now
	}
}

// end returns how long the wait was, if it is over with this call.
func (d *downstream) end(now time.Time) (waited time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calls == 1 {
		waited = d.waitedLocked(now)
	}
	d.calls--
	return waited
}

// stop returns how long the wait that goes on has been so far, if there is one, and lets nothing more be counted.
func (d *downstream) stop(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	waited := d.waitedLocked(now)
	d.over = true
	return waited
}

// waited returns how long the wait is up to now, if there is one.
func (d *downstream) waited(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waitedLocked(now)
}

func (d *downstream) waitedLocked(now time.Time) time.Duration {
	if d.calls == 0 || d.over {
		return 0
	}
	return max(0, now.Sub(d.since))
}
