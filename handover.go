package watt

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"

	"go.uber.org/zap"

	"github.com/org/watt/internal/wire"
)

// Headers of a request that a sibling has handed over. They are believed on its connections only.
const (
	headerCaller = "X-Watt-Caller" // the app that has made it, if one has
	headerRemote = "X-Watt-Remote" // the address that it came from
)

// handover passes requests that would have to wait here on to siblings that are idle. The kernel spreads connections,
// not work: without it a request may wait in one process while another has nothing to do.
type handover struct {
	child *child
	pools map[int]*wire.Pool // by instance
}

func newHandover(c *child) *handover {
	h := &handover{child: c, pools: make(map[int]*wire.Pool)}
	where := c.slots[c.app.name]
	for i := range where.Len {
		if i == c.birth.Instance {
			continue
		}
		h.pools[i] = &wire.Pool{IdleTimeout: meshIdleTimeout, Dial: func(ctx context.Context) (net.Conn, error) {
			return c.dial(ctx, dialling{App: c.app.name, Instance: i, Handed: true})
		}}
	}
	return h
}

// idle returns the connections to a sibling with a free worker, or nil.
func (h *handover) idle() *wire.Pool {
	where, workers := h.child.slots[h.child.app.name], int64(h.child.app.conf().Workers)
	for i, pool := range h.pools {
		slot := h.child.page.Slot(where.First + i)
		if slot.State.Load() == slotReady && slot.Busy.Load() < workers && slot.Queued.Load() == 0 {
			return pool
		}
	}
	return nil
}

// take serves a request elsewhere, if it would have to wait here and need not there. A connection that becomes
// something else stays where it is, and what was handed over once is not again.
func (h *handover) take(w http.ResponseWriter, r *http.Request, p *peer) bool {
	if p.handed || r.Header["Upgrade"] != nil || !h.child.app.pool.Full() {
		return false
	}
	to := h.idle()
	if to == nil {
		return false
	}
	h.child.app.tallies.instance(h.child.birth.Instance).HandedOver.Add(1)
	h.proxy(to, p).ServeHTTP(w, r)
	return true
}

// proxy passes a request on as it is.
func (h *handover) proxy(to *wire.Pool, p *peer) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		FlushInterval: -1,
		Transport:     handed{to},
		ErrorLog:      zap.NewStdLog(h.child.app.log),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL = &url.URL{Scheme: "http", Host: h.child.app.name + suffix, Path: pr.In.URL.Path, RawPath: pr.In.URL.RawPath, RawQuery: pr.In.URL.RawQuery}
			pr.Out.Host = pr.In.Host
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v := pr.In.Header[name]; v != nil {
					pr.Out.Header[name] = v
				}
			}
			pr.Out.Header.Set(headerCaller, p.caller)
			pr.Out.Header.Set(headerRemote, pr.In.RemoteAddr)
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			h.child.app.log.Warn("a sibling has failed a request that was handed over", zap.Error(err))
			WriteError(w, &CallError{App: h.child.app.name, Started: true, Err: errors.Join(ErrInstanceDied, err)})
		},
	}
}

// handed is the transport of requests that are handed over.
type handed struct{ *wire.Pool }

// RoundTrip implements [http.RoundTripper].
func (t handed) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.Pool.RoundTrip(req, nil)
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
