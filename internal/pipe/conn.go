// Package pipe is the in-memory network of a runtime: pairs of buffered [net.Conn], and listeners that hand them over.
//
// A pipe behaves like a TCP connection over loopback: up to 64 KiB are buffered in each direction, the
// directions close separately, deadlines can be set and reset, and errors have the same shape and identity.
// It starts no goroutine, holds no buffer while nothing is in flight, and waits only in ways that
// [testing/synctest] takes for blocked.
package pipe

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// Addr is the address of a pipe's end, "name:port" so that [net.SplitHostPort] accepts it.
type Addr string

// Network returns "pipe".
func (Addr) Network() string { return "pipe" }

// String returns the address as it is.
func (a Addr) String() string { return string(a) }

// Conn is one end of a pipe. Its methods are safe for concurrent use.
//
// Errors are those of a TCP connection: [io.EOF] as it is, all others in a [*net.OpError] that wraps [net.ErrClosed]
// after Close, [os.ErrDeadlineExceeded] after a deadline, [syscall.EPIPE] where nobody can read what is written.
type Conn struct {
	in, out       *half
	local, remote Addr
	caller        any
	expired       atomic.Pointer[net.OpError] // what Reads return after a deadline; made once
}

// New returns the two connected ends of a pipe. LocalAddr of a is addrA, its RemoteAddr addrB; b has the reverse.
func New(buffers *Buffers, addrA, addrB Addr) (a, b *Conn) {
	p := new(struct { // in one piece: an idle pipe costs one object
		a, b   Conn
		ab, ba half
	})
	p.ab.init(buffers)
	p.ba.init(buffers)
	p.a.in, p.a.out, p.a.local, p.a.remote = &p.ba, &p.ab, addrA, addrB
	p.b.in, p.b.out, p.b.local, p.b.remote = &p.ab, &p.ba, addrB, addrA
	return &p.a, &p.b
}

// Read blocks until there is a byte to read, the other end has closed its side (then it returns [io.EOF]
// after all that was written), the deadline passes, or Close is called.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	switch err { //nolint:errorlint // half returns these bare
	case nil, io.EOF:
		return n, err
	case os.ErrDeadlineExceeded: // once per request: it is how servers stop reading ahead
		expired := c.expired.Load()
		if expired == nil {
			expired = &net.OpError{Op: "read", Net: c.local.Network(), Source: c.local, Addr: c.remote, Err: err}
			c.expired.Store(expired)
		}
		return n, expired
	}
	return n, c.opError("read", err)
}

// Write blocks until all of p is read or buffered, the deadline passes, or either end makes the rest unreadable.
// The bytes of concurrent Writes do not mix.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	if err != nil {
		err = c.opError("write", err)
	}
	return n, err
}

// CloseWrite makes the other end read [io.EOF] after what was written. The other direction goes on.
// It fails after Close, and does nothing the second time.
func (c *Conn) CloseWrite() error {
	return c.opError("close", c.out.endWriter())
}

// Close ends both directions and what waits in them. The other end still reads what was buffered for it.
// It returns nil, the second time too.
func (c *Conn) Close() error {
	c.in.closeReader()
	c.out.closeWriter()
	return nil
}

// Ended reports whether a pipe kept for another exchange is of no use for it: the other end has closed, or
// shut its direction, or has sent what nobody has read.
func (c *Conn) Ended() bool { return c.in.ended() }

// Gone reports whether the other end has closed, and nothing is left to read of what it has written.
func (c *Conn) Gone() bool { return c.in.over() }

// Withdraw is Close, and takes back what the other end has not read: what Delivered returns from then on is final.
func (c *Conn) Withdraw() {
	c.in.closeReader()
	c.out.withdraw()
}

// LocalAddr returns the [Addr] of this end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the [Addr] of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline makes Reads fail that wait at t or start later, until it is set anew. A zero t means never.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.opError("set", c.in.setDeadline(&c.in.reader, t))
}

// SetWriteDeadline makes Writes fail that wait at t or start later, until it is set anew. A zero t means never.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.opError("set", c.out.setDeadline(&c.out.writer, t))
}

// Caller returns the value given to [Listener.Dial] on the accepted end, and nil on every other:
// only the one who is called can ask who calls.
func (c *Conn) Caller() any { return c.caller }

// Delivered returns how many of the bytes written to this end the other end has read, ever.
func (c *Conn) Delivered() uint64 { return c.out.progress() }

func (c *Conn) opError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: op, Net: c.local.Network(), Source: c.local, Addr: c.remote, Err: err}
}
