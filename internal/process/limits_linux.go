package process

import "golang.org/x/sys/unix"

// SetPriority sets the priority of the process, and of all that it starts.
func (p *Process) SetPriority(nice int) error {
	return unix.Setpriority(unix.PRIO_PGRP, p.PID(), nice)
}

// SetMemoryLimit makes the process's requests for more than so many bytes of memory fail.
func (p *Process) SetMemoryLimit(bytes uint64) error {
	return unix.Prlimit(p.PID(), unix.RLIMIT_DATA, &unix.Rlimit{Cur: bytes, Max: bytes}, nil)
}
