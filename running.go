package watt

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/direct"
)

// app is an App that runs: its door or whatever stands for it, its admission, and its instances.
type app struct {
	rt     *Runtime
	name   string
	log    *zap.Logger
	news   *zap.Logger         // log, for the steps of its life; a child's are its parent's to tell
	direct direct.Common       // what calls without a wire share; its ErrorLog writes to log
	config atomic.Pointer[App] // with defaults; Update replaces it
	first  int                 // the number of the first instance: 0, but in a child

	mesh    *mesh // the way out
	client  *http.Client
	callers []*app
	callees []*app

	place place

	pool   *admission.Pool[*generation]
	passes requests // those that siblings serve, in a process of its own
	conns  conns
	sheds  summary // at the door
	faults summary // by handlers, with 503
	fails  summary // those that are answered with another error

	restarts, abandoned atomic.Uint64
	connsShed           atomic.Uint64
	streams             atomic.Int64 // long-lived requests, which conns has too
	tallies             tallies
	waits               waits

	started chan struct{} // closed when the first start has succeeded
	drained chan struct{} // closed when the drain is over

	mu        sync.Mutex
	instances []*instance
	since     time.Time
	was       string        // the state that since belongs to
	change    chan struct{} // closed and replaced when an instance's state changes
	closing   bool          // the app drains or has
	refusing  bool          // every instance has failed
	fault     error         // why a door has ended by itself
}

func newApp(rt *Runtime, config App) *app {
	log := rt.log().With(zap.String("app", config.Name))
	a := &app{
		rt: rt, name: config.Name, log: log, news: log,
		direct: direct.Common{Buffers: &rt.buffers, Timers: &rt.timers, ErrorLog: zap.NewStdLog(log)},
		pool:   admission.New[*generation](poolLimits(&config)),
		sheds:  summary{log: log, what: "shed requests"},
		faults: summary{log: log, what: "answered requests with 503"},
		fails:  summary{log: log, what: "more requests failed", alone: mostFailures},

		started: make(chan struct{}), drained: make(chan struct{}),
		since: time.Now(), was: stateNew, change: make(chan struct{}),
	}
	if rt.child != nil {
		a.news = zap.NewNop()
	}
	a.config.Store(&config)
	a.conns.resize(config.MaxConns)
	a.mesh = newMesh(rt, a.name)
	a.mesh.transport = a.mesh.wrapped()
	a.client = &http.Client{Transport: a.mesh.transport, CheckRedirect: checkRedirect}
	a.place = newPlace(a, &config)
	return a
}

// conf returns the configuration in force.
func (a *app) conf() *App { return a.config.Load() }

// elsewhere reports whether nothing of the app runs here.
func (a *app) elsewhere() bool {
	_, across := a.place.(*across)
	return across || a.conf().URL != ""
}

// instance returns one of the instances, or nil.
func (a *app) instance(index int) *instance {
	a.mu.Lock()
	defer a.mu.Unlock()
	if index < 0 || index >= len(a.instances) {
		return nil
	}
	return a.instances[index]
}
