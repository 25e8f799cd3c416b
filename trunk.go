package watt

import (
	"errors"
	"net/http"

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

// carry sends req by the trunk to an instance.
func (c *call) carry(req *http.Request, by *trunk.Client) (*http.Response, error) {
	return orRefusal(by.RoundTrip(c.trace().addTo(req), c.by))
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
