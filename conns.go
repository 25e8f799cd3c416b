package watt

import (
	"errors"
	"fmt"
	"net"
	"sync"
)

// conns are an app's seats: for connections that outlive a request (upgraded, raw, those of a Serve app), and for requests
// that gave their worker back.
type conns struct {
	mu      sync.Mutex
	max     int
	refused error // why nobody is let in any more
	n       int
	open    map[net.Conn]struct{} // those among the n that are connections
}

// resize changes the limit. Connections too many stay.
func (c *conns) resize(limit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.max = max(0, limit)
}

// refuse lets nobody in any more.
func (c *conns) refuse(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = err
}

func (c *conns) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// upgraded returns how many of them are connections that track has.
func (c *conns) upgraded() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// check returns the error with which a newcomer would be refused now, or nil.
func (c *conns) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.checkLocked()
}

func (c *conns) checkLocked() error {
	if c.refused != nil {
		return c.refused
	}
	if c.n >= c.max {
		return fmt.Errorf("%w: as many long-lived connections are open as MaxConns allows: %d", ErrOverloaded, c.max)
	}
	return nil
}

// enter takes a seat; leave gives it back.
func (c *conns) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.checkLocked(); err != nil {
		return err
	}
	c.n++
	return nil
}

func (c *conns) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n--
}

// hold gives conn a seat until it is closed.
func (c *conns) hold(conn net.Conn) (net.Conn, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	return &trackedConn{Conn: conn, closed: sync.OnceFunc(c.leave)}, nil
}

// track is hold, and cut closes conn too.
func (c *conns) track(conn net.Conn) (net.Conn, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	tracked, err := c.own(conn)
	if err != nil {
		c.leave()
	}
	return tracked, err
}

// own is track for a seat that was taken already.
func (c *conns) own(conn net.Conn) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused != nil {
		return nil, c.refused
	}
	if c.open == nil {
		c.open = make(map[net.Conn]struct{})
	}
	c.open[conn] = struct{}{}
	return &trackedConn{Conn: conn, closed: sync.OnceFunc(func() { c.forget(conn) })}, nil
}

// has reports whether conn is one that track has returned, and is open.
func (c *conns) has(conn net.Conn) bool {
	tracked, ok := conn.(*trackedConn)
	if !ok {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok = c.open[tracked.Conn]
	return ok
}

// forget gives the seat of a connection back.
func (c *conns) forget(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
	c.n--
}

// cut closes every connection and returns how many there were. Their owners still close them too.
func (c *conns) cut() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		_ = conn.Close()
	}
	return len(c.open)
}

// trackedConn tells when it is closed. It keeps the half-close of the connection underneath, which
// proxies need.
type trackedConn struct {
	net.Conn
	closed func()
}

// Close closes the connection and gives its seat back.
func (c *trackedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// Gone reports whether the other end has closed, where the connection knows.
func (c *trackedConn) Gone() bool {
	conn, ok := c.Conn.(interface{ Gone() bool })
	return ok && conn.Gone()
}

// CloseWrite ends this direction alone, where the connection can.
func (c *trackedConn) CloseWrite() error { return closeWrite(c.Conn) }

// closeWrite ends one direction of what may be a connection that can.
func closeWrite(conn any) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
