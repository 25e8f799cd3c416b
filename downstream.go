package watt

import (
	"context"
	"sync"
	"time"
)

// Downstream counts, until done is called, as time that the request of ctx waits for another app: see
// [Status.DownstreamTime]. Calls by Env.Client count by themselves; this is for what waits otherwise, such as gRPC over
// Env.Dial, or who shares the call of another request. Only the first call of done has an effect.
func Downstream(ctx context.Context) (done func()) {
	q := requestOf(ctx)
	if q == nil {
		return func() {}
	}
	q.downstream.begin(time.Now())
	return sync.OnceFunc(func() { q.downstream.end(time.Now()) })
}

// downstream is the time that a request spends in calls of other apps while it holds its worker. Calls at the
// same time count once. The zero value is ready.
type downstream struct {
	mu    sync.Mutex
	calls int
	since time.Time // when there was none
	total time.Duration
	over  bool // what comes now is not counted
}

func (d *downstream) begin(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calls++; d.calls == 1 {
		d.since = now
	}
}

func (d *downstream) end(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calls--; d.calls == 0 {
		d.total += now.Sub(d.since)
	}
}

// sum returns the time, once; a call that goes on counts up to now.
func (d *downstream) sum() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return 0
	}
	d.over = true
	if d.calls > 0 {
		d.total += time.Since(d.since)
	}
	return d.total
}
