package funnel

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/org/watt"
)

// guard refuses work whose result app would not take. It asks how busy app is, and remembers what app has answered: an
// app that answers at once that its database is away looks idle.
type guard struct {
	env       *watt.Env
	app       string
	readyPath string            // as New was given it: who asks for that from outside wants to know the same
	next      http.RoundTripper // the way to app

	mu       sync.Mutex
	refusals refusals
}

// refusals are what app has said lately.
type refusals struct {
	inRow int
	again time.Time // when trying again makes sense, as it has said
	probe time.Time // when one request may find out
}

const (
	// enoughRefusals in a row close the guard: a single one may be about that request.
	enoughRefusals = 2
	// mostPause is how long it stays closed at most before a request may find out, and then before the next may.
	mostPause = 5 * time.Second
	// inVain is how long a call must have waited for it to be worth while to wait again.
	inVain = time.Second
	// mostWait is how long it may wait altogether, unless its context ends before.
	mostWait = time.Minute
)

// newGuard returns a guard, and has it hear what the client of env is answered, which is this instance's own from then
// on.
func newGuard(env *watt.Env, app, readyPath string) *guard {
	g := &guard{env: env, app: app, readyPath: readyPath, next: env.Client.Transport}
	client := *env.Client
	client.Transport = g
	env.Client = &client
	return g
}

// handler returns next behind the guard.
func (g *guard) handler(next http.Handler) http.Handler {
	guarded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn, err := g.check(r)
		if err != nil {
			watt.WriteError(w, err)
			return
		}
		if !turn.IsZero() {
			defer g.giveBack(turn)
		}
		next.ServeHTTP(w, r)
	})
	if table, ok := next.(routes); ok {
		return router{table, guarded}
	}
	return guarded
}

type routes = chi.Routes // whose method Routes a field of that name would hide

// router is a router of chi's behind the guard: who asks it for its routes, as package tracing does, gets them.
type router struct {
	routes
	http.Handler
}

// check returns an error for a request that is refused, and a turn for the one that may find out whether app takes calls
// again.
func (g *guard) check(r *http.Request) (turn time.Time, err error) {
	if _, came := watt.Arrived(r.Context()); !came {
		return turn, nil // the readiness check, which comes by no door: being busy is no reason not to start
	}
	if r.Method == http.MethodGet && r.URL.RequestURI() == g.readyPath {
		return turn, nil
	}
	if err := g.env.CheckContext(r.Context(), g.app); err != nil {
		return turn, err
	}
	g.mu.Lock()
	after, turn := g.refusals.pass(time.Now())
	g.mu.Unlock()
	if after == 0 {
		return turn, nil
	}
	return turn, &watt.CallError{
		Caller: g.env.App, App: g.app, RetryAfter: scattered(after),
		Err: fmt.Errorf("%w: it has refused the last calls", watt.ErrUnavailable),
	}
}

// giveBack ends a turn: the next has it, if nothing was found out.
func (g *guard) giveBack(turn time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refusals.probe.Equal(turn) {
		g.refusals.probe = time.Now()
	}
}

// RoundTrip implements [http.RoundTripper].
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil {
		return g.next.RoundTrip(req) // which says so
	}
	if app, _ := watt.AppOf(req.URL.Host); app != g.app {
		return g.next.RoundTrip(req)
	}
	resp, err := g.insist(req)
	after := g.refusalOf(req, resp, err)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case after > 0:
		g.refusals.add(after, time.Now())
	case err == nil:
		g.refusals = refusals{}
	}
	return resp, err
}

// insist calls app, and again if the call has waited at its door in vain: what has been computed had better wait than
// be thrown away, and while not all can be served in time, those who have come last are served first. What was refused
// at once would be so again.
func (g *guard) insist(req *http.Request) (*http.Response, error) {
	for first := time.Now(); ; {
		began := time.Now()
		resp, err := g.next.RoundTrip(req)
		if time.Since(began) < inVain || time.Since(first) >= mostWait || !refused(err) {
			return resp, err
		}
		next := repeated(req)
		if next == nil {
			return resp, err
		}
		req = next
	}
}

// refused reports whether app's door has refused a call.
func refused(err error) bool {
	call, failed := errors.AsType[*watt.CallError](err)
	return failed && !call.Started && (errors.Is(err, watt.ErrOverloaded) || errors.Is(err, watt.ErrUnavailable))
}

// repeated returns req once more, or nil if its body is there only once.
func repeated(req *http.Request) *http.Request {
	next := req.Clone(req.Context())
	if req.Body == nil || req.Body == http.NoBody {
		return next
	}
	if req.GetBody == nil {
		return nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil
	}
	next.Body = body
	return next
}

// refusalOf returns how long app wants not to be called: 503 with Retry-After, by its handler or its door. What was
// refused with a deadline may have been so for the deadline. 429 is about one client, and not about all, unless a
// [Limit] says that it is about this app.
func (g *guard) refusalOf(req *http.Request, resp *http.Response, err error) time.Duration {
	if err == nil {
		limited := resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get(headerLimited) == g.env.App
		if resp.StatusCode != http.StatusServiceUnavailable && !limited {
			return 0
		}
		return retryAfter(resp.Header.Get("Retry-After"))
	}
	call, failed := errors.AsType[*watt.CallError](err)
	if _, limited := req.Context().Deadline(); !failed || limited || call.Started {
		return 0
	}
	return call.RetryAfter
}

// retryAfter returns how long a Retry-After is from now, a number of seconds or a date: from none to an hour.
func retryAfter(text string) time.Duration {
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), time.Hour)
	}
	seconds, _ := strconv.Atoi(text)
	return time.Duration(min(max(seconds, 0), 3600)) * time.Second
}

func (r *refusals) add(after time.Duration, now time.Time) {
	r.inRow++
	r.again, r.probe = now.Add(after), now.Add(min(after, mostPause))
}

// pass returns 0 for a request that may come, with a turn if that is to find out, and for others when they may come.
func (r *refusals) pass(now time.Time) (after time.Duration, turn time.Time) {
	switch {
	case r.inRow < enoughRefusals:
		return 0, turn
	case now.Before(r.probe):
		return max(r.again.Sub(now), time.Second), turn
	}
	r.probe = now.Add(mostPause) // the others wait for what this one is answered
	return 0, r.probe
}
