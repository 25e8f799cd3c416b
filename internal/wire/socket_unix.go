//go:build unix

package wire

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket looks at a connection without reading from it. As a nil pointer it is one that is no socket.
type socket struct {
	raw  syscall.RawConn
	look func(fd uintptr) // peek, bound once and not for every request
	room [1]byte
	err  error // what peek has met
}

func newSocket(nc net.Conn) *socket {
	from, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := from.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw}
	s.look = s.peek
	return s
}

func (s *socket) peek(fd uintptr) {
	_, _, s.err = unix.Recvfrom(int(fd), s.room[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
}

// pending reports whether there is something to be read: bytes, the end, or an error.
func (s *socket) pending() bool {
	if s == nil {
		return false
	}
	err := s.raw.Control(s.look)
	return err != nil || s.err != unix.EAGAIN //nolint:errorlint // system calls return it bare
}
