package wire

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// maxHeader bounds the status line and headers of an answer, informational ones included, in bytes.
	maxHeader = 1 << 20
	// copyBuffer is what a long body is copied in pieces of, in bytes.
	copyBuffer = 32 << 10
)

// conn is one connection. It serves one request at a time.
type conn struct {
	nc     net.Conn
	br     *bufio.Reader
	bw     *bufio.Writer
	limit  int64     // how much may still be read
	reused bool      // it has served a request before
	since  time.Time // when it became idle
}

func newConn(nc net.Conn) *conn {
	c := &conn{nc: nc}
	c.br = bufio.NewReader(limited{c})
	c.bw = bufio.NewWriter(writer{c.nc})
	return c
}

func (c *conn) close() { _ = c.nc.Close() }

// ended reports whether a kept connection is known to be of no use any more.
func (c *conn) ended() bool {
	nc, ok := c.nc.(interface{ Ended() bool })
	return ok && nc.Ended()
}

// errHeaderTooLong means that an answer's headers exceed maxHeader.
var errHeaderTooLong = fmt.Errorf("the answer's headers exceed %d bytes", maxHeader)

// limited reads from a connection as much as its limit allows.
type limited struct{ c *conn }

func (r limited) Read(p []byte) (int, error) {
	if r.c.limit <= 0 {
		return 0, errHeaderTooLong
	}
	if int64(len(p)) > r.c.limit {
		p = p[:r.c.limit]
	}
	n, err := r.c.nc.Read(p)
	r.c.limit -= int64(n)
	return n, err
}

// writer lets long bodies pass the small buffer in larger pieces.
type writer struct{ net.Conn }

func (w writer) ReadFrom(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{w.Conn}, r, make([]byte, copyBuffer))
}
