//go:build unix

package process

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/watt/internal/cgroup"
)

// Supported reports whether this system can do what the package does.
const Supported = true

// Starter starts all processes of a runtime on one thread, which lives as long as it does: the signal of a parent's
// death comes when the thread that started the child ends.
type Starter struct {
	work  chan func()
	once  sync.Once
	ended sync.WaitGroup // what works
	kills kills
}

// NewStarter returns a starter. Close ends its thread.
func NewStarter() *Starter {
	s := &Starter{work: make(chan func())}
	s.ended.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for f := range s.work {
			f()
		}
	})
	return s
}

// Close ends the thread. Children that still live are killed by the system.
func (s *Starter) Close() {
	s.once.Do(func() { close(s.work) })
	s.ended.Wait()
}

// Process is a child.
type Process struct {
	cmd     *exec.Cmd
	ended   chan struct{}
	done    chan struct{}
	tail    *tail
	outlets outlets
	exit    *ExitError // read after done

	mu      sync.Mutex
	gone    bool  // it has ended, and its number may become another's
	why     error // the first reason to kill it
	limited bool  // in its memory
}

var errReplaced = errors.New("the file of this program has gone, or been replaced; start it anew")

// Start starts a process. Its stderr passes through, and its end is remembered for [Process.Exit].
func (s *Starter) Start(spec Spec) (*Process, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if identity(path) != Program() {
		return nil, errReplaced
	}
	p := &Process{ended: make(chan struct{}), done: make(chan struct{}), tail: &tail{next: spec.Stderr}}
	p.cmd = exec.Command(path, spec.Args...) //nolint:noctx // it ends when it is told to
	p.cmd.Args[0] = os.Args[0]               // some do what their name says
	p.cmd.Env, p.cmd.ExtraFiles = spec.Env, []*os.File{spec.Control}
	p.cmd.SysProcAttr = attributes()
	before, _ := cgroup.OOMKills()
	if err := p.begin(s, spec.Stdout); errors.Is(err, fs.ErrNotExist) {
		return nil, errReplaced
	} else if err != nil {
		return nil, err
	}
	go p.wait(func() bool {
		after, err := cgroup.OOMKills()
		return err == nil && s.kills.explain(before, after)
	})
	return p, nil
}

// begin starts the process on the starter's thread.
func (p *Process) begin(s *Starter, stdout io.Writer) error {
	out, err := p.outlets.open(stdout)
	if err != nil {
		return err
	}
	stderr, err := p.outlets.open(p.tail)
	if err != nil {
		p.outlets.abort()
		return err
	}
	p.cmd.Stdout, p.cmd.Stderr = out, stderr
	started := make(chan error)
	s.work <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		p.outlets.abort()
		return err
	}
	p.outlets.begin()
	return nil
}

// wait waits for the end of the process, and ends what it has started.
func (p *Process) wait(starved func() bool) {
	defer close(p.done)
	var why error
	limited := false
	p.reap(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.gone, why, limited = true, p.why, p.limited
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
		close(p.ended)
	})
	p.outlets.end()
	p.bury()
	p.exit = explain(p.cmd.ProcessState, p.tail.text(), why, starved)
	if limited && p.exit.Reason == violation {
		p.exit.Reason += " (perhaps it got no memory: it has a MemoryLimit)"
	}
}

// bury waits for what was killed in the process's group. The first process of a container is the parent of that now, and
// would keep it as zombies.
func (p *Process) bury() {
	for pause := time.Millisecond; pause < ioTime; pause *= 2 {
		for found := true; found; {
			pid, err := unix.Wait4(-p.PID(), nil, unix.WNOHANG, nil)
			if err != nil && !errors.Is(err, unix.EINTR) { // it has no such child, or none any more
				return
			}
			found = pid > 0 || err != nil
		}
		<-time.After(pause) // one may take a moment to die
	}
}

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Done is closed after that, when what is left of its group was killed, and what it has written has been passed on, or is stuck.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID returns the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exit returns how it has ended; Done must be closed.
func (p *Process) Exit() *ExitError { return p.exit }

// LowerPriority sets the niceness of all threads of the process, and of all that it starts, unless it has inherited a
// higher one.
func (p *Process) LowerPriority(nice int) error {
	return p.unlessGone(func() error {
		if inherited, err := niceness(p.PID()); err == nil && inherited > nice {
			return nil
		}
		return unix.Setpriority(unix.PRIO_PGRP, p.PID(), nice)
	})
}

// SetMemoryLimit makes the process's requests for more than so many bytes of memory fail; not in a program with the
// race detector, and not on other systems than Linux.
func (p *Process) SetMemoryLimit(bytes uint64) error {
	return p.unlessGone(func() error {
		p.limited = true
		return limitMemory(p.PID(), bytes)
	})
}

// unlessGone does something to the process, whose number may be another's once it has ended.
func (p *Process) unlessGone(do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil
	}
	return do()
}

// Kill kills the process and all of its group. The first reason given is that of its end, unless it ends by itself
// before; nil stands for none.
func (p *Process) Kill(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return
	}
	if p.why == nil {
		p.why = why
	}
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
}
