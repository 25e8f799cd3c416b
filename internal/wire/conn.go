package wire

import (
	"bufio"
	"io"
	"net"
	"sync"
	"time"

	"github.com/org/watt/internal/roundtrip"
)

// copyBuffer is what a long body is copied in pieces of, in bytes.
const copyBuffer = 32 << 10

// conn is one connection. It serves one request at a time.
type conn struct {
	nc     net.Conn
	socket *socket // nc, if it is one
	hangUp func()  // close, bound once and not for every request
	br     *bufio.Reader
	bw     *bufio.Writer
	out    writer    // what bw writes to
	limit  int64     // how much may still be read
	reused bool      // it has served a request before
	since  time.Time // when it became idle
}

func newConn(nc net.Conn, buffers *sync.Pool) *conn {
	c := &conn{nc: nc, socket: newSocket(nc), out: writer{nc: nc, buffers: buffers}}
	c.hangUp = c.close
	c.br = bufio.NewReader(limited{c})
	c.bw = bufio.NewWriter(&c.out)
	return c
}

func (c *conn) close() { _ = c.nc.Close() }

// withdraw is close, and takes back what the other side has not read, where the connection can.
func (c *conn) withdraw() {
	if nc, ok := c.nc.(interface{ Withdraw() }); ok {
		nc.Withdraw()
	}
	c.close()
}

// ended reports whether a kept connection is known to be of no use any more: the other side has closed
// it, or has sent what nobody asked for, which must not be taken for the next answer.
func (c *conn) ended() bool {
	if nc, ok := c.nc.(interface{ Ended() bool }); ok {
		return nc.Ended()
	}
	return c.socket.pending()
}

// begin prepares c for a request.
func (c *conn) begin() {
	c.limit = roundtrip.MaxHeader
	c.out.begin()
}

// limited reads from a connection as much as its limit allows.
type limited struct{ c *conn }

func (r limited) Read(p []byte) (int, error) {
	if r.c.limit <= 0 {
		return 0, roundtrip.ErrHeaderTooLong
	}
	if int64(len(p)) > r.c.limit {
		p = p[:r.c.limit]
	}
	n, err := r.c.nc.Read(p)
	r.c.limit -= int64(n)
	return n, err
}

// malformed returns why the head of an answer could not be read, where reading it has met err.
func (c *conn) malformed(err error) error {
	switch {
	case c.limit <= 0:
		return roundtrip.ErrHeaderTooLong
	case err == io.EOF: //nolint:errorlint // Read returns it bare
		return io.ErrUnexpectedEOF
	default:
		return err
	}
}

// writer writes a request to a connection, and remembers how far it came.
type writer struct {
	nc      net.Conn
	buffers *sync.Pool // of *[]byte, copyBuffer long

	mu     sync.Mutex // held while a Write is under way, so that the fields are exact once it is free
	sent   bool       // the other side may have seen some of the request
	failed bool       // the connection does not take more
}

func (w *writer) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent, w.failed = false, false
}

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.nc.Write(p)
	w.sent = w.sent || n > 0
	w.failed = w.failed || err != nil
	return n, err
}

// ReadFrom lets long bodies pass the small buffer in larger pieces.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	buf, ok := w.buffers.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
		*buf = make([]byte, copyBuffer)
	}
	defer w.buffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, r, *buf)
}

// progress waits for the Write under way, if any, and reports how far the request came.
func (w *writer) progress() (sent, failed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent, w.failed
}
