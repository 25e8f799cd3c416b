package pyramid

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"

	"github.com/org/watt"
)

// gathering is the work on one request. A part that was left behind finds it closed, and its result is dropped.
type gathering struct {
	*composition
	header http.Header // for the calls, which only read it
	urls   []url.URL   // of the calls, by part
	began  time.Time
	took   time.Duration // all of it
	over   chan struct{} // closed when all results are there, or a required part has failed

	mu     sync.Mutex
	got    []result // by part
	left   int      // parts without a result
	err    error    // of the required part that has failed
	closed bool     // nobody waits any more, and nothing changes
}

// result is what became of a part.
type result struct {
	content
	err  error
	took time.Duration
	done bool // there is one
}

// prepare takes from the request what the parts need, before any of them is started.
func (c *composition) prepare(r *http.Request) (*gathering, error) {
	n := len(c.parts)
	g := &gathering{composition: c, urls: make([]url.URL, n), got: make([]result, n), left: n, over: make(chan struct{})}
	v := values{request: r, route: chi.RouteContext(r.Context())}
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
	return g, nil
}

// start starts all parts.
func (g *gathering) start(ctx context.Context, r *http.Request) {
	g.began = time.Now()
	for i, p := range g.parts {
		var own *http.Request
		if p.Func != nil {
			own = r.Clone(ctx)
			own.Body, own.ContentLength, own.TransferEncoding = http.NoBody, 0, nil
		}
		g.running.Go(func() {
			g.makeRoom()
			g.run(ctx, i, own)
		})
	}
}

// stack is what a call needs of one, in bytes.
const stack = 5 << 10

// makeRoom makes the stack of a part's goroutine large at once, while it is empty. It would grow anyway, in steps that
// each copy and adjust all frames there are by then. A frame counts in full for a branch that is never taken too.
//
//go:noinline
func (g *gathering) makeRoom() byte {
	if g.parts == nil {
		var room [stack]byte
		return room[g.left]
	}
	return 0
}

// run runs one part, and gives it up at its own deadline even if it does not heed that.
func (g *gathering) run(all context.Context, i int, own *http.Request) {
	p, ctx := g.parts[i], all
	if p.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(all, p.Timeout)
		defer cancel()
		defer context.AfterFunc(ctx, func() { g.keep(all, i, content{}, p.late()) })()
	}
	var got content
	err := errEnded
	defer func() {
		if err == errEnded { //nolint:errorlint // it is ours: there was no return
			p.env.Logger.Error("a part ended its goroutine", zap.String("part", p.key))
		}
		g.keep(all, i, got, err)
	}()
	switch {
	case own != nil:
		ctx := ownRoute(ctx) // to which a router in the function writes
		got, err = p.guarded(func() (content, error) { return p.compute(own.WithContext(ctx)) })
	case p.Coalesce:
		got, err = g.share(ctx, i)
	default:
		got, err = p.guarded(func() (content, error) { return p.fetch(ctx, &g.urls[i], g.header, &g.bodies) })
	}
}

// share calls the part's app, or waits for the same call of another request.
func (g *gathering) share(ctx context.Context, i int) (content, error) {
	p, u := g.parts[i], &g.urls[i]
	defer watt.Downstream(ctx)()
	got, err := p.shared.do(ctx, sameness(u, g.header), func(ctx context.Context) (content, error) {
		return p.guarded(func() (content, error) { return p.fetch(ctx, u, g.header, nil) })
	})
	if err != nil && err == ctx.Err() { //nolint:errorlint // the wait's, bare
		err = p.callError(err)
	}
	return got, err
}

// guarded makes an error of a panic.
func (p *part) guarded(f func() (content, error)) (_ content, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = errPanicked
			p.env.Logger.Error("a part panicked", zap.String("part", p.key),
				zap.String("panic", fmt.Sprint(reason)), zap.ByteString("stack", debug.Stack())) // encoding reason might panic
		}
	}()
	return f()
}

// gather waits for all parts, until time is up or a required one has failed, and returns why there is no
// answer.
func (g *gathering) gather(ctx context.Context) error {
	select {
	case <-g.over:
	case <-ctx.Done():
		for i, p := range g.parts { // what has come in time stays
			g.keep(ctx, i, content{}, p.late())
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed, g.took = true, time.Since(g.began)
	if g.err == nil && g.left > 0 {
		return ctx.Err()
	}
	return g.err
}

// keep keeps a part's first result. A failure after the client has gone, which may be because of that, is none.
func (g *gathering) keep(ctx context.Context, i int, got content, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.err != nil || g.got[i].done || err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	g.got[i] = result{content: got, err: err, took: time.Since(g.began), done: true}
	if g.left--; err != nil && g.parts[i].required() {
		g.err = fmt.Errorf("pyramid: part %q: %w", g.parts[i].key, err)
	}
	if g.left == 0 || g.err != nil {
		close(g.over)
	}
}

// recycle keeps the memory that the parts were read into for the next requests, once the answer is written. That of parts
// that were left behind, which may still use it, is not among it.
func (g *gathering) recycle() {
	for i := range g.got {
		if memory := g.got[i].memory; memory != nil && cap(*memory) <= announced {
			g.bodies.Put(memory)
		}
	}
}

// note counts and logs what became of the parts, once there is an answer.
func (g *gathering) note() {
	for i, p := range g.parts {
		res := &g.got[i]
		switch {
		case !res.done:
			g.times.WithLabelValues(p.key, outcomeCanceled).Observe(g.took.Seconds())
			continue
		case res.err == nil:
			p.fine.Observe(res.took.Seconds())
			continue
		}
		reason := reasonOf(res.err)
		g.times.WithLabelValues(p.key, reason).Observe(res.took.Seconds())
		if p.required() { // then the request has failed, which has a line of its own
			continue
		}
		if unsaid, say := p.failures.now(time.Now()); say {
			g.env.Logger.Warn("a part failed", zap.String("part", p.key), zap.String("callee", p.App), zap.String("reason", reason),
				zap.Duration("took", res.took), zap.Int("unsaid", unsaid), zap.Error(res.err))
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
		{watt.ErrNotAllowed, "not_allowed"},
		{watt.ErrOverloaded, "overloaded"},
		{watt.ErrUnavailable, "unavailable"},
		{watt.ErrInstanceDied, "died"},
		{context.DeadlineExceeded, "timeout"},
	} {
		if errors.Is(err, known.err) {
			return known.reason
		}
	}
	return "error"
}
