package watt

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/org/watt/internal/cgroup"
	"github.com/org/watt/internal/process"
)

// App describes one application: its name, what it runs, whom it calls and how much it takes on.
//
// Apps share nothing but calls: a map or counter that two apps reach through a closure works in one
// process and silently splits as soon as one of them moves to a process or machine of its own.
//
// Every zero value has a default, which [Runtime.Status] shows. Where -1 is allowed, the field says
// what it means. All mistakes are reported together when the runtime starts.
type App struct {
	// Name is the app's name everywhere: in URLs (http://name.watt.local), logs, metrics and errors.
	// It is a DNS label: lower-case letters, digits and inner hyphens, at most 63 of them.
	Name string

	// Handler, New or Serve is what the app runs; exactly one is set (none is needed with URL).
	//
	// Handler serves the app's requests. It is shared by all instances. Calls of other apps arrive as over HTTP/1.1, but
	// most without a connection of their own: a request without an Upgrade header cannot be hijacked, and a handler
	// may answer while it reads.
	Handler http.Handler `json:"-"`

	// New makes the handler of one instance. It may block (to open a database, say); ctx ends when
	// the start is given up, and otherwise after the instance has drained, so that background
	// goroutines of the app can live by it. A panic in New is an error of the start.
	//
	// A panic in a goroutine that the app starts itself ends the whole program, as does a fatal
	// error of the Go runtime: apps in one process share that fate.
	New func(ctx context.Context, env *Env) (http.Handler, error) `json:"-"`

	// Serve runs an app that speaks something else than HTTP, or brings its own server. Connections
	// of the mesh and of Listen arrive at ln; RemoteAddr of a mesh connection names the caller. When ctx
	// ends, Serve has DrainTimeout to finish its connections and return; ln stays open until then, so a
	// Serve that waits in Accept needs a context.AfterFunc(ctx, …) that closes it. What is open when Serve returns is
	// cut: where it has an [http.Server], it waits for the end of Shutdown. If it returns before ctx ends, with
	// an error or without, or panics, the instance has ended, and is restarted. watt sees connections here, not
	// requests: those of Listen and of [Env.Dial] count under MaxConns, and calls through [Env.Client] hold a
	// worker until the response body is closed. Calls from one process to another hold none: if there are any, Serve has
	// to bound what it takes on.
	//
	// An app that works in the background is a Serve, too. It need not call Accept, if no app's Calls names it and it has
	// no Listen; others are ready only then.
	Serve func(ctx context.Context, env *Env, ln net.Listener) error `json:"-"`

	// URL, if set, wins over Handler, New and Serve: the app runs elsewhere, behind this base URL (http or https), and
	// nothing is started here: its Listen is not opened, nor its ReadyPath asked for. Calls go there, through the same
	// admission, to the path that they name, as it is, below URL's; if URL has one, a path with ".." is an error. Those of
	// gRPC need HTTP/2 there, which Protocols has to allow a Listen without TLS. A GET, HEAD, OPTIONS or TRACE without a body
	// is sent again if a kept connection of HTTP/1 ends without an answer, and over HTTP/2 what was refused unbegun is; nothing
	// else is. Deadline, caller and headers beginning with X-Watt- are believed there if that app's Listen demands the
	// certificate that TLS gives. The log sums up why calls fail that get no answer.
	URL string

	// Calls names the apps that this one may call. If nil, it may call none. Calls also gives the
	// order of the start (callees first) and must have no cycles.
	Calls []string

	// Listen is the public TCP address ("127.0.0.1:8080", ":0"). If empty, only the mesh reaches the app.
	//
	// Strangers have 10 s for the headers of a request, which may have 64 KiB, and 30 s to take each piece of its answer;
	// idle connections are closed after 2 minutes. A body may be as long as Timeout lets it: see [http.MaxBytesReader].
	// CONNECT, names of the mesh, headers that are trusted inside, such as all that begin with X-Watt-, and an Upgrade to
	// anything but WebSocket do not come in. Of a Serve app's connections watt bounds the number, and sees nothing else.
	Listen string

	// TLS is the server's configuration for Listen, and the client's for URL. If nil, Listen is plain
	// and URL uses the system's roots. A Listen that requires and verifies client certificates trusts
	// its peers: it keeps the headers that are otherwise removed, and the caller is the certificate's
	// first DNS name.
	TLS *tls.Config `json:"-"`

	// Protocols are those of Listen. If nil, HTTP/1 and, with TLS, HTTP/2.
	Protocols *http.Protocols `json:"-"`

	// Profile picks defaults, nothing else. If zero, Domain is used.
	Profile Profile

	// Isolation is where instances live. If zero, the profile decides.
	Isolation Isolation

	// Instances is the number of running copies. If zero: 1, which is nearly always right in one process (more are for
	// state that must not be shared and for restarts without a gap); CPUBound in processes of its own, one for each
	// processor of the container. At most 1024, of which 64 can have processes of their own.
	Instances int

	// Workers bounds the requests in progress of one instance (never its connections). If zero: 64;
	// Entrypoint 256; IOBound 16 (make it the backend's pool); CPUBound 1 in a process of its own, and else
	// its share of GOMAXPROCS-1 among all instances of such apps. Each has 1 at least, so that more instances than that
	// have more workers together; the log says so.
	Workers int

	// Queue is how many requests may wait for a worker: of all instances together, or of each if they have processes of
	// their own. If zero: 256; Entrypoint 64; IOBound 128; CPUBound 16. -1: none may wait.
	Queue int

	// QueueTimeout is how long a request may wait for a worker, or for an instance that restarts. If
	// zero: 1 s; Entrypoint 100 ms; CPUBound 5 s. -1: none may wait. It never exceeds Timeout.
	QueueTimeout time.Duration

	// MaxConns bounds upgraded connections, event streams, requests that called [LongLived], raw
	// connections of [Env.Dial], and public connections of a Serve app. If zero: 1024; Entrypoint 8192.
	// -1: none are accepted. What there is no room for is answered with 503, and its request's context ends.
	// Raw connections to instances in processes of their own are counted by each process that dials them.
	MaxConns int

	// Timeout bounds the time from a request's arrival to the first byte of its answer. When it has passed, the
	// request's context is canceled with the cause context.DeadlineExceeded; its Deadline, which is the caller's, does not
	// show it. A mesh caller gets context.DeadlineExceeded at once. A public client gets what the handler then answers:
	// 504 if it answers nothing, or with [WriteError] of the context's error. If zero: 30 s; CPUBound, and Entrypoint,
	// which may stand in front of it, 60 s. -1: no limit.
	Timeout time.Duration

	// ReadyPath is asked for (GET, outside admission) while an instance starts, until it answers with
	// 2xx. If empty, an instance is ready when its door is served; a Serve app when it first calls
	// Accept, or at once if nobody can reach it.
	ReadyPath string

	// StartTimeout bounds the start of an instance, readiness included. If zero, 30 s. -1: no limit.
	StartTimeout time.Duration

	// DrainTimeout is how long requests in progress may take to finish when an instance stops. Then
	// their contexts end and their connections are cut. If zero, 10 s. -1: no limit of its own.
	DrainTimeout time.Duration

	// MaxRestarts is how often in a row an instance is restarted without a stable minute in between
	// before it counts as failed, and stays down until [Runtime.Restart]. The pauses between are random, of up to 100 ms
	// for the first and twice as much for each that follows, at most 30 s: ten starts that fail at once take some 40 s. What
	// cannot start without a backend that may be away for longer needs more. If zero, 10. -1: no limit.
	MaxRestarts int

	// Critical ends Run, with the instance's error, when an instance of this app has failed.
	Critical bool

	// MemoryLimit and Nice are for instances in processes of their own. Where a test keeps those of CPUBound in its process,
	// they mean nothing.
	//
	// MemoryLimit, in bytes, is what each process may have. Go's garbage collector tries to keep below it; a process that
	// asks for more ends (on Linux, and not with the race detector): so does one whose garbage comes faster than it is
	// collected in what room there is. Address space that Go and threads only reserve counts, so give it 200 MiB and twice
	// what the app holds; 128 MiB is the least. If zero, there is no limit, but for a GOMEMLIMIT of this program's, which
	// each process then has to itself.
	//
	// Nice lowers the priority of their work, from 0 to 19: it never raises the one that this program has. If zero: 10 for
	// CPUBound, otherwise 0. On Linux, while such processes have a request for each processor and apps of the first process
	// have any, threads of that make the kernel look 2,000 times a second who should run: see docs/processes.md.
	MemoryLimit int64
	Nice        int
}

// Profile is a load profile. It picks an app's defaults and does nothing else.
type Profile int

const (
	// Domain is business logic of one area: moderate workers and queue.
	Domain Profile = iota
	// Entrypoint routes, authenticates and composes: many workers, short queue.
	Entrypoint
	// CPUBound processes, renders or parses: as many workers as there are processors to spare.
	CPUBound
	// IOBound talks to a database, storage, queue or external API: workers are the backend's pool.
	IOBound
)

// String returns the profile's name in lower case.
func (p Profile) String() string {
	return name(int(p), profiles()...)
}

func profiles() []string { return []string{"domain", "entrypoint", "cpubound", "iobound"} }

// MarshalText gives the profile's name, for JSON.
func (p Profile) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText takes that name.
func (p *Profile) UnmarshalText(text []byte) error {
	i := slices.Index(profiles(), string(text))
	if i < 0 {
		return fmt.Errorf("there is no profile %q", text)
	}
	*p = Profile(i)
	return nil
}

// Isolation is where an app's instances live.
type Isolation int

const (
	// InProcess instances are goroutines of this process, reached over in-memory pipes.
	InProcess Isolation = iota + 1
	// OwnProcess instances live in processes of their own: this program, started again for each. Main runs again in
	// each of them, up to [Runtime.Run]; see [IsChild]. Their crashes, their memory and their hunger for processor
	// time are their own. A program has one runtime with such instances.
	OwnProcess
	// Remote is reported for apps with a URL; it cannot be asked for.
	Remote
)

// String returns the isolation's name in lower case.
func (i Isolation) String() string {
	return name(int(i), isolations()...)
}

func isolations() []string { return []string{"profile", "inprocess", "ownprocess", "remote"} }

// MarshalText gives the isolation's name, for JSON.
func (i Isolation) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText takes that name.
func (i *Isolation) UnmarshalText(text []byte) error {
	n := slices.Index(isolations(), string(text))
	if n < 0 {
		return fmt.Errorf("there is no isolation %q", text)
	}
	*i = Isolation(n)
	return nil
}

func name(i int, names ...string) string {
	if i < 0 || i >= len(names) {
		return "unknown"
	}
	return names[i]
}

// clone returns a copy of a that shares no slice with it.
func (a *App) clone() App {
	c := *a
	c.Calls = slices.Clone(a.Calls)
	return c
}

// withDefaults returns a copy of a that shares no slice with it, names each callee once, and has every zero value
// replaced by its default. No other code reads a raw zero.
func (a *App) withDefaults() App { return fillDefaults(a.clone()) }

// longestWait is how long a request may wait for a worker or an instance.
func (a *App) longestWait() time.Duration {
	if a.Timeout > 0 {
		return min(max(0, a.QueueTimeout), a.Timeout)
	}
	return max(0, a.QueueTimeout)
}

// fillDefaults is the one place where defaults are.
func fillDefaults(a App) App {
	d := App{
		Instances: 1, Workers: 64, Queue: 256, QueueTimeout: time.Second, MaxConns: 1024, Timeout: 30 * time.Second,
		Isolation: InProcess, StartTimeout: 30 * time.Second, DrainTimeout: 10 * time.Second, MaxRestarts: 10,
	}
	switch a.Profile {
	case Domain:
	case Entrypoint:
		d.Workers, d.Queue, d.QueueTimeout, d.MaxConns, d.Timeout = 256, 64, 100*time.Millisecond, 8192, time.Minute
	case CPUBound:
		d.Queue, d.QueueTimeout, d.Timeout = 16, 5*time.Second, time.Minute
		if a.insideForTest() {
			a.MemoryLimit, a.Nice = 0, 0 // main's configuration starts there, too
		}
		if process.Supported && !inTest() {
			d.Isolation = OwnProcess
		}
		if setDefault(&a.Isolation, d.Isolation); a.Isolation == OwnProcess {
			d.Workers, d.Instances, d.Nice = 1, min(max(1, int(math.Round(cgroup.CPUs()))), maxProcesses), 10
		} else {
			d.Workers = max(1, processorsToSpare())
		}
	case IOBound:
		d.Workers, d.Queue = 16, 128
	}
	a.Calls = unique(a.Calls)
	if a.URL != "" {
		a.Isolation, a.Instances = Remote, 1
	}
	setDefault(&a.Isolation, d.Isolation)
	setDefault(&a.Instances, d.Instances)
	setDefault(&a.Workers, d.Workers)
	setDefault(&a.Queue, d.Queue)
	setDefault(&a.QueueTimeout, d.QueueTimeout)
	setDefault(&a.MaxConns, d.MaxConns)
	setDefault(&a.Timeout, d.Timeout)
	setDefault(&a.StartTimeout, d.StartTimeout)
	setDefault(&a.DrainTimeout, d.DrainTimeout)
	setDefault(&a.MaxRestarts, d.MaxRestarts)
	setDefault(&a.Nice, d.Nice)
	return a
}

// insideForTest reports whether a's instances are in this process for the only reason that it runs a test. It wants a as it
// was given, without defaults.
func (a *App) insideForTest() bool {
	return a.Profile == CPUBound && a.Isolation == 0 && a.URL == "" && process.Supported && inTest()
}

// unique returns names without those that came before.
func unique(names []string) []string {
	var all []string
	for _, name := range names {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
