package watt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Env is what one instance of an app is given: its place in the runtime and its way to other apps.
// All of it is safe for concurrent use. A runtime makes it: one that was made by hand reaches no app, so a test starts its
// app with watttest, or takes [Runtime.Env].
type Env struct {
	// App and Instance tell which app this is, and which of its instances, counted from 0.
	App      string
	Instance int

	// Client calls other apps as http://<app>.watt.local, any port being ignored, and everything else as an ordinary
	// client would. Give requests the context of the request being served: with it travel deadline, cancellation and
	// trace. Failed calls of apps are [*CallError]s. Close the body of each answer: a long one that is neither closed
	// nor read to its end keeps the callee's worker until the context ends. The client has no Timeout of its own (in a
	// copy that has one, net/http hides the CallError once that is up: end a context instead), and does not follow a
	// redirect from the outside into the mesh. As with net/http, the body of a 101 answer is a connection that is open
	// until it is closed, whatever becomes of the request's context; the deadline of that is the callee's context's all
	// the same. The connection that a [net/http/httptrace.ClientTrace] is told of may be that of other calls too, and
	// there may be none. One that panics can end the program where net/http makes the call: gRPC calls, those of apps
	// with a URL, and outside ones.
	Client *http.Client

	// Logger carries the app and the instance in every line. It is never nil; if the runtime's is, it writes only
	// warnings and errors.
	Logger *zap.Logger

	// Metrics takes the app's own metrics, and labels them with watt_app and watt_instance. Every
	// generation of an instance has a fresh one, gathered by [Runtime.Gather] while that lives: counters begin anew.
	// If a Collector does not return within a second, all that its generation has registered is left out. Metrics of one
	// name have the same type and help in all apps: of those that differ only the first shows, and Gather returns an error.
	Metrics prometheus.Registerer

	mesh     *mesh
	registry *registry
	labels   context.Context //nolint:containedctx // of the goroutines that run the app's code, in profiles

	mu       sync.Mutex
	cleanups []func() error
}

// Get is Client.Get with a context, which ends the call and the reading of its body.
func (e *Env) Get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	if e.Client == nil {
		return nil, madeByHand(req.URL.Host)
	}
	return e.Client.Do(req)
}

// Dial opens a raw connection to app, given as a name, host or host:port, so that it fits
// grpc.WithContextDialer. It waits while the app restarts, as long as the app's QueueTimeout allows
// or until ctx ends. The connection counts under the app's MaxConns until it is closed. Errors are [*CallError]s.
//
// Of an app with a URL it is a connection to the URL's host, by TLS if the URL is https: for gRPC, the app's TLS then has
// "h2" among its NextProtos. The app does not learn who calls, and Workers do not bound the calls on it.
func (e *Env) Dial(ctx context.Context, app string) (net.Conn, error) {
	if e.mesh == nil {
		return nil, madeByHand(app)
	}
	return e.mesh.dial(ctx, app)
}

// Check is [Env.CheckContext] without a deadline.
func (e *Env) Check(app string) error {
	return e.check(app, time.Time{})
}

// CheckContext returns an error if work that is to end in a call of app had better not be begun now, or nil. It is a
// [*CallError], with RetryAfter, as the call's would be:
//
//   - The call may not be made, or its app drains or has been given up.
//   - No worker is free, and the queue is full. While the app is overloaded, a call might get a place nevertheless: that of
//     the one that has waited longest.
//   - No worker is free, and whoever waits would not be served within the app's QueueTimeout, or this call would not be
//     answered before the deadline of ctx, if it has one. That is estimated from how long requests took lately, and
//     how many wait.
//   - No instance is there, and the last start has failed, or the next is further away than QueueTimeout. Calls wait for
//     an app that only restarts.
//
// Of an app elsewhere it knows only the calls in progress from this process. CheckContext does not block. It reserves
// nothing: what others begin in the meantime may come first.
func (e *Env) CheckContext(ctx context.Context, app string) error {
	by, _ := ctx.Deadline()
	return e.check(app, by)
}

func (e *Env) check(app string, by time.Time) error {
	if e.mesh == nil {
		return madeByHand(app)
	}
	return e.mesh.check(app, by)
}

// madeByHand is the error of a call by an Env that no runtime has made.
func madeByHand(app string) error {
	return &CallError{App: nameOf(app), Err: fmt.Errorf("%w: no runtime has made this Env: start the app with watttest, or take Runtime.Env", ErrNoSuchApp)}
}

// Cleanup adds a function that runs after the instance has drained, or when its start fails; the
// last one added runs first. It takes db.Close as it is. Errors are logged and reported by Shutdown, and
// so is a function that does not return in time: those of an instance have 10 s together, or what is left
// of ShutdownTimeout, but at least a second.
func (e *Env) Cleanup(f func() error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cleanups = append(e.cleanups, f)
}

// cleanup runs what was added, last first. What does not return before ctx ends is left behind.
func (e *Env) cleanup(ctx context.Context) error {
	e.mu.Lock()
	cleanups := e.cleanups
	e.cleanups = nil
	e.mu.Unlock()
	var errs []error
	for _, f := range slices.Backward(cleanups) {
		done := e.run("Cleanup", f)
		select {
		case err := <-done:
			errs = append(errs, err)
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("a Cleanup %w", errAbandoned))
		}
	}
	return errors.Join(errs...)
}

// run calls code of the app's in a goroutine. A panic, and [runtime.Goexit], become its error.
func (e *Env) run(what string, f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		pprof.SetGoroutineLabels(e.labels)
		err := fmt.Errorf("%s has ended its goroutine", what)
		defer func() { done <- err }()
		defer e.recovered(what, &err)
		err = f()
	}()
	return done
}

// recovered makes an error of a panic in code of the app's.
func (e *Env) recovered(what string, err *error) {
	if reason := recover(); reason != nil {
		*err = fmt.Errorf("panic in %s: %v", what, reason)
		e.Logger.Error("panic in "+what, // encoding reason might panic
			zap.String("panic", fmt.Sprint(reason)), zap.ByteString("stack", debug.Stack()))
	}
}
