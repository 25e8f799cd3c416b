package watt

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// birthVariable tells a child who it is to be.
const birthVariable = "WATT_CHILD"

// birth is who a child is to be.
type birth struct {
	Parent   int    `json:"parent"` // its process
	App      string `json:"app"`
	Instance int    `json:"instance"`
	Program  string `json:"program"` // the file that the parent runs
	Table    string `json:"table"`   // of the parent's apps, see tableOf
}

// testVariable tells that children of a test binary find their way to Run.
const testVariable = "WATT_TEST_PROCESSES"

// inTest reports whether this is a test binary.
func inTest() bool { return flag.Lookup("test.v") != nil }

// IsChild reports whether this process runs one instance, for a runtime in its parent process. Main runs again
// in such a process, up to [Runtime.Run] or [Runtime.Start], which never return there: what stands before is
// done in every process, what comes after only in the first. So main should open no database and bind no port
// before, as [App.New] can, nor spend seconds; where something must stand before and be done once, it is for
// main to ask.
func IsChild() bool {
	_, child := born()
	return child
}

// born returns who this process is to be, if it is a child. What a child starts itself inherits the variable,
// and is none.
func born() (birth, bool) {
	var b birth
	err := json.Unmarshal([]byte(os.Getenv(birthVariable)), &b)
	return b, err == nil && b.Parent == os.Getppid()
}

// variable returns b for the environment.
func (b birth) variable() string {
	text, _ := json.Marshal(b) // of numbers and strings
	return birthVariable + "=" + string(text)
}

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
	sayAdopt   = "adopt"   // parent: new limits
	saySettle  = "settle"  // parent: what is long-lived is to go
	sayLame    = "lame"    // parent: tell public clients to go
	sayDrain   = "drain"   // parent
	sayDrained = "drained" // child, and then it ends
)

type task struct {
	Limits limits
	Slot   int // of the instance, in the page
	Slots  map[string]span
	Calls  int // where the page counts the instance's first callee; the others follow, as Calls names them
}

// limits are what may change of an app while it runs.
type limits struct {
	Workers, Queue, MaxConns            int
	QueueTimeout, Timeout, DrainTimeout time.Duration
	ReadyPath                           string
}

func limitsOf(c *App) limits {
	return limits{c.Workers, c.Queue, c.MaxConns, c.QueueTimeout, c.Timeout, c.DrainTimeout, c.ReadyPath}
}

// apply returns c with the limits.
func (l limits) apply(c App) App {
	c.Workers, c.Queue, c.MaxConns = l.Workers, l.Queue, l.MaxConns
	c.QueueTimeout, c.Timeout, c.DrainTimeout, c.ReadyPath = l.QueueTimeout, l.Timeout, l.DrainTimeout, l.ReadyPath
	return c
}

// span is where the page has an app's instances.
type span struct{ First, Len int }

type failing struct{ Error string }

type connection struct {
	Caller string
	Handed bool // by a sibling that was busy: whoever the request names is the caller
	Errand bool // of the runtime's own: it is not for the app
}

type dialling struct {
	ID       uint64
	App      string
	Instance int // -1: any
	Handed   bool
	Within   time.Duration // 0: no limit
}

type dialled struct {
	ID   uint64
	Kind int // of the error, see kinds; 0: there is none
	Text string
}

type draining struct{ Within time.Duration } // 0: no limit

type drained struct{ Error string }

// kinds are the errors that keep their identity between processes.
func kinds() []error { return []error{nil, ErrUnavailable, ErrNoSuchApp, ErrNotAllowed, ErrOverloaded} }

// tableOf returns a hash of what parent and child must agree on: which apps there are, what they run and whom
// they call. Limits may differ, since they can be changed while the parent runs.
func tableOf(configs []App) string {
	hash := sha256.New()
	for i := range configs {
		c := configs[i].withDefaults()
		fmt.Fprintln(hash, c.Name, c.Handler != nil, c.New != nil, c.Serve != nil, c.URL != "", c.Calls, c.Isolation, c.Listen != "", c.TLS != nil)
	}
	return base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:16])
}

// States of an instance in the page.
const (
	slotReady  = 1 // it may be given work
	slotSilent = 2 // it shows no sign of life
)
