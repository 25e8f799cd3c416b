package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	wattlib "github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// The pyramid group compares a gateway with its apps in one process with the same as processes of their own.

func pyramidBenchmarks() []benchmark {
	const perSecond, p99, cpu, memory = "answers", "p99", "server CPU", "server memory"
	also := []figure{{perSecond, "/s"}, {p99, "ms"}, {cpu, "µs/op"}, {memory, "MiB"}}
	return []benchmark{
		{
			name: "pyramid/compose-3", unit: "ns/op", also: also,
			contenders: []contender{
				{name: watt, start: loadOf("/home", wattPyramid)},
				{name: "processes", start: loadOf("/home", gateway, app, app, app)},
			},
			bars: []bar{
				atLeast(2.5, "answers vs processes", ratio(figureOf(watt, perSecond), figureOf("processes", perSecond))),
				atMost(0.5, "p99 vs processes", ratio(figureOf(watt, p99), figureOf("processes", p99))),
				atMost(0.35, "server CPU vs processes", ratio(figureOf(watt, cpu), figureOf("processes", cpu))),
			},
		}, {
			name: "pyramid/proxy", unit: "ns/op", also: also,
			contenders: []contender{
				{name: watt, start: loadOf("/orders/7", wattPyramid)},
				{name: "processes", start: loadOf("/orders/7", gateway, app, app, app)},
				{name: "watt, by the mesh", floor: true, start: proxyByMesh},
			},
			bars: []bar{
				atMost(0.7, "vs processes", ratio(valueOf(watt), valueOf("processes"))),
				atMost(0.25, "by the mesh vs processes", ratio(valueOf("watt, by the mesh"), valueOf("processes"))),
			},
		}, {
			name: "pyramid/compose-cost", unit: "ns/op",
			contenders: []contender{
				{name: watt, start: composeDirectly},
				{name: "the calls alone", floor: true, start: callsAlone},
			},
			bars: []bar{
				atMost(15_000, "the composition itself, ns", difference(valueOf(watt), valueOf("the calls alone"))),
				atMost(60, "its allocations", difference(allocsOf(watt), allocsOf("the calls alone"))),
			},
		},
	}
}

// parts is what the composed page is made of: one of each host.
func parts() pyramid.Parts {
	all := make(pyramid.Parts)
	for _, host := range hosts() {
		all[host] = pyramid.Part{App: host, Path: "/7"}
	}
	return all
}

// pyramidOf is a gateway in front of three apps. It listens if there is an address.
func pyramidOf(address string) *wattlib.Runtime {
	document := answer(document(600), "application/json")
	apps := make([]wattlib.App, 0, len(hosts()))
	for _, host := range hosts() {
		apps = append(apps, wattlib.App{Name: host, Handler: document})
	}
	entry := wattlib.App{Name: "gateway", Listen: address, New: func(_ context.Context, env *wattlib.Env) (http.Handler, error) {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /home", pyramid.Compose(env, parts()))
		mux.Handle("GET /orders/", http.StripPrefix("/orders", pyramid.Proxy(env, "orders")))
		return mux, nil
	}}
	return quiet(pyramid.New(entry, apps...)...)
}

// composing answers as pyramid.Compose does, with calls over TCP.
func composing(client *http.Client, addresses []string) http.HandlerFunc {
	names := hosts()
	order := slices.Sorted(slices.Values(names))
	return func(w http.ResponseWriter, r *http.Request) {
		bodies := make(map[string][]byte, len(names))
		var mu sync.Mutex
		group, ctx := errgroup.WithContext(r.Context())
		for i, name := range names {
			group.Go(func() error {
				body, err := fetch(ctx, client, "http://"+addresses[i]+"/7")
				mu.Lock()
				defer mu.Unlock()
				bodies[name] = body
				return err
			})
		}
		if err := group.Wait(); err != nil {
			http.Error(w, http.StatusText(http.StatusBadGateway), http.StatusBadGateway)
			return
		}
		page := []byte{'{'}
		for i, name := range order {
			if i > 0 {
				page = append(page, ',')
			}
			page = fmt.Appendf(page, "%q:%s", name, bodies[name])
		}
		page = append(page, '}')
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(page) // the client sees it if that fails
	}
}

// fetch returns an app's JSON.
func fetch(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !json.Valid(body)) {
		err = errWrongAnswer
	}
	return body, err
}

// page is the composed answer.
func page() []byte {
	p := []byte{'{'}
	for i, name := range slices.Sorted(slices.Values(hosts())) {
		if i > 0 {
			p = append(p, ',')
		}
		p = fmt.Appendf(p, "%q:%s", name, document(600))
	}
	return append(p, '}')
}

func proxyByMesh(ctx context.Context) (session, error) {
	rt := pyramidOf("")
	if err := rt.Start(ctx); err != nil {
		return session{}, err
	}
	ops := make([]op, clients)
	for i := range ops {
		ops[i] = get(rt.Env().Client.Do, "http://gateway.watt.local/orders/7", document(600))
	}
	s := repeat(ops, func() { _ = rt.Shutdown(ctx) })
	measure := s.measure
	s.measure = func(ctx context.Context, d time.Duration) (sample, error) {
		got, err := measure(ctx, d)
		got.also = []float64{float64(time.Second) / got.value, math.NaN(), math.NaN(), math.NaN()}
		return got, err
	}
	return s, nil
}

// composeDirectly calls the composing handler itself.
func composeDirectly(ctx context.Context) (session, error) {
	var compose http.Handler
	rt := environment(func(env *wattlib.Env) { compose = pyramid.Compose(env, parts()) })
	if err := rt.Start(ctx); err != nil {
		return session{}, err
	}
	send, want := record(compose), page()
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/home", http.NoBody) // once: making it is no part of the cost
	return repeat([]op{func(ctx context.Context) error {
		resp, err := send(req.WithContext(ctx))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		buffer := make([]byte, len(want)+1)
		if n, err := io.ReadFull(resp.Body, buffer); n != len(want) || !errors.Is(err, io.ErrUnexpectedEOF) || !slices.Equal(buffer[:n], want) {
			return errWrongAnswer
		}
		return nil
	}}, func() { _ = rt.Shutdown(ctx) }), nil
}

// callsAlone makes the calls of the composition, as mesh/fanout-3 does.
func callsAlone(ctx context.Context) (session, error) {
	var client *http.Client
	rt := environment(func(env *wattlib.Env) { client = env.Client })
	if err := rt.Start(ctx); err != nil {
		return session{}, err
	}
	return repeat([]op{fanOut(client.Do, document(600))}, func() { _ = rt.Shutdown(ctx) }), nil
}

// environment is three apps, and one that may call them.
func environment(use func(*wattlib.Env)) *wattlib.Runtime {
	document := answer(document(600), "application/json")
	apps := []wattlib.App{{Name: "web", Calls: hosts(), New: func(_ context.Context, env *wattlib.Env) (http.Handler, error) {
		use(env)
		return http.NotFoundHandler(), nil
	}}}
	for _, host := range hosts() {
		apps = append(apps, wattlib.App{Name: host, Handler: document})
	}
	return quiet(apps...)
}
