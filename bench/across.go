package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	neturl "net/url"
	"time"

	wattlib "github.com/org/watt"
)

// started starts a mill.
func started(ctx context.Context, mill wattlib.App) (rt *wattlib.Runtime, end func(), err error) {
	rt = milling(mill)
	return rt, func() { _ = rt.Shutdown(context.WithoutCancel(ctx)) }, rt.Start(ctx) // if the end fails, the next case still counts
}

// down calls a child from the first process.
func down(ctx context.Context) (session, error) {
	rt, end, err := started(ctx, wattlib.App{})
	if err != nil {
		return session{}, err
	}
	return repeat(callsTo(rt.Env().Client.Do, url("mill")+"small"), end), nil
}

// downTCP calls a server in another process.
func downTCP(ctx context.Context) (session, error) {
	servers, err := startServers(ctx, app)
	if err != nil {
		return session{}, err
	}
	do, closeIdle := overTCP(servers[0].address)
	return repeat(callsTo(do, "http://app/"), func() { closeIdle(); endServers(servers) }), nil
}

// up has a child call an app in the first process.
func up(ctx context.Context) (session, error) {
	rt, end, err := started(ctx, wattlib.App{})
	if err != nil {
		return session{}, err
	}
	return calling(rt, neturl.Values{"to": {url("store")}}, end), nil
}

// upTCP has the same child call a server in the first process.
func upTCP(ctx context.Context) (session, error) {
	rt, end, err := started(ctx, wattlib.App{})
	if err != nil {
		return session{}, err
	}
	address, closeServer, err := playServer(answer(document(600), "application/json")) //nolint:contextcheck // it is closed by its own end
	if err != nil {
		end()
		return session{}, err
	}
	return calling(rt, neturl.Values{"to": {"http://app/"}, "by": {address}}, func() { end(); closeServer() }), nil
}

// calling has the mill call, and tells what it has measured.
func calling(rt *wattlib.Runtime, what neturl.Values, end func()) session {
	return session{close: end, measure: func(ctx context.Context, d time.Duration) (sample, error) {
		what.Set("for", d.String())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url("mill")+"call?"+what.Encode(), http.NoBody)
		if err != nil {
			return sample{}, err
		}
		resp, err := rt.Env().Client.Do(req)
		if err != nil {
			return sample{}, err
		}
		defer resp.Body.Close()
		var got [2]float64
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
			return sample{}, fmt.Errorf("%s: %w", resp.Status, err)
		}
		return sample{value: got[0], allocs: got[1]}, nil
	}}
}
