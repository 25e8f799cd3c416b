package watt

import (
	"context"
	"net"
	"net/http"
	"time"
)

// across is the place, seen from a child, of an app that does not live in it. The parent makes the connections.
type across struct {
	absent
	child *child
}

// targetAcross is one instance of such an app, or the app as a whole.
type targetAcross struct {
	child    *child
	app      string
	instance int  // -1: the app
	door     bool // it has one in the first process, for all of its instances
}

// isDoor reports whether a target is the one door of an app.
func isDoor(to target) bool {
	s, ok := to.(targetAcross)
	return ok && s.door
}

func (s targetAcross) key() any { return s }

func (s targetAcross) doubt() {
	if s.instance >= 0 {
		s.child.page.Slot(s.child.slots[s.app].First + s.instance).Doubt()
	}
}

func (s targetAcross) connect(ctx context.Context, _ string, trunk bool) (net.Conn, error) {
	return s.child.dial(ctx, dialling{App: s.app, Instance: s.instance, Trunk: trunk})
}

// send sends the request to the instance that has least to do, if there are several.
func (x *across) send(c *call, req *http.Request) (*http.Response, error) {
	return c.cross(req, func(_ context.Context, not target, by time.Time) (target, error) {
		s := x.idlest(not)
		if s.instance < 0 && by.IsZero() { // else the parent waits
			return nil, errNoOther
		}
		return s, nil
	})
}

func (x *across) idlest(not target) targetAcross {
	own := x.app.conf().Isolation == OwnProcess
	s := targetAcross{x.child, x.app.name, -1, !own && x.app.conf().Serve == nil}
	if own {
		where := x.child.slots[x.app.name]
		s.instance = idlest(where.Len, func(i int) (int64, bool) {
			slot := x.child.page.Slot(where.First + i)
			return slot.Load(), slot.State.Load() == slotReady && !slot.Doubted() && target(targetAcross{x.child, x.app.name, i, false}) != not
		})
	}
	return s
}

// check looks at the page: at the instances that are ready, or at the app in the parent.
func (x *across) check(by time.Time) error {
	where, own := x.child.slots[x.app.name], x.app.conf().Isolation == OwnProcess
	if back := x.child.page.Slot(where.First).Back.Load(); back > 0 {
		return awayUntil(time.Unix(0, back))
	}
	var all candidates
	for i := range where.Len {
		if slot := x.child.page.Slot(where.First + i); !own || slot.State.Load() == slotReady {
			all = append(all, slot)
		}
	}
	return all.check(by)
}

func (x *across) connect(ctx context.Context, _ string) (net.Conn, error) {
	return x.child.dial(ctx, dialling{App: x.app.name, Instance: -1})
}

func (x *across) open()                       {}
func (x *across) quiet(context.Context) error { return nil }
func (x *across) close(context.Context)       {}
