package watt

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/org/watt/internal/direct"
)

// awaitReady asks for the ready path until the answer is 2xx.
func (g *generation) awaitReady(ctx context.Context, path string) error {
	if path == "" {
		return nil
	}
	var transport http.RoundTripper = probe{g}
	if g.listener != nil {
		transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return g.connect(ctx, "")
		}}
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := g.ask(ctx, client, path)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-g.served:
			return g.whyEnded()
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %w; the last check: %w", context.Cause(ctx), err)
		}
	}
}

func (g *generation) ask(ctx context.Context, client *http.Client, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.app.name+suffix+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("%s %w", path, answered(resp))
	}
	return nil
}

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
