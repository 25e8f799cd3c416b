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

// timedWriter is the server's writer for a request of the public side. Whatever goes out through it has to be taken in time,
// piece by piece, so that a client that does not read holds no worker for good. While nothing goes out there is no
// limit: an answer may be as silent as it likes.
type timedWriter struct {
	http.ResponseWriter
	http1   bool
	old     bool  // it speaks HTTP/1.0, where every answer is the last
	written int64 // bytes

	mu       sync.Mutex
	busy     int         // things that go out, of which a proxy may have two at a time
	other    bool        // the handler decides how long writing may take, or whoever wants it to end
	hijacked bool        // the connection was
	timer    *time.Timer // of HTTP/2
}

// http1TimedWriter is that of an HTTP/1 request.
type http1TimedWriter struct{ timedWriter }

// newTimedWriter returns the one in front of w: as such, and as the writer for whoever answers.
func newTimedWriter(w http.ResponseWriter) (*timedWriter, http.ResponseWriter) {
	if _, http1 := w.(http.Hijacker); !http1 {
		t := &timedWriter{ResponseWriter: w}
		return t, t
	}
	t := &http1TimedWriter{timedWriter{ResponseWriter: w, http1: true}}
	return &t.timedWriter, t
}

// Unwrap lets [http.ResponseController] reach the server's own writer.
func (t *timedWriter) Unwrap() http.ResponseWriter { return t.ResponseWriter }

func (t *timedWriter) control() *http.ResponseController {
	return http.NewResponseController(t.ResponseWriter)
}

// begin gives the client time to take what goes out next.
func (t *timedWriter) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy++
	switch {
	case t.other || t.hijacked:
	case t.http1:
		_ = t.control().SetWriteDeadline(time.Now().Add(stallTime))
	case t.timer == nil: // HTTP/2 would only note a deadline, perhaps after the stream has ended
		t.timer = time.AfterFunc(stallTime, t.stalled)
	default:
		t.timer.Reset(stallTime)
	}
}

// end is called when it is out.
func (t *timedWriter) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.busy--; {
	case t.busy > 0 || t.other || t.hijacked:
	case t.http1:
		_ = t.control().SetWriteDeadline(time.Time{})
	default:
		t.timer.Stop()
	}
}

// stalled ends a stream of HTTP/2 of which something has been going out for too long.
func (t *timedWriter) stalled() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy > 0 && !t.other {
		_ = t.control().SetWriteDeadline(time.Unix(1, 0)) // long ago
	}
}

// over is called when the request has been answered, for what the server has held back. Where that is a whole answer of
// HTTP/2, it may wait for a client that does not take it as long as the connection lasts: it is little, and holds no worker.
func (t *timedWriter) over() {
	if t.http1 {
		t.begin() // the server takes the limit away
	} else if t.written > http2HeldBack {
		_ = t.FlushError()
	}
}

// SetWriteDeadline is called by the handler, whose word counts from then on, or by whoever wants the handler to end. With a
// zero at, the client has stallTime for each piece again.
func (t *timedWriter) SetWriteDeadline(at time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.other = !at.IsZero()
	return t.control().SetWriteDeadline(at)
}

// WriteHeader sends an informational answer at once, if the client knows such. The server holds any other back.
func (t *timedWriter) WriteHeader(status int) {
	if t.old && status < http.StatusOK && status != http.StatusSwitchingProtocols {
		return
	}
	if status < http.StatusOK {
		t.begin()
		defer t.end()
	}
	t.ResponseWriter.WriteHeader(status)
}

func (t *timedWriter) Write(p []byte) (int, error) {
	return pieces(t, p, t.ResponseWriter.Write)
}

// WriteString saves a copy where the server can.
func (t *timedWriter) WriteString(s string) (int, error) {
	return pieces(t, s, func(s string) (int, error) { return io.WriteString(t.ResponseWriter, s) })
}

// pieces writes all of p, each piece in its time.
func pieces[T string | []byte](t *timedWriter, p T, write func(T) (int, error)) (n int, err error) {
	most := http2Piece
	if t.http1 {
		most = http1Piece
	}
	for {
		var k int
		k, err = piece(t, p[n:min(len(p), n+most)], write)
		if n += k; err != nil || n == len(p) {
			return n, err
		}
	}
}

func piece[T string | []byte](t *timedWriter, p T, write func(T) (int, error)) (int, error) {
	if t.written += int64(len(p)); t.written > heldBack {
		t.begin()
		defer t.end()
	}
	return write(p)
}

// FlushError sends what the server has held back.
func (t *timedWriter) FlushError() error {
	t.begin()
	defer t.end()
	return t.control().Flush()
}

// Hijack gives the connection away, and with it all deadlines.
func (t *http1TimedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := t.control().Hijack()
	if err == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.hijacked = true
	}
	return conn, rw, err
}
