package watt

import (
	"context"
	"net/http"

	"github.com/org/watt/internal/direct"
	"github.com/org/watt/internal/trunk"
)

// exchanged is a request that no server of net/http has read, and its exchange, allocated in one piece: of 1024 bytes, as
// long as it, and [carried], has no more than 1016, to which Go adds 8; else of 1152.
type exchanged struct {
	request
	exchange direct.Exchange
}

// bind ties both to r, which the exchange has made of the caller's request, and which comes from there.
func (b *exchanged) bind(r *http.Request, from string) {
	r.RemoteAddr = from
	delete(r.Header, headerTimeout)
	b.describe(r)
	b.request.exchange = &b.exchange
	b.answer.answer = answer{ResponseWriter: &b.exchange, request: &b.request}
}

// serveCall serves a call of this process, without a wire, with the worker that it has taken.
func (d *door) serveCall(c *call, req *http.Request) (*http.Response, error) {
	q, r := d.received(c, req)
	return orRefusal(q.exchange.RoundTrip(r, c.by, q))
}

// received makes what the handler gets of a call. It is not a part of serveCall, where its frame would be on the caller's
// stack while that waits: the stack would have to grow for a call.
func (d *door) received(c *call, req *http.Request) (*request, *http.Request) {
	c.holds = false // the request does
	both := &exchanged{request: request{app: d.app, peer: &c.mesh.peer, call: c, by: c.by, ticket: c.ticket, holds: aWorker, gen: c.ticket.Value()}}
	q := &both.request
	both.exchange.Common = &d.app.direct
	q.base, q.arrived = d.base, c.began
	q.deadline, _ = c.ctx.Deadline()
	r := both.exchange.Request(q, req)
	c.trace().set(r.Header)
	both.bind(r, c.mesh.address)
	return q, r
}

// carried is a call from another process, as it is served here.
type carried struct {
	exchanged
	door *door
	by   *trunk.Incoming
}

// serveCarried serves one of them.
func (d *door) serveCarried(c *trunk.Incoming, p *peer, from string) {
	direct.MakeRoom()
	both := &carried{exchanged: exchanged{request: request{app: d.app, peer: p}}, door: d, by: c}
	q, x := &both.request, &both.exchange
	x.Common = &d.app.direct
	q.base, q.arrived = d.base, c.Came
	r := c.Request(q)
	if r == nil {
		return
	}
	q.deadline = c.Deadline
	x.Given(r)
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
