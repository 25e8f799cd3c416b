package watt

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/page"
)

// States of an instance in the page.
const (
	slotReady  = 1 // it may be given work
	slotSilent = 2 // it shows no sign of life
)

// candidates are the slots of the instances of an app that may be given work.
type candidates []*page.Slot

// check returns an error if no instance would serve a request in time. Without any, a call waits for one. Trying again
// makes sense as soon as one has served those who wait at it.
func (c candidates) check(by time.Time) error {
	if len(c) == 0 {
		return nil
	}
	left, after := int64(math.MaxInt64), int64(time.Minute)
	if !by.IsZero() {
		left = int64(time.Until(by))
	}
	for _, slot := range c {
		if slot.Room.Load() > 0 && page.Within(&slot.Takes, math.MaxInt64) <= left {
			return nil
		}
		after = min(after, page.Within(&slot.RetryAfter, after))
	}
	return &CallError{RetryAfter: scattered(time.Duration(after)), Err: fmt.Errorf("%w: it has no room in time", ErrOverloaded)}
}

// few returns how many of something a child shows.
func few(n *atomic.Int64) int { return int(page.Within(n, math.MaxInt32)) }

// showing shows in the page how busy a pool is.
func showing(slot *page.Slot) func(admission.View) {
	return func(v admission.View) {
		slot.Busy.Store(int64(v.Busy))
		slot.Queued.Store(int64(v.Queued))
		slot.Room.Store(int64(v.Room))
		slot.Takes.Store(int64(v.Takes))
		slot.RetryAfter.Store(int64(v.RetryAfter))
	}
}

// show shows in the page how busy the app is, until the process ends: at once what others decide by, the counters soon
// after.
func (c *child) show() {
	c.app.pool.Observe(showing(c.slot))
	go func() {
		for range time.Tick(beatEvery) {
			c.showCounters()
			c.slot.Beat.Add(1)
		}
	}()
}

// showCounters shows what is counted.
func (c *child) showCounters() {
	slot := c.slot
	var s Status
	c.app.place.count(&s)
	slot.Conns.Store(int64(s.Conns))
	slot.PublicConns.Store(int64(s.PublicConns))
	slot.Streams.Store(int64(s.Streams))
	slot.Upgraded.Store(int64(s.Upgraded))
	overloaded := int64(0)
	if s.Overloaded {
		overloaded = 1
	}
	slot.Overloaded.Store(overloaded) // once: it may be read at any time
	pool := c.app.pool.Stats()
	c.app.storeAdmission(&pool, &slot.Admission)
}
