package watt

import (
	"net"
	"os"

	"github.com/org/watt/internal/control"
)

// foreign is the end of a connection from another process.
type foreign struct {
	net.Conn
	what  connection
	local net.Addr
}

// newForeign makes a connection of its descriptor, which belongs to it from then on.
func newForeign(f *os.File, what connection, callee string) (*foreign, error) {
	conn, err := control.ConnOf(f)
	if err != nil {
		return nil, err
	}
	return &foreign{conn, what, address(callee)}, nil
}

// LocalAddr names the app that was called.
func (c *foreign) LocalAddr() net.Addr { return c.local }

// RemoteAddr names the app that calls.
func (c *foreign) RemoteAddr() net.Addr { return address(c.what.Caller) }

// CloseWrite ends this direction alone.
func (c *foreign) CloseWrite() error { return closeWrite(c.Conn) }
