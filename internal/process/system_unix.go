//go:build unix && !linux

package process

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Program would identify the file that this process runs.
func Program() string { return "" }

func identity(string) string { return "" }

// attributes has no signal of the parent's death here: children end with their control socket.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// niceness returns that of a process.
func niceness(pid int) (int, error) { return unix.Getpriority(unix.PRIO_PROCESS, pid) }

// limitMemory does nothing: this system has no limit that can be set for another process.
func limitMemory(int, uint64) error { return nil }

// reap waits for the end of the process and calls end.
func (p *Process) reap(end func()) {
	_ = p.cmd.Wait()
	end()
}
