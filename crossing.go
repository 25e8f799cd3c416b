package watt

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/org/watt/internal/roundtrip"
)

// target is what a call to another process can be sent to: an instance there, or a door.
type target interface {
	// key identifies the connections that are kept to it.
	key() any
	// connect opens one: for one call at a time, or a trunk.
	connect(ctx context.Context, caller string, trunk bool) (net.Conn, error)
	// doubt notes that a connection has broken: until the instance shows that it lives, others are preferred.
	doubt()
}

// pick returns the best target for a request, other than not. If there is no other it waits for one until by, unless that
// is zero.
type pick func(ctx context.Context, not target, by time.Time) (target, error)

// A request that no target begins is sent to so many of them without a pause. To more, as long as it may wait, it is sent with
// a pause before each.
const (
	tries    = 3
	tryPause = 10 * time.Millisecond
)

// cross sends a request to one of several instances in other processes: to the one that pick prefers, and if
// that refuses it or is gone before it has begun, to another, perhaps the one that takes its place.
func (c *call) cross(req *http.Request, pick pick) (*http.Response, error) {
	req, end := roundtrip.WhileUnread(req)
	defer end()
	by := c.waitsUntil()
	to, err := pick(c.ctx, nil, by)
	if err != nil {
		roundtrip.CloseBody(req)
		return nil, c.gaveUp(&CallError{Err: err}) // nobody has seen the request
	}
	for n := 1; ; n++ {
		if over := c.endError(); over != nil {
			roundtrip.CloseBody(req)
			return nil, &CallError{Err: over}
		}
		resp, err := c.try(req, to)
		if err == nil || c.givenUp(err) || !untouched(err) {
			return resp, err
		}
		if n == 1 { // it waits anew: the first has not begun it
			by = c.waitsUntil()
		}
		if !c.more(n, to, err, by) {
			return nil, c.gaveUp(err)
		}
		if req = roundtrip.Again(req); req == nil {
			return nil, err
		}
		var none error
		if to, none = c.other(pick, to, away(err), by); none != nil {
			roundtrip.CloseBody(req)
			return nil, c.gaveUp(err)
		}
	}
}

// waitsUntil returns until when the call may wait for an instance from now on.
func (c *call) waitsUntil() time.Time {
	by := c.app.waitsUntil()
	if !c.by.IsZero() && c.by.Before(by) {
		return c.by
	}
	return by
}

// gaveUp returns why a request that met err, and that nobody has begun, is not sent once more: its time is up, or err.
func (c *call) gaveUp(err error) error {
	if over := c.endError(); over != nil {
		return &CallError{Err: over}
	}
	return err
}

// more reports whether a request is to be sent once more that n targets have not begun: the last, to, because of err. It
// returns after a pause if there is to be one.
func (c *call) more(n int, to target, err error, by time.Time) bool {
	switch {
	case c.endError() != nil, errors.Is(err, errAway): // it was waited for already
		return false
	case !unseen(err) && isDoor(to): // it has spoken for all instances
		return false
	case !away(err):
		return n == 1 // one try more is enough for who is full
	case n < tries:
		return true
	}
	return pauseTry(c.ctx, by)
}

// pauseTry pauses before one try more. It reports false if there is no time for that.
func pauseTry(ctx context.Context, by time.Time) bool {
	left := time.Until(by)
	if left <= 0 {
		return false
	}
	select {
	case <-time.After(min(left, tryPause)):
		return true
	case <-ctx.Done():
		return false
	}
}

// other picks another target. If not is away it may wait for one.
func (c *call) other(pick pick, not target, away bool, by time.Time) (target, error) {
	if !away {
		return pick(c.ctx, not, time.Time{})
	}
	c.mesh.forget(not.key()) // what else is kept to it is of no use either
	return pick(c.ctx, not, by)
}

func (c *call) try(req *http.Request, to target) (*http.Response, error) {
	var resp *http.Response
	var err error
	if lines := c.mesh.keptTo(to); c.byTrunk(req) {
		resp, err = c.carry(req, &lines.trunk)
	} else {
		resp, err = c.withTimer(req, lines.RoundTrip)
	}
	if err != nil && lost(err) && c.ctx.Err() == nil { // else it may be why the caller has given up
		to.doubt()
	}
	return resp, err
}

// idlest returns which of n has least to do, any of equals, or -1 if none comes into question. load returns how much
// one has to do, and whether it does.
func idlest(n int, load func(i int) (int64, bool)) int {
	best, least, equals := -1, int64(0), 0
	for i := range n {
		switch l, ok := load(i); {
		case !ok:
		case best < 0 || l < least:
			best, least, equals = i, l, 1
		case l == least:
			if equals++; rand.N(equals) == 0 {
				best = i
			}
		}
	}
	return best
}
