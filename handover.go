package watt

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/watt/internal/page"
	"github.com/org/watt/internal/wire"
)

// handover passes requests that wait here on to siblings as soon as those are idle. The kernel spreads connections,
// not work: without it a request may wait in one process while another has nothing to do.
type handover struct {
	child    *child
	siblings []*neighbour

	mu       sync.Mutex
	waiting  []*move // the oldest first
	watching bool    // a goroutine looks after them
}

// neighbour is a sibling that requests may be handed to.
type neighbour struct {
	pool   wire.Pool
	slot   *page.Slot
	handed atomic.Int64 // requests that it is about to have from here, until the page shows them
}

func newHandover(c *child) *handover {
	h := &handover{child: c}
	slots := c.slots[c.app.name]
	for i := range slots {
		if i == c.birth.Instance {
			continue
		}
		n := &neighbour{slot: &slots[i]}
		n.pool.IdleTimeout = meshIdleTimeout
		n.pool.Dial = func(ctx context.Context) (net.Conn, error) {
			return c.dial(ctx, dialling{App: c.app.name, Instance: i, Handed: true})
		}
		h.siblings = append(h.siblings, n)
	}
	return h
}

// idleLocked returns the sibling with a free worker that has least to do, and one request more from then on; or nil.
func (h *handover) idleLocked() *neighbour {
	workers := int64(h.child.app.conf().Workers)
	i := idlest(len(h.siblings), func(i int) (int64, bool) {
		n := h.siblings[i]
		load := max(page.Within(&n.slot.Busy, math.MaxInt32), n.handed.Load())
		return load, load < workers && n.slot.State.Load() == slotReady && !n.slot.Doubted() && n.slot.Queued.Load() == 0
	})
	if i < 0 {
		return nil
	}
	h.siblings[i].handed.Add(1)
	return h.siblings[i]
}

// move is a request that may be handed over. As a nil pointer it is one that may not.
type move struct {
	handover *handover
	moved    chan struct{} // closed when there is a sibling for it
	to       *neighbour    // that sibling
}

// mostHandovers is how many siblings a request is handed to, one after the other, that begin something else instead.
const mostHandovers = 16

// errBusy means that a request was handed over to an instance that has got others to do in the meantime.
var errBusy = fmt.Errorf("%w: it is idle no more", ErrOverloaded)

// mover returns the move of a request. A connection that becomes something else stays where it is, and what was
// handed over is not again.
func (d *door) mover(r *http.Request, p *peer) *move {
	c := d.app.rt.child
	if c == nil || p.handed || r.Header["Upgrade"] != nil || isGRPC(r.Header) {
		return nil
	}
	return &move{handover: c.handover}
}

// full returns a sibling for a request that would be refused here, or nil.
func (m *move) full() *neighbour {
	if m == nil || m.handover.child.app.pool.Check(time.Time{}) == nil {
		return nil
	}
	m.handover.mu.Lock()
	defer m.handover.mu.Unlock()
	return m.handover.idleLocked()
}

// waits returns what is closed when the request is to be handed over. It is called when the request has to wait.
func (m *move) waits() <-chan struct{} {
	if m == nil {
		return nil
	}
	h := m.handover
	m.moved = make(chan struct{})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting = append(h.waiting, m)
	h.dispatchLocked()
	if len(h.waiting) > 0 && !h.watching {
		h.watching = true
		h.child.rt.owned.Go(h.watch)
	}
	return m.moved
}

// result is called when the wait is over. It returns the sibling that is to have the request, or nil.
func (m *move) result(moved bool) *neighbour {
	if m == nil || m.moved == nil {
		return nil
	}
	h := m.handover
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, other := range h.waiting {
		if other == m {
			h.waiting = append(h.waiting[:i], h.waiting[i+1:]...)
			return nil
		}
	}
	if moved {
		return m.to
	}
	m.to.handed.Add(-1)
	return nil
}

// watch looks for idle siblings as long as requests wait: nobody tells when one becomes so.
func (h *handover) watch() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		h.mu.Lock()
		h.dispatchLocked()
		h.watching = len(h.waiting) > 0
		over := !h.watching
		h.mu.Unlock()
		if over {
			return
		}
	}
}

func (h *handover) dispatchLocked() {
	for len(h.waiting) > 0 {
		to := h.idleLocked()
		if to == nil {
			return
		}
		m := h.waiting[0]
		h.waiting = h.waiting[1:]
		m.to = to
		close(m.moved)
	}
}
