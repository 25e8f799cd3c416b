//go:build unix

package process

import (
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ioTime is how long what has left the process's group may hold on to its output, and how long that may be stuck where it
// goes.
const ioTime = time.Second

// outlets pass on what a process writes. [exec.Cmd] can, too, but its Wait does not return while that is stuck where it goes.
type outlets struct {
	pipes   []outlet
	copying sync.WaitGroup
}

type outlet struct {
	ours, theirs *os.File
	next         io.Writer
}

// open returns what the process is to have in place of next.
func (o *outlets) open(next io.Writer) (*os.File, error) {
	if file, ok := next.(*os.File); ok {
		return file, nil
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.pipes = append(o.pipes, outlet{ours, theirs, next})
	return theirs, nil
}

// begin is called when the process has its ends of the pipes.
func (o *outlets) begin() {
	for _, p := range o.pipes {
		_ = p.theirs.Close()
		o.copying.Go(func() {
			_, _ = io.Copy(p.next, p.ours)
			_ = p.ours.Close()
		})
	}
}

// abort is called where there is no process.
func (o *outlets) abort() {
	for _, p := range o.pipes {
		_, _ = p.theirs.Close(), p.ours.Close()
	}
}

// end waits until everything has been passed on. What is stuck is left behind.
func (o *outlets) end() {
	over := make(chan struct{})
	go func() {
		defer close(over)
		o.copying.Wait()
	}()
	select {
	case <-over:
		return
	case <-time.After(ioTime):
	}
	for _, p := range o.pipes {
		p.keepRest()
		_ = p.ours.Close()
	}
	select {
	case <-over:
	case <-time.After(ioTime):
	}
}

// keepRest has a tail keep what is left in the pipe, which does not pass: last words, perhaps.
func (p outlet) keepRest() {
	t, ok := p.next.(*tail)
	conn, err := p.ours.SyscallConn()
	if !ok || err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { // without waiting for who reads already
		rest := make([]byte, tailSize) // as much as a pipe holds
		if n, err := unix.Read(int(fd), rest); err == nil {
			t.keep(rest[:n])
		}
	})
}
