package watt

import (
	"context"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/org/watt/internal/count"
)

// place is where an app's instances are, and the way in for requests and connections: a [door] to handlers of
// this process, a [relay] to listeners of this process, [processes] of their own or, seen from one of those, [across],
// or a [remote] elsewhere.
type place interface { //nolint:interfacebloat // one for each step of an app's life
	// open lets the mesh in. The app's goroutines may already call others.
	open()
	// begin returns a new life for the instance with that number.
	begin(index int) life
	// listen gives the place a public side, and publish opens that once the app is ready.
	listen(ln net.Listener)
	publish()
	// addr returns where the public side listens, or "".
	addr() string

	// send admits a call and sends its request, with the trace that the call hands on.
	send(c *call, req *http.Request) (*http.Response, error)
	// connect opens a raw connection for the app called caller.
	connect(ctx context.Context, caller string) (net.Conn, error)

	// accept takes a connection from another process, for one instance, or any if that is -1.
	accept(ctx context.Context, conn *os.File, what connection, instance int) error

	// remove gives up what an instance had that does not come back.
	remove(ctx context.Context, index int) error

	// check returns an error if work that is to end in a call had better not be begun now. The call has to be over by then,
	// unless by is zero.
	check(by time.Time) error
	// count fills in what is counted of the app, served returns what is of one instance, and called what is of the
	// app's calls of another.
	count(s *Status)
	served(index int) *count.Served
	called(callee string) *count.Calls
	// listeners tells of those of the public side.
	listeners() []ListenerStatus
	// adopt puts new limits into force.
	adopt(config *App)

	// lameDuck makes every answer of the public side tell its client to go away. It does not wait for an instance that does
	// not listen.
	lameDuck()
	// quiet lets the public side's clients go, and waits until nothing of theirs is in progress, or ctx ends.
	quiet(ctx context.Context) error
	// awaitAnswers waits until all answers are out, or ctx ends: those that are not will be cut.
	awaitAnswers(ctx context.Context) error
	// close closes everything; what is in progress when ctx ends is cut.
	close(ctx context.Context)
}

func newPlace(a *app, config *App) place {
	switch child := a.rt.child; {
	case config.URL != "":
		return newRemote(a, config)
	case child != nil && child.birth.App != a.name:
		return &across{absent{inside{a}}, child}
	case child == nil && config.Isolation == OwnProcess:
		return newProcesses(a)
	case config.Serve != nil:
		return newRelay(a)
	}
	return newDoor(a)
}

// inside is what the places have in common whose requests are admitted here.
type inside struct{ app *app }

func (p inside) check(by time.Time) error {
	if err := p.app.pool.Check(by); err != nil {
		return p.app.explain(err)
	}
	return p.app.away()
}

func (p inside) count(s *Status) {
	pool := p.app.pool.Stats()
	s.Busy, s.Queued, s.Conns, s.Overloaded = pool.Busy, pool.Queued, p.app.conns.count(), pool.Overloaded
	s.Streams, s.Upgraded = int(p.app.streams.Load()), p.app.conns.upgraded()
	var counted count.Admission
	p.app.storeAdmission(&pool, &counted)
	s.loadAdmission(&counted)
	s.Panics = p.app.tallies.panics()
}

func (p inside) served(index int) *count.Served { return p.app.tallies.instance(index) }

func (p inside) called(callee string) *count.Calls { return p.app.mesh.edges[callee].calls }

// awaitAnswers has nothing to do where handlers return once their answers are out.
func (p inside) awaitAnswers(context.Context) error { return nil }

// remove has nothing to do: connections do not belong to instances here.
func (p inside) remove(context.Context, int) error { return nil }

func (p inside) adopt(config *App) {
	p.app.pool.Resize(poolLimits(config))
	p.app.conns.resize(config.MaxConns)
}

// only tells of the one listener of an app in this process.
func (p inside) only(ln net.Listener) []ListenerStatus {
	n, err := queued(ln)
	if err != nil {
		n = -1
	}
	return []ListenerStatus{{Accepted: count.Read(&p.app.tallies.instance(0).Accepted), Queued: n, Chosen: true}}
}

// absent is what the places have in common whose app does not run in this process: there is nothing to start, and no
// public side.
type absent struct{ inside }

func (absent) begin(int) life              { panic("watt: the app has no instance in this process") }
func (absent) listen(net.Listener)         {}
func (absent) publish()                    {}
func (absent) addr() string                { return "" }
func (absent) listeners() []ListenerStatus { return nil }
func (absent) lameDuck()                   {}

func (absent) accept(_ context.Context, conn *os.File, _ connection, _ int) error {
	_ = conn.Close()
	return ErrUnavailable
}
