package funnel

import (
	"math"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/org/watt"
)

// Limit bounds how many requests come in per second: of each caller app, and of all together. It is for what lies
// behind the I/O app and has rates of its own, such as somebody else's API. How many requests are in progress is
// bounded by the app's Workers, not here.
//
// A zero Limit lets everything pass: PerCaller and Total that are not above zero are no limit. Its fields may be set
// until the first request; Handler's handlers may be used concurrently, and share the rates.
type Limit struct {
	// PerCaller is how many requests per second each caller may make: the app that [watt.Caller] names; those from
	// outside are one caller. What is too much is answered with 429, and when there is room again in Retry-After,
	// though no later than in 36 hours. X-Watt-Limited names the caller: the instances of a funnel ([New]) begin no
	// work until then.
	PerCaller rate.Limit

	// Total is how many requests per second all may make together. What is too much is answered with 503, since it is
	// not for this caller to mend, with Retry-After.
	Total rate.Limit

	// CallerBurst and TotalBurst are how many may come at once. If not above zero, what may come in a second, at least
	// 1. In front of an app that the instances of a funnel call, a burst smaller than a second's worth wastes rate,
	// since instances that were refused stay away for a second.
	CallerBurst, TotalBurst int

	mu      sync.Mutex
	total   *rate.Limiter
	callers map[string]*rate.Limiter
}

// headerLimited names the app whose rate is reached: 429 alone may be about one client of that app's.
const headerLimited = "X-Watt-Limited"

// Handler returns next with the limit in front. Refused requests are answered at once, with a problem document.
func (l *Limit) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller := watt.Caller(r.Context())
		if status, wait := l.take(caller); status != 0 {
			if status == http.StatusTooManyRequests && caller != "" {
				w.Header().Set(headerLimited, caller)
			}
			refuse(w, status, scattered(wait), "too many requests per second")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// take takes a token for a request of caller's, or returns the status with which it is refused and when there is one.
func (l *Limit) take(caller string) (status int, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now() // no sooner: a limiter that is given an earlier time than before counts what came since twice
	mine, wait := reserve(l.callerLocked(caller), now)
	if wait > 0 {
		return http.StatusTooManyRequests, wait
	}
	if l.total == nil && l.Total > 0 {
		l.total = limiter(l.Total, l.TotalBurst)
	}
	if _, wait = reserve(l.total, now); wait > 0 {
		if mine != nil {
			mine.CancelAt(now) // it has not come in
		}
		return http.StatusServiceUnavailable, wait
	}
	return 0, 0
}

// longest is when there is room again at the latest, or so it is said: a rate may be so low that no number is large
// enough.
const longest = 24 * time.Hour

// reserve takes a token, or none if there is none now, and returns how long until there is. A nil limiter has always
// one.
func reserve(l *rate.Limiter, now time.Time) (*rate.Reservation, time.Duration) {
	if l == nil {
		return nil, 0
	}
	r := l.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return r, min(wait, longest)
}

// callerLocked returns the limiter of a caller; nil if there is no limit. There are no more of them than apps, and
// names in certificates that Listen trusts.
func (l *Limit) callerLocked(caller string) *rate.Limiter {
	if l.callers == nil {
		l.callers = make(map[string]*rate.Limiter)
	}
	if l.callers[caller] == nil && l.PerCaller > 0 { // and not NaN
		l.callers[caller] = limiter(l.PerCaller, l.CallerBurst)
	}
	return l.callers[caller]
}

func limiter(perSecond rate.Limit, burst int) *rate.Limiter {
	if burst <= 0 {
		burst = int(math.Ceil(min(max(float64(perSecond), 1), math.MaxInt32)))
	}
	return rate.NewLimiter(perSecond, burst)
}
