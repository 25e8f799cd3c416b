package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"runtime"
	"time"

	wattlib "github.com/org/watt"
)

// The scale group asks what many apps in one runtime cost.

func scaleBenchmarks(cfg config) []benchmark {
	few, many := cfg.apps[0], cfg.apps[len(cfg.apps)-1]
	name := func(what string, apps int) string { return fmt.Sprintf("%s, n=%d", what, apps) }
	var further []figure
	for _, n := range cfg.apps {
		further = append(further,
			figure{name("start", n), "ms"}, figure{name("idle app", n), "B"}, figure{name("get-small", n), "ns/op"})
	}
	return []benchmark{{
		name: "scale/apps", unit: fmt.Sprintf("ns/op, n=%d", many), also: further,
		contenders: []contender{{name: watt, start: func(ctx context.Context) (session, error) { return scale(ctx, cfg.apps) }}},
		bars: []bar{
			atMost(1000, name("start", many)+", ms", alsoOf(name("start", many))),
			atMost(64<<10, name("idle app", many)+", B", alsoOf(name("idle app", many))),
			atMost(1.3, fmt.Sprintf("get-small, n=%d vs n=%d", many, few),
				ratio(alsoOf(name("get-small", many)), alsoOf(name("get-small", few)))),
		},
	}}
}

// scale keeps a runtime of each size, for the calls, and starts a fresh one for the other figures.
func scale(ctx context.Context, sizes []int) (session, error) {
	small := document(600)
	var runtimes []*wattlib.Runtime
	var calls []op
	end := func() {
		for _, rt := range runtimes {
			_ = rt.Shutdown(ctx) // if it fails, the next case still counts
		}
	}
	for _, n := range sizes {
		rt := manyApps(n, answer(small, "application/json"))
		runtimes = append(runtimes, rt)
		call, err := anyOf(ctx, rt, n, small)
		if err != nil {
			end()
			return session{}, err
		}
		calls = append(calls, call)
	}
	measure := func(ctx context.Context, d time.Duration) (sample, error) {
		s := sample{allocs: math.NaN()}
		for i, n := range sizes {
			start, bytes, err := starting(ctx, n)
			if err != nil {
				return s, err
			}
			runtime.GC()
			get, err := repeatFor(ctx, calls[i:i+1], d)
			if err != nil {
				return s, err
			}
			s.value = get.value
			s.also = append(s.also, start, bytes, get.value)
		}
		return s, nil
	}
	return session{measure, end}, nil
}

func manyApps(n int, h http.Handler) *wattlib.Runtime {
	apps := make([]wattlib.App, n)
	for i := range apps {
		apps[i] = wattlib.App{Name: fmt.Sprintf("app%d", i), Handler: h}
	}
	return quiet(apps...)
}

// anyOf starts rt and returns calls to an app chosen at random, each of which was called before.
func anyOf(ctx context.Context, rt *wattlib.Runtime, n int, want []byte) (op, error) {
	if err := rt.Start(ctx); err != nil {
		return nil, err
	}
	gets := make([]op, n)
	for i := range gets {
		gets[i] = get(rt.Env().Client.Do, url(fmt.Sprintf("app%d", i)), want)
		if err := gets[i](ctx); err != nil {
			return nil, err
		}
	}
	random := rand.New(rand.NewPCG(1, 2)) // the same calls each time
	return func(ctx context.Context) error { return gets[random.IntN(n)](ctx) }, nil
}

// starting returns how many ms n apps take to start, and how many bytes each holds then.
func starting(ctx context.Context, n int) (ms, bytes float64, err error) {
	rt := manyApps(n, http.NotFoundHandler())
	before := memory()
	start := time.Now()
	err = rt.Start(ctx)
	ms = time.Since(start).Seconds() * 1000
	if err != nil {
		return 0, 0, err
	}
	bytes = (memory() - before) / float64(n)
	return ms, bytes, rt.Shutdown(ctx)
}
