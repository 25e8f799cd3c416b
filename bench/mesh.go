package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"

	wattlib "github.com/org/watt"
)

// The mesh group compares whole HTTP calls from one part of a program to another.

// hosts are the three servers that a fan-out calls; other cases call the first.
func hosts() []string { return []string{"orders", "users", "stock"} }

func meshBenchmarks(cfg config) []benchmark {
	small, large := document(600), picture(cfg.large)
	bars := map[string][]bar{
		"mesh/get-small/c=1":  {vsTCP(0.35), vsInMemory(0.80)},
		"mesh/get-small/c=32": {vsTCP(0.30), vsInMemory(0.75)},
		"mesh/get-1MiB/c=32":  {vsTCP(0.12), vsInMemory(1.1)},
		"mesh/fanout-3/c=32":  {vsTCP(0.32)},
	}
	var all []benchmark
	for _, m := range []struct {
		name    string
		handler http.Handler
		call    func(send) op
	}{
		{"get-small", answer(small, "application/json"), func(s send) op { return get(s, url("orders"), small) }},
		{"get-1MiB", answer(large, "image/png"), func(s send) op { return get(s, url("orders"), large) }},
		{"post-1MiB", count(), func(s send) op { return post(s, url("orders"), large) }},
		{"fanout-3", answer(small, "application/json"), func(s send) op { return fanOut(s, small) }},
		{"serve-small", answer(small, "application/json"), func(s send) op { return get(s, url("orders"), small) }},
	} {
		for _, c := range []int{1, 32} {
			name := fmt.Sprintf("mesh/%s/c=%d", m.name, c)
			connect := connectHandlers
			if m.name == "serve-small" {
				connect = connectServes
			}
			contenders := callers(connect, m.handler, m.call, c)
			if m.name == "post-1MiB" {
				// Over bufconn, whose timeouts net/http does not recognize, its server answers some with 400.
				contenders = slices.DeleteFunc(contenders, func(c contender) bool { return c.name == "bufconn" })
			}
			all = append(all, benchmark{name: name, unit: "ns/op", bars: bars[name], contenders: contenders})
		}
	}
	return all
}

// connect makes three servers with the same handler reachable.
type connect func(context.Context, http.Handler) (send, func(), error)

// callers are the ways to reach three servers with the same handler, each called by c goroutines.
func callers(mesh connect, h http.Handler, call func(send) op, c int) []contender {
	contend := func(name string, connect connect) contender {
		return contender{name: name, start: func(ctx context.Context) (session, error) {
			s, end, err := connect(ctx, h)
			if err != nil {
				return session{}, err
			}
			ops := make([]op, c)
			for i := range ops {
				ops[i] = call(s)
			}
			return repeat(ops, end), nil
		}}
	}
	all := []contender{contend(watt, mesh)}
	for _, n := range otherNetworks() {
		peer := contend(n.name, func(ctx context.Context, h http.Handler) (send, func(), error) {
			return connectServers(ctx, n, h)
		})
		peer.inMemory = n.inMemory
		all = append(all, peer)
	}
	direct := contend("direct", func(_ context.Context, h http.Handler) (send, func(), error) {
		return record(h), func() {}, nil
	})
	direct.floor = true
	return append(all, direct)
}

// connectHandlers makes h three apps, which calls reach without a wire.
func connectHandlers(ctx context.Context, h http.Handler) (send, func(), error) {
	return connectMesh(ctx, wattlib.App{Handler: h})
}

// connectServes makes three apps of servers that run h, which calls reach over the mesh's own connections.
func connectServes(ctx context.Context, h http.Handler) (send, func(), error) {
	return connectMesh(ctx, wattlib.App{Serve: func(ctx context.Context, _ *wattlib.Env, ln net.Listener) error {
		server := &http.Server{Handler: h}
		defer context.AfterFunc(ctx, func() { _ = server.Close() })()
		return server.Serve(ln)
	}})
}

// connectMesh starts three apps like a, and returns the client of a fourth that may call them.
func connectMesh(ctx context.Context, a wattlib.App) (send, func(), error) {
	var client *http.Client
	apps := []wattlib.App{{
		Name: "web", Calls: hosts(),
		New: func(_ context.Context, env *wattlib.Env) (http.Handler, error) {
			client = env.Client
			return http.NotFoundHandler(), nil
		},
	}}
	for _, host := range hosts() {
		a.Name = host
		apps = append(apps, a)
	}
	rt := quiet(apps...)
	if err := rt.Start(ctx); err != nil {
		return nil, nil, err
	}
	return client.Do, func() { _ = rt.Shutdown(ctx) }, nil // if it fails, the next case still counts
}

// connectServers starts three servers on n, and returns a client that reaches them by name.
func connectServers(ctx context.Context, n network, h http.Handler) (send, func(), error) {
	dials := make(map[string]dial)
	var servers []*http.Server
	var serving sync.WaitGroup
	end := func() {
		for _, server := range servers {
			_ = server.Close()
		}
		serving.Wait()
	}
	for _, host := range hosts() {
		ln, dial, err := n.listen(ctx)
		if err != nil {
			end()
			return nil, nil, err
		}
		dials[host] = dial
		server := &http.Server{Handler: h}
		servers = append(servers, server)
		serving.Go(func() { _ = server.Serve(ln) }) // it ends with Close
	}
	transport := newTransport(func(ctx context.Context, address string) (net.Conn, error) {
		host, _, _ := strings.Cut(address, ".")
		return dials[host](ctx)
	})
	client := &http.Client{Transport: transport}
	return client.Do, func() { transport.CloseIdleConnections(); end() }, nil
}

// newTransport returns what a careful user would have: it keeps enough connections, and neither
// compresses nor looks for a proxy.
func newTransport(dial func(ctx context.Context, address string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return dial(ctx, address)
		},
		MaxIdleConnsPerHost: 64,
		DisableCompression:  true,
	}
}

// record calls h itself. It reuses the memory for the answers, lest that be all it measures.
func record(h http.Handler) send {
	bodies := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	return func(req *http.Request) (*http.Response, error) {
		body, _ := bodies.Get().(*bytes.Buffer)
		body.Reset()
		w := httptest.NewRecorder()
		w.Body = body
		h.ServeHTTP(w, req)
		resp := w.Result()
		resp.Body = recorded{resp.Body, func() { bodies.Put(body) }}
		return resp, nil
	}
}

// recorded is the body of a recorded answer.
type recorded struct {
	io.Reader
	release func()
}

func (r recorded) Close() error {
	r.release()
	return nil
}
