package watt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/page"
	"github.com/org/watt/internal/wire"
)

// Headers of a request that a sibling has handed over. They are believed on its connections only.
const (
	headerCaller = "X-Watt-Caller" // the app that has made it, if one has
	headerRemote = "X-Watt-Remote" // the address that it came from
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
	handed atomic.Int64 // requests that it has from here; the page shows them a moment later
}

func newHandover(c *child) *handover {
	h := &handover{child: c}
	where := c.slots[c.app.name]
	for i := range where.Len {
		if i == c.birth.Instance {
			continue
		}
		n := &neighbour{slot: c.page.Slot(where.First + i)}
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
	var idle *neighbour
	least := int64(h.child.app.conf().Workers)
	for _, n := range h.siblings {
		if n.slot.State.Load() != slotReady || n.slot.Queued.Load() != 0 {
			continue
		}
		load := max(page.Within(&n.slot.Busy, math.MaxInt32), n.handed.Load())
		if load < least || idle != nil && load == least && rand.N(2) == 0 {
			idle, least = n, load
		}
	}
	if idle != nil {
		idle.handed.Add(1)
	}
	return idle
}

// move is a request that may be handed over. As a nil pointer it is one that may not.
type move struct {
	handover *handover
	moved    chan struct{} // closed when there is a sibling for it
	to       *neighbour    // that sibling
}

// mover returns the move of a request. A connection that becomes something else stays where it is, and what was
// handed over once is not again.
func (d *door) mover(r *http.Request, p *peer) *move {
	c := d.app.rt.child
	if c == nil || p.handed || r.Header["Upgrade"] != nil || isGRPC(r.Header) {
		return nil
	}
	return &move{handover: c.handover}
}

// full returns a sibling for a request that would be refused here, or nil.
func (m *move) full() *neighbour {
	if m == nil || m.handover.child.app.pool.Check() == nil {
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

// settled is called when the wait is over. It returns the sibling that is to have the request, or nil.
func (m *move) settled(moved bool) *neighbour {
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

// RoundTrip implements [http.RoundTripper]: the request is the sibling's, or was refused at its door.
func (n *neighbour) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := n.pool.RoundTrip(req, time.Time{}, nil)
	if err == nil {
		err = doorRefusal(resp)
	}
	return resp, err
}

// pass has a sibling serve the request. It reports false, and the request is as it was, if that has not begun.
func (h *handover) pass(to *neighbour, r *http.Request, p *peer, q *request) bool {
	defer to.handed.Add(-1)
	begun, body := true, rewind(r.Body)
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		Transport:     to,
		ErrorLog:      zap.NewStdLog(h.child.app.log),
		Rewrite:       func(pr *httputil.ProxyRequest) { h.rewrite(pr, p, q.deadline, body) },
		ModifyResponse: func(*http.Response) error {
			q.intake.settle()
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			whole := body.restart()
			if begun = whole == nil || !untouched(err) && !errors.Is(err, wire.ErrNotSent); begun {
				h.child.app.log.Warn("a sibling has failed a request that was handed over", zap.Error(err))
				WriteError(w, h.failure(err))
				return
			}
			r.Body = whole
		},
	}
	proxy.ServeHTTP(q.answer.ResponseWriter, r.WithContext(q))
	if begun {
		h.child.app.tallies.instance(h.child.birth.Instance).HandedOver.Add(1)
	}
	return begun
}

// failure explains why a sibling has not served what it has begun to.
func (h *handover) failure(err error) error {
	if lost(err) {
		err = fmt.Errorf("%w: %w", ErrInstanceDied, err)
	}
	if call, known := errors.AsType[*CallError](err); known {
		return call
	}
	return &CallError{App: h.child.app.name, Started: true, Err: err}
}

// rewrite makes the request what the sibling is sent: as it is, and from whom.
func (h *handover) rewrite(pr *httputil.ProxyRequest, p *peer, deadline time.Time, body *rewindable) {
	in, out := pr.In, pr.Out
	out.URL = &url.URL{Scheme: "http", Host: h.child.app.name + suffix, Path: in.URL.Path, RawPath: in.URL.RawPath, RawQuery: in.URL.RawQuery}
	out.Host = in.Host
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v := in.Header[name]; v != nil {
			out.Header[name] = v
		}
	}
	out.Header.Set(headerCaller, p.caller)
	out.Header.Set(headerRemote, in.RemoteAddr)
	setRemaining(out.Header, deadline)
	if out.Body != nil && out.Body != http.NoBody {
		out.Body = body.restart()
		out.GetBody = body.again
	}
}

// setRemaining says in a request's headers what is left until the deadline, if there is one.
func setRemaining(h http.Header, deadline time.Time) {
	if !deadline.IsZero() {
		h.Set(headerTimeout, strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	}
}

// accepted makes a request that was handed over what it was.
func (p *peer) accepted(r *http.Request) *peer {
	own := &peer{caller: first(r.Header, headerCaller), handed: true}
	if from := first(r.Header, headerRemote); from != "" {
		r.RemoteAddr = from
	}
	delete(r.Header, headerCaller)
	delete(r.Header, headerRemote)
	return own
}
