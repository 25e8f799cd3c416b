//go:build unix

package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// Supported reports whether this system can do what the package does.
const Supported = true

// Starter starts all processes of a runtime on one thread, which lives as long as it does: the signal of a parent's
// death comes when the thread that started the child ends.
type Starter struct {
	work chan func()
	once sync.Once
}

// NewStarter returns a starter. Close ends its thread.
func NewStarter() (*Starter, error) {
	s := &Starter{work: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for f := range s.work {
			f()
		}
	}()
	return s, nil
}

// Close ends the thread. Children that still live are killed by the system.
func (s *Starter) Close() { s.once.Do(func() { close(s.work) }) }

// Process is a child.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	tail *tail
	exit error
}

// Start starts a process.
func (s *Starter) Start(spec Spec) (*Process, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{done: make(chan struct{}), tail: &tail{next: spec.Stderr}}
	p.cmd = exec.Command(path, spec.Args...) //nolint:noctx // it ends when it is told to
	p.cmd.Env, p.cmd.ExtraFiles = spec.Env, []*os.File{spec.Control}
	p.cmd.Stdout, p.cmd.Stderr = spec.Stdout, p.tail
	p.cmd.SysProcAttr = attributes()
	started := make(chan error)
	s.work <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	go func() {
		err := p.cmd.Wait()
		p.exit = p.explain(err)
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		close(p.done)
	}()
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID returns the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exit returns how it has ended; Done must be closed.
func (p *Process) Exit() error { return p.exit }

// Kill kills the process and all of its group.
func (p *Process) Kill() {
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
}

func (p *Process) explain(err error) error {
	text := p.tail.last()
	var exit *exec.ExitError
	switch {
	case err == nil:
		err = errors.New("exit status 0")
	case errors.As(err, &exit):
	}
	if text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// tail keeps the end of what passes.
type tail struct {
	next io.Writer
	mu   sync.Mutex
	buf  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 64<<10 {
		t.buf = t.buf[len(t.buf)-64<<10:]
	}
	t.mu.Unlock()
	return t.next.Write(p)
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(string(t.buf))
	if i := strings.Index(text, "panic: "); i >= 0 {
		text = text[i:]
	}
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	return text
}
