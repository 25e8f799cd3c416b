package watt

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/org/watt/internal/control"
)

// What parent and child say to each other, in this order at the start. Descriptors travel with it.
const (
	sayHello   = "hello"   // child: main has reached Run
	sayBegin   = "begin"   // parent: with the page, and the public listener if there is one
	sayReady   = "ready"   // child
	sayFailed  = "failed"  // child: the start has failed
	sayConn    = "conn"    // parent: with a connection of the mesh
	sayPublic  = "public"  // parent: with a connection of the public side, that another instance's listener got
	sayDial    = "dial"    // child: wants a connection to an app
	sayDialled = "dialled" // parent: with it
	sayForget  = "forget"  // child: nobody waits for it any more
	sayAdopt   = "adopt"   // parent: the terms anew
	sayLame    = "lame"    // parent: tell public clients to go
	sayDrain   = "drain"   // parent
	sayEnded   = "ended"   // child: its Serve, or a door, has ended by itself; it waits for the parent to let it drain
	sayDrained = "drained" // child, and then it ends
)

// task goes with sayBegin.
type task struct {
	terms
	Slots map[string]span // where the page has the instances of each app
	Calls int             // where the page counts the instance's first callee; the others follow, as Calls names them
}

// terms are what an instance in another process has to know that may change. They go with sayAdopt.
type terms struct {
	Limits map[string]limits // its own, and by name those of the apps that it calls
	Level  *int8             // of the log, as a number, since not every one has a name; nil if that is its own affair
}

// limits are the fields of App that may change while it runs and that other processes have to know.
type limits struct {
	Workers, Queue, MaxConns            int
	QueueTimeout, Timeout, DrainTimeout time.Duration
	StartTimeout                        time.Duration // what it says when that is over, its parent waits for
	ReadyPath                           string
}

func limitsOf(c *App) limits {
	return limits{c.Workers, c.Queue, c.MaxConns, c.QueueTimeout, c.Timeout, c.DrainTimeout, c.StartTimeout, c.ReadyPath}
}

// apply returns c with the limits.
func (l limits) apply(c App) App {
	to := reflect.ValueOf(&c).Elem()
	for field, limit := range reflect.ValueOf(l).Fields() {
		to.FieldByName(field.Name).Set(limit)
	}
	return c
}

// terms returns those in force.
func (a *app) terms() terms {
	t := terms{Limits: map[string]limits{a.name: limitsOf(a.conf())}}
	for _, callee := range a.callees {
		t.Limits[callee.name] = limitsOf(callee.conf())
	}
	if a.rt.Level != nil {
		level := int8(a.rt.Level.Level())
		t.Level = &level
	}
	return t
}

// span is where slots are in the page.
type span struct{ First, Len int }

// startFailure goes with sayFailed.
type startFailure struct {
	Error string
	Late  bool // its time was up
}

func (f startFailure) err() error {
	if f.Late {
		return lateError{f.Error}
	}
	return errors.New(f.Error)
}

// connection goes with sayConn.
type connection struct {
	Caller string
	Handed bool // by a sibling that was busy: whoever the request names is the caller
	Errand bool // of the runtime's own: it is not for the app
	Trunk  bool // of many calls
}

// dialling goes with sayDial. The ID is the child's, by which it knows the answer.
type dialling struct {
	ID       uint64
	App      string
	Instance int // -1: any
	Handed   bool
	Trunk    bool
	Within   time.Duration // 0: no limit
}

// forgotten goes with sayForget.
type forgotten struct{ ID uint64 }

// dialled goes with sayDialled.
type dialled struct {
	ID   uint64
	Kind int // of the error, see kinds; 0: there is none
	Text string
}

// maxSaid is how much of an error a child tells its parent, in bytes: whatever it is made of, a message has room for it.
const maxSaid = 8 << 10

// shortened returns the text of an error, or the beginning of a long one.
func shortened(err error) string {
	text := err.Error()
	if more := len(text) - maxSaid; more > 0 {
		return fmt.Sprintf("%s … and %d bytes more", text[:maxSaid], more)
	}
	return text
}

// draining goes with sayDrain.
type draining struct{ Within time.Duration } // 0: no limit

// fault goes with sayEnded.
type fault struct{ Error string }

// drained goes with sayDrained.
type drained struct{ Error string } // "": nothing had to be cut

// kinds are the errors that keep their identity between processes. One that wraps another follows it.
func kinds() []error {
	return []error{nil, ErrUnavailable, ErrNoSuchApp, ErrNotAllowed, ErrOverloaded, errAway}
}

// kindUnavailable is the place of ErrUnavailable in kinds, which stands for all errors that have none there.
const kindUnavailable = 1

// decode decodes a message.
func decode[T any](m control.Message, f func(T)) error {
	var v T
	if err := json.Unmarshal(m.Data, &v); err != nil {
		return fmt.Errorf("message %q: %w", m.Kind, err)
	}
	f(v)
	return nil
}

// offer sends what is heard only once.
func offer[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}
