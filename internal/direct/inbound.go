package direct

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/roundtrip"
)

// errUnread is what a trace is told of a body of which the handler does without the rest.
var errUnread = errors.New("the handler has not read all of the body")

// inbound is the body of a request as the handler reads it. What is in memory is read as it is; anything else
// may block, so that a goroutine pumps it through the link, from the first Read on.
type inbound struct {
	x      *Exchange
	source io.ReadCloser // the caller's; nil if the request has no body
	length int64         // -1 if it is not known
	memory bool          // reading source cannot block
	once   sync.Once     // closes source

	mu     sync.Mutex // held while source is read in memory
	expect bool       // the caller's trace is to be told when the body is asked for
	broken bool       // the pump has given up
	pipe   *pipe.Conn // the handler's end, once the pump runs
	err    error      // what Read returns from now on
}

func (b *inbound) begin(x *Exchange, req *http.Request, length int64) {
	b.x, b.source, b.length, b.expect = x, req.Body, length, req.Header["Expect"] != nil
	held, ok := roundtrip.InMemory(req.Body)
	if b.memory = ok && held == length; !b.memory {
		b.source = roundtrip.Guard(req.Body, x.ErrorLog)
	}
}

// Read reads the caller's body, and asks for it first if the caller wants to be asked.
func (b *inbound) Read(p []byte) (int, error) {
	if b.asked() {
		b.x.informational(http.StatusContinue, http.Header{}, true)
		if b.memory {
			b.x.sentBody(nil)
		}
	}
	b.mu.Lock()
	if b.err != nil || b.memory {
		defer b.mu.Unlock()
		return b.readMemoryLocked(p)
	}
	if b.pipe == nil {
		near, far := b.x.ends()
		b.pipe = far
		go b.pump(near)
	}
	b.mu.Unlock()
	n, err := b.pipe.Read(p)
	if err != nil {
		err = b.why(err)
	}
	return n, err
}

// handedOver reports whether the handler has all of the body with the request.
func (b *inbound) handedOver() bool {
	return b.source == nil || b.memory && b.x.caller.Header["Expect"] == nil
}

// asked reports, once, that the caller is to be told that its body is asked for.
func (b *inbound) asked() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	expect := b.expect
	b.expect = false
	return expect
}

// readMemoryLocked reads a body in memory.
func (b *inbound) readMemoryLocked(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.source.Read(p)
	if b.length -= int64(n); b.length == 0 {
		err = io.EOF
	}
	b.err = err
	return n, err
}

// why returns the error for the handler, whose end of the pipe has met err.
func (b *inbound) why(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err != nil:
		return b.err
	case err != io.EOF: //nolint:errorlint // Read returns it bare
		return err
	case b.broken:
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}

// pump sends the body through the link. If it cannot be read, or is not as long as was announced, the
// exchange fails.
func (b *inbound) pump(near *pipe.Conn) {
	err := roundtrip.ErrEnded
	defer func() {
		b.x.sentBody(err)
		if err != nil && err != errUnread && !b.stopped() { //nolint:errorlint // ours, bare
			b.mu.Lock()
			b.broken = true
			b.mu.Unlock()
			b.x.fail(err)
		}
		_ = near.CloseWrite()
	}()
	err = b.sendTo(near)
}

// sendTo sends the body, and closes it. It returns errUnread if nobody wants the rest.
func (b *inbound) sendTo(near *pipe.Conn) error {
	src := &source{body: b}
	limited := io.Reader(src)
	if b.length >= 0 {
		limited = io.LimitReader(src, b.length)
	}
	n, err := b.x.Buffers.Copy(near, limited)
	if err != nil && src.err == nil || b.stopped() { // then it is no matter how the rest ends
		_ = b.close()
		return errUnread
	}
	if b.length >= 0 && src.err == nil {
		extra, _ := io.CopyN(io.Discard, src, 1)
		n += extra
	}
	if err := b.close(); src.err == nil {
		src.err = err
	}
	if b.length >= 0 && n != b.length && src.err == nil {
		src.err = fmt.Errorf("http: ContentLength=%d with Body length %d", b.length, n)
	}
	return src.err
}

// source reads the caller's body, and remembers why it could not go on.
type source struct {
	body *inbound
	err  error
}

// Read ends when the handler reads no more: a body may give nothing for ever, and not mind being closed.
func (s *source) Read(p []byte) (int, error) {
	if s.body.stopped() {
		return 0, io.EOF
	}
	n, err := s.body.source.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// close closes the caller's body, once.
func (b *inbound) close() (err error) {
	b.once.Do(func() { err = b.source.Close() })
	return err
}

// end makes Read return err from now on, and lets go of the caller's body.
func (b *inbound) end(err error) {
	if b.source == nil {
		return
	}
	if b.stop(err); b.memory {
		_ = b.close()
	} else {
		go func() { _ = b.close() }() // it may wait, for a Read or for whatever else closing it takes
	}
}

// stop makes Read return err from now on, unless it has met a fault. A body in memory is then the caller's again.
func (b *inbound) stop(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil || b.err == io.EOF { //nolint:errorlint // set bare
		b.err = err
	}
}

// stopped reports whether the handler reads no more.
func (b *inbound) stopped() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil
}

// open reports whether the handler may yet wait for more of the body.
func (b *inbound) open() bool { return b.source != nil && !b.memory && !b.stopped() }

// Close is the handler's. It does without the rest.
func (b *inbound) Close() error {
	b.end(http.ErrBodyReadAfterClose)
	return nil
}
