package watt

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	stallTime = 30 * time.Second // for a public client to take a piece of what is written
	pieceSize = 64 << 10         // of that, in bytes
)

// client is the server's writer for a request of the public side. Whatever goes out through it has to be taken in time,
// piece by piece, so that a client that does not read holds nothing for good. While nothing goes out there is
// no limit: an answer may be as silent as it likes.
type client struct {
	http.ResponseWriter
	written int // bytes

	mu    sync.Mutex
	busy  int  // things that go out, of which a proxy may have two at a time
	other bool // somebody else decides how long writing may take
}

// http1Client is the client of an HTTP/1 request.
type http1Client struct{ client }

// newClient returns the client that w writes to, and the writer that does so in its stead.
func newClient(w http.ResponseWriter) (*client, http.ResponseWriter) {
	if _, http1 := w.(http.Hijacker); !http1 {
		c := &client{ResponseWriter: w}
		return c, c
	}
	c := &http1Client{client{ResponseWriter: w}}
	c.limit(time.Time{}) // the last request of the connection has left one
	return &c.client, c
}

// Unwrap lets [http.ResponseController] reach the server's own writer.
func (c *client) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// begin gives the client time to take what goes out next.
func (c *client) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy++
	c.limit(time.Now().Add(stallTime))
}

// end is called when it is out.
func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy--; c.busy == 0 {
		c.limit(time.Time{})
	}
}

// limit sets the deadline of the server's writes; the lock is held, if there is anybody else.
func (c *client) limit(t time.Time) {
	if !c.other {
		_ = http.NewResponseController(c.ResponseWriter).SetWriteDeadline(t)
	}
}

// SetWriteDeadline is the handler's, whose word counts from then on, or that of who wants the handler to end. A zero t
// leaves it to the client again how long there is.
func (c *client) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.other = !t.IsZero()
	return http.NewResponseController(c.ResponseWriter).SetWriteDeadline(t)
}

// WriteHeader sends an informational answer at once. The server holds any other back.
func (c *client) WriteHeader(status int) {
	if status < http.StatusOK {
		c.begin()
		defer c.end()
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *client) Write(p []byte) (n int, err error) {
	for {
		var k int
		k, err = c.piece(p[n:min(len(p), n+pieceSize)])
		if n += k; err != nil || n == len(p) {
			return n, err
		}
	}
}

func (c *client) piece(p []byte) (int, error) {
	if c.written += len(p); c.written > heldBack {
		c.begin()
		defer c.end()
	}
	return c.ResponseWriter.Write(p)
}

// WriteString saves a copy of what is short.
func (c *client) WriteString(s string) (int, error) {
	if c.written+len(s) > heldBack {
		return c.Write([]byte(s))
	}
	c.written += len(s)
	return io.WriteString(c.ResponseWriter, s)
}

// FlushError sends what the server has held back.
func (c *client) FlushError() error {
	c.begin()
	defer c.end()
	return http.NewResponseController(c.ResponseWriter).Flush()
}

// Hijack gives the connection away.
func (c *http1Client) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.other = true
	}
	return conn, rw, err
}
