package watt

import (
	"bytes"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/org/watt/internal/control"
	"github.com/org/watt/internal/trunk"
)

// foreign is the end of a connection from another process.
type foreign struct {
	net.Conn
	what   connection
	local  net.Addr
	closed func()        // nil if nobody wants to know
	trunk  *trunk.Server // of many calls; nil if it is of one at a time

	begun bool        // something was read
	http2 atomic.Bool // which begins with HTTP/2
}

// newForeign makes a connection of its descriptor, which belongs to it from then on.
func newForeign(f *os.File, what connection, callee string) (*foreign, error) {
	conn, err := control.ConnOf(f)
	if err != nil {
		return nil, err
	}
	return &foreign{Conn: conn, what: what, local: address(callee)}, nil
}

// Read notes by the first bytes which protocol the other side speaks.
func (c *foreign) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.begun && n > 0 {
		c.begun = true
		c.http2.Store(bytes.HasPrefix(p[:n], []byte("PRI ")))
	}
	return n, err
}

// Close closes the connection.
func (c *foreign) Close() error {
	if c.closed != nil {
		defer c.closed()
	}
	return c.Conn.Close()
}

// LocalAddr names the app that was called.
func (c *foreign) LocalAddr() net.Addr { return c.local }

// RemoteAddr names the app that calls.
func (c *foreign) RemoteAddr() net.Addr { return address(c.what.Caller) }

// CloseWrite ends this direction alone.
func (c *foreign) CloseWrite() error { return closeWrite(c.Conn) }

// foreigners are the connections from other processes to a door.
type foreigners struct {
	mu      sync.Mutex
	open    map[*foreign]struct{}
	leaving bool // endRequests was called
	cut     bool // cutTrunks was
}

// enter counts a connection until it is closed.
func (s *foreigners) enter(c *foreign) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[*foreign]struct{})
	}
	s.open[c] = struct{}{}
	c.closed = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, c)
	}
	switch { // it may be late: its caller has chosen this door before
	case c.trunk == nil:
	case s.cut:
		_ = c.Conn.Close()
	case s.leaving:
		c.trunk.Leave()
	}
}

func (s *foreigners) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// endRequests lets nothing more come in over the connections that are there. Whoever has a request for one cannot send any
// of it from now on, and knows that; what has been sent is read and answered, and then the connection ends. HTTP/2 and trunks
// have their own way to say so, and where the system drops what was not read there is none.
func (s *foreigners) endRequests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
	for c := range s.open {
		if c.trunk != nil {
			c.trunk.Leave()
		} else if half, ok := c.Conn.(interface{ CloseRead() error }); ok && runtime.GOOS == "linux" && !c.http2.Load() {
			_ = half.CloseRead()
		}
	}
}

// trunks returns how many trunks there are, and how many calls on them whose answer is not sent.
func (s *foreigners) trunks() (conns, calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if c.trunk != nil {
			conns++
			calls += c.trunk.Calls()
		}
	}
	return conns, calls
}

// cutTrunks closes those that have not gone.
func (s *foreigners) cutTrunks() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = true
	for c := range s.open {
		if c.trunk != nil {
			_ = c.Conn.Close()
		}
	}
}
