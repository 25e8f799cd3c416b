// Package watt runs several applications inside one program.
//
// Each [App] has a name, its own handler, a bounded number of workers with a bounded queue in front,
// and a life of its own: it is started, supervised, drained and stopped by a [Runtime]. Apps call
// each other by name, without leaving the process, and only those that ask for it have a public port:
//
//	rt := watt.New(
//		watt.App{Name: "web", Listen: ":8080", Calls: []string{"users"}, New: newWeb},
//		watt.App{Name: "users", Handler: http.HandlerFunc(serveUser)},
//	)
//	err := rt.Run(ctx) // until ctx ends; then everything is drained
//
// where newWeb gets an [Env] with which it calls http://users.watt.local.
//
// # What an app can rely on
//
// It is called only by the apps that name it in Calls. It works on at most Workers requests at a time
// per instance; others wait in its queue, in order (the newest first while not all can be served in time), and are
// shed when that is full or the wait too long: see [App] for the limits and [CallError] for what a caller
// is told. A request's context carries its caller's deadline, if it has one, its cancellation and its
// trace through every call made with it.
//
// # What it cannot
//
// Apps in one process share its memory and its fate; with [OwnProcess] they need not. A panic in a handler, in
// New or in Serve is contained. A panic in a goroutine that an app has started itself, a fatal error such as
// concurrent map writes, or os.Exit ends the program with all apps in it. A handler that ignores its context
// cannot be killed: it keeps its worker, and is reported as abandoned when its instance stops.
//
// The library installs no signal handlers, never exits the process, and keeps no global state: the
// program's main owns those. Only a process that it has started for an instance is its own: see [IsChild].
package watt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/console"
	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/timers"
)

// Runtime runs apps. Make one with [New]. The exported fields may be set until it starts; the methods
// are safe for concurrent use.
type Runtime struct {
	// Logger gets a line for every start, restart, drain and stop, for panics, and for failed requests as [WriteError]
	// says, each with app and instance. If nil, warnings and errors go to standard error, as lines for people; [zap.NewNop]
	// silences them.
	Logger *zap.Logger

	// Level, if set, is the level of Logger. An instance in a process of its own, where main makes another Logger, begins
	// with the first process's level; SetLevel changes it in all of them.
	Level *zap.AtomicLevel

	// ShutdownTimeout bounds the whole of Shutdown: what is in progress then is cut. Code that ignores
	// the end of its context gets one more second to return before it is left behind. If zero, 30 s. -1:
	// no limit.
	ShutdownTimeout time.Duration

	// Admin, if set, is served outside admission, from before the first app starts until after the
	// last has stopped. Its Addr must be set. If its Handler has a method CheckAddr(addr string) error, the
	// runtime does not start where that returns one. Requests in progress there at the end are cut after a second.
	Admin *http.Server

	// Transport, if set, wraps the transport of every Env.Client; caller is the name of the app that
	// the client belongs to, "" for main. It is called once per app; if it returns nil, next is used as it is. [AppOf]
	// tells which app a request is for.
	Transport func(caller string, next http.RoundTripper) http.RoundTripper

	// Listen, if set, opens public listeners and that of Admin, instead of [net.ListenConfig]. If another program has the
	// socket of one too, that goes on there after Shutdown.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)

	// Output, if set, is given each line that an instance in a process of its own writes to stdout or stderr, after
	// the line has been written to the same stream of this process; long lines come in pieces of 4 KiB. The instance
	// waits while Output blocks; one that has ended is replaced all the same, 2 s later, and of the lines that have not come
	// through by then most are lost, and some may come as late as after Run has returned.
	Output func(app string, instance int, line string)

	console func() *zap.Logger // stands in for Logger; always the same one
	buffers pipe.Buffers
	timers  timers.Pool
	outside http.RoundTripper // where hosts outside the mesh are called
	running atomic.Pointer[map[string]*app]
	mesh    *mesh          // main's way to the apps
	owned   sync.WaitGroup // every goroutine that the runtime itself has started
	failed  chan error     // why Run has to end
	ran     atomic.Bool    // Run was called
	envOnce sync.Once
	env     *Env // main's, made when it is first asked for

	life     context.Context //nolint:containedctx // of instances added by Update; it ends with Shutdown
	endLife  context.CancelCauseFunc
	patience *patience
	nursery  *nursery        // of own processes; nil if there are none
	child    *child          // what this runtime is, in a process of its own; nil in the first
	labels   context.Context //nolint:containedctx // Start's, for the goroutines of the apps
	updating chan struct{}   // holds an element during an Update, and while the runtime stops

	mu          sync.Mutex
	phase       phase
	configs     []App
	apps        []*app
	admin       net.Listener
	cancelStart context.CancelCauseFunc
	startDone   chan struct{} // closed when Start has come to its end
	stopped     chan struct{} // closed when Shutdown has
	stopErr     error
}

var (
	errRunning  = errors.New("watt: the runtime runs already: it starts only once")
	errStarting = errors.New("watt: the runtime is starting already: it starts only once")
	errEnded    = errors.New("watt: the runtime was told to stop: it starts only once; make another one with New")
)

// phase is how far a runtime's life has come.
type phase int

const (
	phaseNew phase = iota
	phaseStarting
	phaseRunning
	phaseStopping
)

// New returns a runtime of apps. It starts nothing and never fails: what is wrong with the apps is
// reported by [Runtime.Run] or [Runtime.Start].
func New(apps ...App) *Runtime {
	rt := &Runtime{
		configs: slices.Clone(apps), outside: outsideTransport(),
		console: sync.OnceValue(func() *zap.Logger { return console.New(os.Stderr) }),
		failed:  make(chan error, 1), startDone: make(chan struct{}), stopped: make(chan struct{}),
		updating: make(chan struct{}, 1), patience: newPatience(),
	}
	for i, config := range rt.configs {
		rt.configs[i].Calls = slices.Clone(config.Calls)
	}
	rt.life, rt.endLife = context.WithCancelCause(context.Background())
	rt.mesh = newMesh(rt, "")
	return rt
}

// outsideTransport is an ordinary transport that belongs to one runtime.
func outsideTransport() http.RoundTripper {
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		return t.Clone()
	}
	return http.DefaultTransport
}

func (rt *Runtime) log() *zap.Logger {
	if rt.Logger == nil {
		return rt.console()
	}
	return rt.Logger
}

// Run starts all apps, unless Start has done so, blocks until ctx ends or a critical app has failed, and
// shuts down. It returns nil if it was told to end and nothing had to be cut, and otherwise what went wrong:
// the mistakes in the configuration, the failed start, the critical app's error, or what the shutdown
// reports. When it has returned, no goroutine, descriptor or connection of the runtime is left, unless it
// says that something had to be abandoned, or Output blocks. A runtime runs once.
//
// With instances in processes of their own, call it from main's goroutine: in a child it does not return, while
// other goroutines of main run there, too. See [IsChild].
func (rt *Runtime) Run(ctx context.Context) error {
	if !rt.ran.CompareAndSwap(false, true) {
		return errors.New("watt: a runtime runs only once")
	}
	if err := rt.Start(ctx); err != nil && !errors.Is(err, errRunning) {
		told := ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) || errors.Is(err, errStopped)
		if told && !errors.Is(err, errAbandoned) {
			return nil // told to end before it had begun
		}
		return err
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-rt.failed:
	case <-rt.stopped: // somebody else has called Shutdown
	}
	return errors.Join(err, rt.Shutdown(context.WithoutCancel(ctx)))
}

// fail makes Run end with err.
func (rt *Runtime) fail(err error) { offer(rt.failed, err) }

// phaseFor returns how far the runtime's life has come, or in the process of an instance an error: what is a matter for the
// first process.
func (rt *Runtime) phaseFor(what string) (phase, error) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return rt.phaseForLocked(what)
}

func (rt *Runtime) phaseForLocked(what string) (phase, error) {
	if rt.child != nil {
		return 0, fmt.Errorf("watt: %s: this is the process of an instance: only the first process can do that", what)
	}
	return rt.phase, nil
}

// app returns the app of that name, or nil.
func (rt *Runtime) app(name string) *app {
	if apps := rt.running.Load(); apps != nil {
		return (*apps)[name]
	}
	return nil
}

// Ready is the readiness probe. It returns nil if every app has an instance that is ready and none that was
// given up, and otherwise an error that names the apps and says what is wrong. An instance that shows no sign
// of life is not ready. An app with a URL counts as ready: whether it answers is known to those who call it. In the
// process of an instance it tells of that alone.
func (rt *Runtime) Ready() error {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	switch rt.phase {
	case phaseNew:
		return errors.New("watt: not started")
	case phaseStopping:
		select {
		case <-rt.stopped:
			return errors.New("watt: stopped")
		default:
			return errors.New("watt: shutting down")
		}
	case phaseStarting, phaseRunning:
	}
	var errs []error
	for _, a := range rt.apps {
		if rt.child != nil && a.name != rt.child.birth.App {
			continue
		}
		if err := a.ready(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 && rt.phase == phaseStarting {
		return errors.New("watt: starting")
	}
	return errors.Join(errs...)
}

// Env is the mesh as main and tests see it: it may call every app. Its calls have no caller. Before
// the start they fail with [ErrUnavailable]. It is always the same one, with the Logger that was set when it
// was first asked for; what its Cleanup is given runs at the end of Shutdown.
func (rt *Runtime) Env() *Env {
	rt.envOnce.Do(func() {
		registry := newRegistry("", 0)
		rt.env = &Env{
			Client:   &http.Client{Transport: lateTransport{rt}, CheckRedirect: checkRedirect},
			Logger:   rt.log(),
			Metrics:  registry,
			mesh:     rt.mesh,
			registry: registry,
			labels:   context.Background(),
		}
	})
	return rt.env
}
