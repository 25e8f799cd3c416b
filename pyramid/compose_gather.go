package pyramid

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"time"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"

	"github.com/org/watt"
)

// gathering is the work on one request. Parts that are left behind have no part in it: all they can do is
// to send a result, which always finds room.
type gathering struct {
	*composition
	header  http.Header // for the calls, which only read it
	urls    []url.URL   // of the calls, by part
	began   time.Time
	results chan result
	got     []result // by part
	left    int      // parts of which nothing is known yet
}

// result is what became of a part.
type result struct {
	part int
	json []byte
	err  error
	took time.Duration
	done bool // there is one
}

// prepare takes from the request what the parts need, before any of them is started.
func (c *composition) prepare(r *http.Request, route *chi.Context) (*gathering, error) {
	n := len(c.parts)
	g := &gathering{composition: c, urls: make([]url.URL, n), got: make([]result, n), left: n}
	v := values{request: r, route: route}
	for i, p := range c.parts {
		if p.Func != nil {
			continue
		}
		if g.header == nil {
			g.header = passedOn(r)
		}
		u := &g.urls[i]
		u.Scheme, u.Host = "http", p.host
		if err := p.path.fill(u, &v); err != nil {
			return nil, fmt.Errorf("part %q: %w", p.key, err)
		}
	}
	g.results = make(chan result, 2*n) // a part may also be given up
	return g, nil
}

// start starts all parts.
func (g *gathering) start(ctx context.Context, r *http.Request) {
	g.began = time.Now()
	for i, p := range g.parts {
		ctx, cancel := ctx, context.CancelFunc(nil)
		if p.Timeout > 0 {
			ctx, cancel = context.WithTimeout(ctx, p.Timeout)
		}
		var own *http.Request
		if p.Func != nil {
			own = r.Clone(ctx)
			own.Body, own.ContentLength, own.TransferEncoding = http.NoBody, 0, nil
		}
		g.running.Go(func() { g.run(ctx, cancel, i, own) })
	}
}

// run runs one part, and gives it up at its own deadline even if it does not heed that.
func (g *gathering) run(ctx context.Context, cancel context.CancelFunc, i int, own *http.Request) {
	p := g.parts[i]
	if cancel != nil {
		defer cancel()
		results := g.results
		defer context.AfterFunc(ctx, func() { results <- result{part: i, err: p.late(), took: p.Timeout} })()
	}
	res := result{part: i, err: errEnded}
	defer func() {
		if res.err == errEnded { //nolint:errorlint // it is ours: there was no return
			p.env.Logger.Error("a part ended its goroutine", zap.String("part", p.key))
		}
		res.took = time.Since(g.began)
		g.results <- res
	}()
	switch {
	case own != nil:
		res.json, res.err = p.guarded(func() ([]byte, error) { return p.compute(ctx, own) })
	case p.Coalesce:
		res.json, res.err = g.share(ctx, i)
	default:
		res.json, res.err = p.guarded(func() ([]byte, error) { return p.fetch(ctx, &g.urls[i], g.header) })
	}
}

// share calls the part's app, or waits for the same call of another request.
func (g *gathering) share(ctx context.Context, i int) ([]byte, error) {
	p, u := g.parts[i], &g.urls[i]
	body, err := p.shared.do(ctx, sameness(u, g.header), func(ctx context.Context) ([]byte, error) {
		return p.guarded(func() ([]byte, error) { return p.fetch(ctx, u, g.header) })
	})
	if err != nil && err == ctx.Err() { //nolint:errorlint // the wait's, bare
		err = p.called(err)
	}
	return body, err
}

// guarded makes an error of a panic.
func (p *part) guarded(f func() ([]byte, error)) (_ []byte, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = errPanicked
			p.env.Logger.Error("a part panicked", zap.String("part", p.key), zap.Any("panic", reason), zap.ByteString("stack", debug.Stack()))
		}
	}()
	return f()
}

// gather waits for all parts, until time is up or a required one has failed, and returns why there is no
// answer.
func (g *gathering) gather(ctx context.Context) error {
	defer g.abandon()
	for g.left > 0 {
		select {
		case res := <-g.results:
			if err := g.take(ctx, res); err != nil {
				return err
			}
		case <-ctx.Done():
			return g.close(ctx)
		}
	}
	return nil
}

// close ends the wait when time is up: it takes what has come, and gives up the rest.
func (g *gathering) close(ctx context.Context) error {
	for len(g.results) > 0 {
		if err := g.take(ctx, <-g.results); err != nil {
			return err
		}
	}
	for i, p := range g.parts {
		if err := g.take(ctx, result{part: i, err: p.late(), took: time.Since(g.began)}); err != nil {
			return err
		}
	}
	return nil
}

// take keeps a part's first result, and returns an error if there can be no answer without it.
func (g *gathering) take(ctx context.Context, res result) error {
	p := g.parts[res.part]
	switch {
	case g.got[res.part].done:
		return nil
	case res.err != nil && errors.Is(ctx.Err(), context.Canceled): // the client has gone, and that may be why
		return ctx.Err()
	}
	g.left--
	res.done = true
	g.got[res.part] = res
	if res.err == nil {
		p.fine.Observe(res.took.Seconds())
		return nil
	}
	reason := reasonOf(res.err)
	g.times.WithLabelValues(p.key, reason).Observe(res.took.Seconds())
	if p.required() {
		return fmt.Errorf("pyramid: part %q: %w", p.key, res.err)
	}
	g.env.Logger.Warn("a part failed", zap.String("part", p.key), zap.String("app", p.App),
		zap.String("reason", reason), zap.Duration("took", res.took), zap.Error(res.err))
	return nil
}

// abandon counts the parts for which nobody waits any more.
func (g *gathering) abandon() {
	for i, p := range g.parts {
		if !g.got[i].done {
			g.times.WithLabelValues(p.key, outcomeCanceled).Observe(time.Since(g.began).Seconds())
		}
	}
}

// reasonOf returns the reason of X-Watt-Partial for a part that failed with err.
func reasonOf(err error) string {
	if call, ok := errors.AsType[*watt.CallError](err); ok && call.Status != 0 {
		return "status"
	}
	for _, known := range []struct {
		err    error
		reason string
	}{
		{errPanicked, "panic"},
		{errEnded, "panic"},
		{errInvalid, "invalid"},
		{errTooLarge, "too_large"},
		{watt.ErrNotAllowed, "denied"},
		{watt.ErrOverloaded, "overloaded"},
		{watt.ErrUnavailable, "unavailable"},
		{context.DeadlineExceeded, "timeout"},
	} {
		if errors.Is(err, known.err) {
			return known.reason
		}
	}
	return "error"
}
