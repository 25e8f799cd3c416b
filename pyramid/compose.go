package pyramid

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/org/watt"
)

// Parts are the parts of a composed answer, by their keys in it.
type Parts map[string]Part

// An answer has to be written before its time is up. So much of what is left is kept for that, but half of it at most.
const (
	marginShare = 20 // a twentieth
	minMargin   = 5 * time.Millisecond
	maxMargin   = 250 * time.Millisecond
)

// Compose returns a handler that gathers all parts at once and answers with one JSON object, in the order
// of the keys. The JSON of the parts is passed on as it came, byte for byte.
//
// All parts have one deadline, a little before the time that [watt.AnswerBy] tells, so that an answer can
// still be written. If a required part fails, the others are canceled and the request is answered at once
// as [watt.WriteError] does: an app's failure with 502, 503, 504 or its own 4xx, a function's own error with 500.
// Other failures show in the header X-Watt-Partial, as in "orders;reason=timeout, pictures;reason=unavailable";
// such an answer is not to be stored. The reasons are
//
//   - timeout, overloaded, unavailable, not_allowed, died: the part was not answered, or not to the end
//   - status: the app answered with something else than 2xx
//   - invalid, too_large: what came is not JSON, or longer than MaxBytes
//   - panic: the function panicked
//   - partial: the part is there, but its own answer has an X-Watt-Partial, which follows unless it is longer than 1
//     KiB, as in home;reason=partial;inner="orders;reason=timeout"
//   - error: everything else
//
// They are also logged, each part's every 5 s at most (unsaid is how many were left out before), and counted with the time
// that each part took in the histogram watt_compose_part_seconds of env.Metrics, with the labels part and outcome: "ok", a
// reason, or "canceled" where the others' failure or the client's leave made the part useless. A part that is only partial
// is "ok" there, and not logged: its own app does both.
//
// A part that ignores its context does not hold the answer back, but is left behind. It may finish later:
// the end of the instance waits for it as for an [watt.Env.Cleanup].
//
// Whatever the request's method, apps are called with GET. They get its headers, but for those about
// its connection, body and conditions, and Accept says application/json. X-Watt- headers, which strangers
// cannot set, are passed on; Forwarded, X-Forwarded- ones and X-Real-Ip only of requests that have a [watt.Caller].
//
// Compose panics if something is wrong with the parts, with a text that says all of it: it is meant for
// [watt.App.New], whose panics are errors of the start. What it returns is safe for concurrent use.
func Compose(env *watt.Env, parts Parts) http.HandlerFunc {
	c, err := newComposition(env, parts)
	if err != nil {
		panic("pyramid: Compose: " + err.Error())
	}
	return c.serve
}

// composition gathers the parts of many requests.
type composition struct {
	env     *watt.Env
	parts   []*part // in the order of their keys
	times   *prometheus.HistogramVec
	running sync.WaitGroup // goroutines of parts, also of those left behind
	writers sync.Pool      // of *bufio.Writer: what answers are put together in
	bodies  sync.Pool      // of *[]byte: what parts are read into
}

func newComposition(env *watt.Env, parts Parts) (*composition, error) {
	if env == nil {
		return nil, errors.New("env is nil")
	}
	c := &composition{env: env}
	var wrong []string
	if len(parts) == 0 {
		wrong = append(wrong, "there are no parts")
	}
	for _, key := range slices.Sorted(maps.Keys(parts)) {
		p, mistakes := newPart(env, key, parts[key])
		c.parts, wrong = append(c.parts, p), append(wrong, mistakes...)
	}
	if len(wrong) > 0 {
		return nil, errors.New(strings.Join(wrong, "; "))
	}
	var err error
	if c.times, err = register(env.Metrics); err != nil {
		return nil, fmt.Errorf("%s: %w", timesName, err)
	}
	for _, p := range c.parts {
		p.fine = c.times.WithLabelValues(p.key, outcomeOK)
		p.shared.running = &c.running
	}
	env.Cleanup(func() error {
		c.running.Wait()
		return nil
	})
	return c, nil
}

// serve answers one request.
func (c *composition) serve(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := answerable(r.Context())
	defer cancel()
	g, err := c.prepare(r)
	if err != nil {
		watt.WriteError(w, err)
		return
	}
	ctx = ownRoute(ctx) // chi uses its own again, perhaps while a part that was left behind still does
	g.start(ctx, r)
	if err := g.gather(ctx); err != nil {
		watt.WriteError(w, err)
	} else {
		g.answer(w)
		g.recycle()
	}
	g.note()
}

// ownRoute returns ctx with a copy of the route that chi has found, if it has.
func ownRoute(ctx context.Context) context.Context {
	if route := chi.RouteContext(ctx); route != nil {
		return context.WithValue(ctx, chi.RouteCtxKey, route.Clone())
	}
	return ctx
}

// answerable returns a context that ends early enough for an answer.
func answerable(ctx context.Context) (context.Context, context.CancelFunc) {
	by, limited := watt.AnswerBy(ctx)
	if !limited {
		return context.WithCancel(ctx)
	}
	left := time.Until(by)
	margin := min(max(left/marginShare, minMargin), maxMargin, left/2)
	return context.WithDeadline(ctx, by.Add(-margin))
}
