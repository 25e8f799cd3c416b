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
// Before an instance begins to work, it looks whether the result could be kept, and otherwise answers with 503.
// Retry-After says how long the I/O app needs for what waits at it, or what it has said itself, and up to half as much
// more. See [New] for when that is. Otherwise a slow I/O app keeps the workers of the instances waiting, their queues
// fill, and what does not fit is refused at their doors. Nothing is kept anywhere without a limit.
//
// An instance does not know what others have begun in the meantime. What they have computed waits at the I/O app, in a
// queue that is no longer than the instances have workers, for as long as their requests last: the Timeout of the
// CPU-bound app, or as long as their clients have patience. Work is lost where the I/O app needs longer than that for
// one request of each worker.
package funnel

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/org/watt"
)

// keptWait is how far off the I/O app may be for work to be begun.
const keptWait = 5 * time.Second

// New returns cpu and io wired, as [watt.New] takes them: cpu may call io, its Profile is [watt.CPUBound] and io's
// [watt.IOBound], unless they have others; so cpu has one instance per processor of the container, each in a process of
// its own, or a share of this process's processors with Isolation [watt.InProcess]. All other fields are as given, for
// the profiles to fill, but for one. The two can stand among the apps of a pyramid, and several funnels may end in the
// same io: give the runtime that one once. Mistakes are left for the runtime to report, all together.
//
// The QueueTimeout of io is 5 s, unless it has another: so far off may it be for work to be begun. A call of io by
// env.Client that has waited for a second or more, and got no place, waits again, since what has been computed had
// better wait than be thrown away: until its context ends, for a minute at most, and if its body can be sent again
// (GetBody of [http.Request]).
//
// Before cpu's Handler, or the one that its New makes, does any work, a request is refused:
//
//   - With the error of [watt.Env.CheckContext], if that has one: io has no room, or would not come to it in time, or
//     cannot start.
//   - With 503, if the last two calls of io by this instance's env.Client were refused with a Retry-After, by io's
//     handler or at its door: with 503, since its database is away, or a [Limit] of all callers is reached; or with
//     429, if that is a Limit's of cpu. That lasts as long as Retry-After says; then, and every 5 s, one request may
//     find out, for whose answer the others wait no longer than that, and the first answer of another kind ends it. What
//     the door has refused to a call with a deadline does not count, nor does any other 429, which is about one client.
//
// An io that only restarts refuses nothing, for calls wait for it. The readiness check of an instance is never refused:
// being busy is no reason not to start. Nor are other requests for the ReadyPath that New was given (GET). A cpu with
// Serve gets no such guard, since its requests are not seen here: ask env.CheckContext before the work. With a URL
// nothing is guarded here, but where cpu runs: use New there too, with io's URL.
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
	if io.QueueTimeout == 0 {
		io.QueueTimeout = keptWait
	}
	switch handler, newHandler := cpu.Handler, cpu.New; {
	case handler != nil && newHandler == nil && cpu.Serve == nil:
		cpu.Handler = nil
		cpu.New = func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return newGuard(env, io.Name, cpu.ReadyPath).handler(handler), nil
		}
	case newHandler != nil:
		cpu.New = func(ctx context.Context, env *watt.Env) (http.Handler, error) {
			g := newGuard(env, io.Name, cpu.ReadyPath)
			handler, err := newHandler(ctx, env)
			if handler == nil || err != nil {
				return nil, err
			}
			return g.handler(handler), nil
		}
	}
	return cpu, io
}
