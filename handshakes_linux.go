package watt

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/watt/internal/sockdiag"
)

const (
	// handshakeTime is how long a removed listener waits for handshakes that have begun: long enough for
	// a lost packet to be sent again, twice.
	handshakeTime = 3 * time.Second
	drainPause    = 5 * time.Millisecond
)

// alone returns an error if another program's listener is in the group of these. Where the kernel does
// not tell it believes that there is none.
func (p *port) alone(group []*socket) error {
	own := make(map[uint32]bool)
	for _, s := range group {
		inode, err := s.inode()
		if err != nil {
			return err
		}
		own[inode] = true
	}
	all, err := sockdiag.TCP(group[0].number(), sockdiag.Listening)
	if err != nil {
		return nil //nolint:nilerr // it only looks for what can hardly be
	}
	members, ours := make(map[string]int), make(map[string]int) // by local address
	for _, s := range all {
		members[s.Local]++
		if own[s.Inode] {
			ours[s.Local]++
		}
	}
	for local, n := range ours {
		if members[local] > n {
			return fmt.Errorf("address %s is shared by another program: %w", p.address, syscall.EADDRINUSE)
		}
	}
	return nil
}

// handshakes are connections that were being opened at some time, by remote address.
type handshakes struct {
	port    int
	begun   map[string]bool
	unknown bool      // the kernel does not tell
	next    time.Time // when it may be asked again
}

// beginning returns the handshakes that are in progress at a port.
func beginning(port int) *handshakes {
	h := &handshakes{port: port}
	h.begun, h.unknown = h.now()
	return h
}

// now asks the kernel, which goes through its whole table of connections for that: it may take 10 ms. So next leaves four
// times as much between two of these.
func (h *handshakes) now() (remotes map[string]bool, unknown bool) {
	began := time.Now()
	all, err := sockdiag.TCP(h.port, sockdiag.SynReceived)
	h.next = time.Now().Add(4 * time.Since(began))
	remotes = make(map[string]bool)
	for _, s := range all {
		remotes[s.Remote] = true
	}
	return remotes, err != nil
}

// over reports whether all of them have ended, one way or another.
func (h *handshakes) over() bool {
	if h.unknown || len(h.begun) == 0 {
		return !h.unknown
	}
	if time.Now().Before(h.next) {
		return false
	}
	now, unknown := h.now()
	for remote := range h.begun {
		if !now[remote] {
			delete(h.begun, remote)
		}
	}
	h.unknown = unknown
	return !unknown && len(h.begun) == 0
}

// drained waits until a listener that gets no new connections has none left: those whose handshake had
// begun by now have ended it, and nothing waits to be accepted.
func (s *socket) drained(ctx context.Context) error {
	began := time.Now()
	tick := time.NewTicker(drainPause)
	defer tick.Stop()
	var opening *handshakes
	for calm := 0; calm < 2; calm++ { // twice in a row, since a connection may just be between handshake and queue
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("closing a listener that was not drained: %w", context.Cause(ctx))
		}
		if opening == nil { // now that a packet that was under way has arrived
			opening = beginning(s.number())
		}
		over := opening.over() || time.Since(began) > handshakeTime
		n, err := s.queued()
		if err != nil {
			return err
		}
		if n > 0 || !over {
			calm = -1
		}
	}
	return nil
}

func (s *socket) number() int {
	addr, _ := s.Addr().(*net.TCPAddr)
	return addr.Port
}

func (s *socket) inode() (uint32, error) {
	var stat unix.Stat_t
	err := s.control(func(fd int) error { return syscallError("fstat", unix.Fstat(fd, &stat)) })
	return uint32(stat.Ino), err
}
