package process

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Program identifies the file that this process runs, also after another has taken its name.
func Program() string { return identity("/proc/self/exe") }

// identity tells a file from others that have had its name.
func identity(path string) string {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return ""
	}
	return fmt.Sprint(s.Dev, "/", s.Ino)
}

func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// reap waits for the end of the process and calls end before its number may become another's.
func (p *Process) reap(end func()) {
	for errors.Is(unix.Waitid(unix.P_PID, p.PID(), nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
		continue
	}
	end()
	_ = p.cmd.Wait() // the state says more than its error
}

// niceness returns that of a process.
func niceness(pid int) (int, error) {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, pid)
	return 20 - n, err // as the kernel has it
}

// limitMemory limits what a process may ask for. A lower limit that it has inherited, and cannot exceed, stays.
func limitMemory(pid int, bytes uint64) error {
	if racing {
		return nil
	}
	var inherited unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_DATA, nil, &inherited); err != nil {
		return os.NewSyscallError("prlimit", err)
	}
	bytes = min(bytes, inherited.Max)
	return os.NewSyscallError("prlimit", unix.Prlimit(pid, unix.RLIMIT_DATA, &unix.Rlimit{Cur: bytes, Max: bytes}, nil))
}
