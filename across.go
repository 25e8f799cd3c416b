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
		s.child.slots[s.app][s.instance].Doubt()
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
	s := targetAcross{child: x.child, app: x.app.name, instance: -1}
	config := x.app.conf()
	if config.Isolation != OwnProcess {
		s.door = config.Serve == nil
		return s
	}
	slots := x.child.slots[s.app]
	s.instance = idlest(len(slots), func(i int) (int64, bool) {
		slot := &slots[i]
		return slot.Load(), slot.State.Load() == slotReady && !slot.Doubted() &&
			target(targetAcross{child: x.child, app: s.app, instance: i}) != not
	})
	return s
}

// check looks at the page: at the instances that are ready, or at the app in the parent.
func (x *across) check(by time.Time) error {
	slots, own := x.child.slots[x.app.name], x.app.conf().Isolation == OwnProcess
	if back := slots[0].Back.Load(); back > 0 {
		return awayUntil(time.Unix(0, back))
	}
	var all candidates
	for i := range slots {
		if slot := &slots[i]; !own || slot.State.Load() == slotReady {
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
