package watt

import (
	"context"
	"net/http"
	"time"

	"github.com/org/watt/internal/direct"
)

// probe asks the handler of one generation whether it is ready, outside admission.
type probe struct{ *generation }

// RoundTrip implements [http.RoundTripper].
func (p probe) RoundTrip(req *http.Request) (*http.Response, error) {
	x := &direct.Exchange{Common: &p.app.direct}
	ctx, cancel := context.WithCancel(p.ctx)
	r := x.Request(ctx, req)
	r.RemoteAddr = address("").String()
	return x.RoundTrip(r, time.Time{}, &probed{probe: p, exchange: x, end: cancel})
}

// probed is the handler's side of a probe.
type probed struct {
	probe
	exchange *direct.Exchange
	end      context.CancelFunc
}

// Serve has the handler answer.
func (p *probed) Serve(r *http.Request) {
	defer p.end()
	var err error
	defer func() {
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}()
	defer p.env.recovered("the readiness check", &err)
	p.handler.ServeHTTP(p.exchange, r)
}

// PeerClosed ends the request's context.
func (p *probed) PeerClosed() { p.end() }
