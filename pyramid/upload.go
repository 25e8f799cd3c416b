package pyramid

import (
	"fmt"
	"io"
	"net/http"
	"sync"
)

// errBegun means that a body cannot be sent once more. A transport that asks for it has lost a connection, and may return this
// error in place of the one that it has met.
var errBegun = fmt.Errorf("the connection has ended, and some of the body has been read: %w", io.ErrUnexpectedEOF)

// incoming is the body of a request as it comes from the client. As long as nobody has read of it, the request may be
// sent to another instance.
type incoming struct {
	io.ReadCloser
	trailer http.Header // which comes with the end

	mu    sync.Mutex
	last  *upload // nobody else may read
	begun bool
	err   error // with which the client has failed to send it
}

// open returns the body for an attempt to send it. Whoever has it from before reads no more.
func (b *incoming) open() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.begun {
		return nil, errBegun
	}
	b.last = &upload{body: b}
	return b.last, nil
}

// upload is the body of an attempt.
type upload struct {
	body   *incoming
	closed bool // whatever Read returns from now on is not the client's fault
}

// begin reports whether u may read.
func (u *upload) begin() bool {
	b := u.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last != u || u.closed {
		return false
	}
	b.begun = true
	return true
}

func (u *upload) Read(p []byte) (int, error) {
	if !u.begin() {
		return 0, http.ErrBodyReadAfterClose
	}
	b := u.body
	n, err := b.Read(p)
	switch {
	case err == io.EOF: //nolint:errorlint // Read returns it bare
		dropForwarded(b.trailer)
	case err != nil:
		b.mu.Lock()
		if b.err == nil && !u.closed {
			b.err = err
		}
		b.mu.Unlock()
	}
	return n, err
}

// Close notes that errors of Read are no fault of the client's from now on. A body that nobody has read of is left to
// ReverseProxy, which closes it when there is an answer.
func (u *upload) Close() error {
	b := u.body
	b.mu.Lock()
	u.closed = true
	begun := b.begun && b.last == u
	b.mu.Unlock()
	if !begun {
		return nil
	}
	return b.Close()
}

// failure returns why the body could not be read, or nil.
func (u *upload) failure() error {
	u.body.mu.Lock()
	defer u.body.mu.Unlock()
	return u.body.err
}
