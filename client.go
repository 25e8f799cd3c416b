package watt

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// A public client has stallTime to take each piece of what is written to it. The streams of an HTTP/2 connection share
// what its line can carry, so that theirs are smaller: no longer than a frame, unless the client has asked for longer ones.
const (
	stallTime  = 30 * time.Second
	http1Piece = 64 << 10 // bytes
	http2Piece = 16 << 10
	// http2HeldBack is how much of an answer of HTTP/2 net/http keeps before its head goes out.
	http2HeldBack = 4 << 10
)

// client is the server's writer for a request of the public side. Whatever goes out through it has to be taken in time,
// piece by piece, so that a client that does not read holds no worker for good. While nothing goes out there is no
// limit: an answer may be as silent as it likes.
type client struct {
	http.ResponseWriter
	http1   bool
	written int64 // bytes

	mu    sync.Mutex
	busy  int         // things that go out, of which a proxy may have two at a time
	other bool        // the handler decides how long writing may take, or whoever wants it to end
	gone  bool        // the connection was hijacked
	timer *time.Timer // of HTTP/2
}

// http1Client is the client of an HTTP/1 request.
type http1Client struct{ client }

// newClient returns the client that w writes to, and the writer that does so in its stead.
func newClient(w http.ResponseWriter) (*client, http.ResponseWriter) {
	if _, http1 := w.(http.Hijacker); !http1 {
		c := &client{ResponseWriter: w}
		return c, c
	}
	c := &http1Client{client{ResponseWriter: w, http1: true}}
	return &c.client, c
}

// Unwrap lets [http.ResponseController] reach the server's own writer.
func (c *client) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *client) control() *http.ResponseController {
	return http.NewResponseController(c.ResponseWriter)
}

// begin gives the client time to take what goes out next.
func (c *client) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy++
	switch {
	case c.other || c.gone:
	case c.http1:
		_ = c.control().SetWriteDeadline(time.Now().Add(stallTime))
	case c.timer == nil: // HTTP/2 would only note a deadline, perhaps after the stream has ended
		c.timer = time.AfterFunc(stallTime, c.stalled)
	default:
		c.timer.Reset(stallTime)
	}
}

// end is called when it is out.
func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.busy--; {
	case c.busy > 0 || c.other || c.gone:
	case c.http1:
		_ = c.control().SetWriteDeadline(time.Time{})
	default:
		c.timer.Stop()
	}
}

// stalled ends a stream of HTTP/2 of which something has been going out for too long.
func (c *client) stalled() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy > 0 && !c.other {
		_ = c.control().SetWriteDeadline(time.Unix(1, 0)) // long ago
	}
}

// over is called when the request has been answered, for what the server has held back. Of an answer of HTTP/2 that
// is so little that it waits for who does not take it, as long as the connection lasts: it holds no worker.
func (c *client) over() {
	if c.http1 {
		c.begin() // the server takes the limit away
	} else if c.written > http2HeldBack {
		_ = c.FlushError()
	}
}

// SetWriteDeadline is the handler's, whose word counts from then on, or that of who wants the handler to end. A zero t
// leaves it to the client again how long there is.
func (c *client) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.other = !t.IsZero()
	return c.control().SetWriteDeadline(t)
}

// WriteHeader sends an informational answer at once. The server holds any other back.
func (c *client) WriteHeader(status int) {
	if status < http.StatusOK {
		c.begin()
		defer c.end()
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *client) Write(p []byte) (int, error) {
	return pieces(c, p, c.ResponseWriter.Write)
}

// WriteString saves a copy where the server can.
func (c *client) WriteString(s string) (int, error) {
	return pieces(c, s, func(s string) (int, error) { return io.WriteString(c.ResponseWriter, s) })
}

// pieces writes all of p, each piece in its time.
func pieces[T string | []byte](c *client, p T, write func(T) (int, error)) (n int, err error) {
	most := http2Piece
	if c.http1 {
		most = http1Piece
	}
	for {
		var k int
		k, err = piece(c, p[n:min(len(p), n+most)], write)
		if n += k; err != nil || n == len(p) {
			return n, err
		}
	}
}

func piece[T string | []byte](c *client, p T, write func(T) (int, error)) (int, error) {
	if c.written += int64(len(p)); c.written > heldBack {
		c.begin()
		defer c.end()
	}
	return write(p)
}

// FlushError sends what the server has held back.
func (c *client) FlushError() error {
	c.begin()
	defer c.end()
	return c.control().Flush()
}

// Hijack gives the connection away, and with it all deadlines.
func (c *http1Client) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := c.control().Hijack()
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.gone = true
	}
	return conn, rw, err
}
