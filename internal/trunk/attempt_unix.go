//go:build unix

package trunk

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// attempt writes to a connection as much as it takes at once. One goroutine at a time may use it.
type attempt struct {
	raw syscall.RawConn // nil if there is no descriptor
	try func(fd uintptr) bool
	p   []byte
	n   int
	err error
}

func (a *attempt) init(nc net.Conn) {
	if conn, ok := nc.(syscall.Conn); ok {
		a.raw, _ = conn.SyscallConn()
	}
	a.try = func(fd uintptr) bool { // made once: it would be allocated for every frame
		for {
			if a.n, a.err = unix.Write(int(fd), a.p); a.err != unix.EINTR { //nolint:errorlint // an errno
				return true
			}
		}
	}
}

// write returns how much was written. That it was not all, without an error, means that the connection takes no more now.
func (a *attempt) write(p []byte) (int, error) {
	if a.raw == nil {
		return 0, nil
	}
	a.p = p
	err := a.raw.Write(a.try)
	a.p = nil
	if err == nil {
		err = a.err
	} else {
		a.n = 0
	}
	if errors.Is(err, unix.EAGAIN) {
		err = nil
	}
	return max(a.n, 0), err
}
