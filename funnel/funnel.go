// Package funnel puts many identical CPU-bound instances in front of one I/O application: expensive work (media,
// documents, archives, parsing, inference) comes in by one port, is done in a process per processor, and converges
// on the one app that owns the database, the storage or the API of somebody else.
//
//	rt := watt.New(funnel.New(
//		watt.App{Name: "resize", Listen: ":8080", New: newResize},
//		watt.App{Name: "store", New: newStore},
//	))
//	err := rt.Run(ctx)
//
// The I/O app protects what it owns with plain middleware and one function, each usable alone: [Limit] bounds how
// often it is called, [Idempotency] does once what clients repeat, and [Batch] commits the writes of many requests
// together:
//
//	func newStore(ctx context.Context, env *watt.Env) (http.Handler, error) {
//		…
//		batch := &funnel.Batch{DB: db}
//		once := &funnel.Idempotency{Batch: batch, Required: true}
//		r := chi.NewRouter()
//		r.With(once.Handler).Post("/pictures", save(batch))
//		return r, nil
//	}
//
// # When to use it
//
// When a request costs processor time that is counted in milliseconds, and its result has to be kept. Work that is
// cheap needs no processes of its own. Requests that only read what is kept should go to the I/O app directly,
// past the instances: they have nothing to compute.
//
// # What happens when it is too much
//
// Work that could not be stored is not begun: while the I/O app would refuse a call, the CPU-bound instances
// refuse requests, with 503 and a Retry-After that says how long the I/O app needs for what waits at it. A slow I/O app
// keeps the workers of the instances waiting, their queues fill, and what does not fit is refused at their doors.
// Nothing is kept anywhere without a limit.
package funnel

import (
	"context"
	"net/http"
	"slices"

	"github.com/org/watt"
)

// New returns cpu and io wired, as [watt.New] takes them: cpu may call io, its Profile is [watt.CPUBound] and io's
// [watt.IOBound], unless they have others; so cpu has one instance per processor of the container, each in a process
// of its own, or a share of this process's processors with Isolation [watt.InProcess]. All other fields are as given, for the
// profiles to fill. The two can stand among the apps of a pyramid, and several funnels may end in the same io: give the
// runtime that one once. Mistakes are left for the runtime to report, all together.
//
// Before cpu's Handler, or the one that its New makes, does any work, a request is refused if a call to io would be
// refused now ([watt.Env.Check]): with the error's status and Retry-After, as [watt.WriteError] answers. An io that restarts
// refuses nothing, for calls wait for it. A cpu with Serve gets no such guard, since its requests are not seen here: ask
// env.Check before the work. With a URL nothing is guarded here, but where cpu runs: use New there too, with io's URL.
//
// The parameters stand in the order in which a request passes them. The other way round, the first call is refused
// with [watt.ErrNotAllowed] and a text that names both apps.
func New(cpu, io watt.App) (watt.App, watt.App) {
	if !slices.Contains(cpu.Calls, io.Name) {
		cpu.Calls = append(slices.Clone(cpu.Calls), io.Name)
	}
	if cpu.Profile == 0 {
		cpu.Profile = watt.CPUBound
	}
	if io.Profile == 0 {
		io.Profile = watt.IOBound
	}
	switch handler, newHandler := cpu.Handler, cpu.New; {
	case handler != nil && newHandler == nil && cpu.Serve == nil:
		cpu.Handler = nil
		cpu.New = func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return guarded(env, io.Name, handler), nil
		}
	case newHandler != nil:
		cpu.New = func(ctx context.Context, env *watt.Env) (http.Handler, error) {
			handler, err := newHandler(ctx, env)
			if handler == nil || err != nil {
				return nil, err
			}
			return guarded(env, io.Name, handler), nil
		}
	}
	return cpu, io
}

// guarded refuses requests whose result app would not take.
func guarded(env *watt.Env, app string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := env.Check(app); err != nil {
			watt.WriteError(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}
