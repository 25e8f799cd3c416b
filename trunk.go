package watt

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/direct"
	"github.com/org/watt/internal/trunk"
)

// Calls between processes that need no connection of their own share one: their requests are handed over as they are, and
// served on the other side as if they had been made there.

// byTrunk reports whether a request to an instance in another process goes over the connection that calls share: not if
// it cannot, or its answer is expected to be long.
func (c *call) byTrunk(req *http.Request) bool {
	if c.app.conf().Serve != nil || !direct.Takes(req) || !trunk.Takes(req) {
		return false
	}
	c.length = c.edge.lengths.of(req.URL.Path)
	return !c.edge.lengths.long(c.length)
}

// noteLength notes, once, whether the answer is long, if that matters.
func (c *call) noteLength(long bool) {
	if c.length != nil {
		c.edge.lengths.note(c.length, long)
		c.length = nil
	}
}

// carry sends req by the trunk to an instance.
func (c *call) carry(req *http.Request, by *trunk.Client) (*http.Response, error) {
	return orRefusal(by.RoundTrip(c.trace().addTo(req), c.by))
}

// carried is a call from another process, as it is served here.
type carried struct {
	exchanged
	door *door
	by   *trunk.Incoming
}

// serveTrunk serves the calls that come over a connection from another process.
func (d *door) serveTrunk(conn *foreign) {
	p := &peer{caller: conn.what.Caller}
	from := conn.RemoteAddr().String()
	conn.trunk = trunk.NewServer(conn.Conn, &d.app.rt.buffers, func(c *trunk.Incoming) { d.serveCarried(c, p, from) })
	d.callers.enter(conn)
	d.app.rt.owned.Go(func() {
		defer func() { _ = conn.Close() }()
		if err := conn.trunk.Serve(); errors.Is(err, trunk.ErrMalformed) {
			d.app.log.Warn("a connection from another process was cut", zap.String("caller", p.caller), zap.Error(err))
		}
	})
}

// serveCarried serves one of them.
func (d *door) serveCarried(c *trunk.Incoming, p *peer, from string) {
	direct.MakeRoom()
	both := &carried{exchanged: exchanged{request: request{app: d.app, peer: p}}, door: d, by: c}
	q, x := &both.request, &both.exchange
	x.Common = &d.app.direct
	q.base, q.deadline, q.arrived = d.base, c.Deadline, time.Now()
	r := x.Given(q, c.Request)
	both.bind(r, from)
	q.startTimer()
	var inform func(int, http.Header)
	if c.Informs {
		inform = c.Inform
	}
	x.Serve(r, both, both.answered, inform)
}

// Serve implements [direct.Callee].
func (c *carried) Serve(r *http.Request) {
	c.by.OnGone(c.exchange.Abandon)
	c.door.dispatch(&c.exchange, r, &c.request)
}

// PeerClosed ends the context of a request whose caller has gone.
func (c *carried) PeerClosed() { c.cancel(context.Canceled) }

// answered sends the answer, or the beginning of one.
func (c *carried) answered(resp *http.Response, err error) {
	var body []byte
	whole := false
	if err == nil {
		body, whole = c.exchange.Held()
	}
	c.by.Answer(resp, body, whole, err)
}
