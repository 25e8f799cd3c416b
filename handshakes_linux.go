package watt

import (
	"context"
	"fmt"
	"maps"
	"net"
	"sync"
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

// asking asks the kernel which handshakes are in progress at a port, for all who remove listeners of that.
type asking struct {
	mu      sync.Mutex
	asked   time.Time       // the last time
	next    time.Time       // when it may be asked again
	remotes map[string]bool // what it has said
	unknown bool            // it does not tell
}

// since returns the handshakes, by remote address, at some time that is not before t; not while the kernel may not be asked. It
// goes through its whole table of connections for that, which may take 10 ms. So there is four times as much between two of these.
func (a *asking) since(t time.Time, port int) (remotes map[string]bool, unknown, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked.Before(t) {
		now := time.Now()
		if now.Before(a.next) {
			return nil, false, false
		}
		all, err := sockdiag.TCP(port, sockdiag.SynReceived)
		a.asked, a.next, a.unknown = now, time.Now().Add(4*time.Since(now)), err != nil
		a.remotes = make(map[string]bool)
		for _, s := range all {
			a.remotes[s.Remote] = true
		}
	}
	return a.remotes, a.unknown, true
}

// handshakes are connections that were being opened at some time, by remote address.
type handshakes struct {
	asking  *asking
	port    int
	since   time.Time       // what is told of before has no news
	begun   map[string]bool // nil until it is known
	unknown bool            // the kernel does not tell
}

// over reports whether all of them have ended, one way or another.
func (h *handshakes) over() bool {
	if h.unknown || h.begun != nil && len(h.begun) == 0 {
		return !h.unknown
	}
	now, unknown, ok := h.asking.since(h.since, h.port)
	if !ok {
		return false
	}
	if h.begun == nil {
		h.begun = maps.Clone(now)
	}
	for remote := range h.begun {
		if !now[remote] {
			delete(h.begun, remote)
		}
	}
	h.since, h.unknown = time.Now(), unknown
	return !unknown && len(h.begun) == 0
}

// drained waits until a listener that gets no new connections has none left: those whose handshake had
// begun by now have ended it, and nothing waits to be accepted.
func (s *socket) drained(ctx context.Context, kernel *asking) error {
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
			opening = &handshakes{asking: kernel, port: s.number(), since: time.Now()}
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
