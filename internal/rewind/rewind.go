// Package rewind reads the body of a request that may have to be sent more than once.
package rewind

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// most is how much of a request's body is kept so that it can be sent once more.
const most = 4 << 10

var errRead = errors.New("too much of the body has been read")

// Body is the body of a request that may have to be sent more than once: its first 4 KiB are kept, and until
// more than those have been read it can be read from the start again. It is closed by whoever owns the source.
type Body struct {
	source io.ReadCloser

	mu      sync.Mutex
	kept    []byte        // what was read of the source, unless lost
	lost    bool          // more was read than is kept
	over    error         // with which the source has ended
	reading chan struct{} // closed when a Read of the source has returned; nil while there is none
	current *reading      // nobody else may read
}

// New returns the body that reads source.
func New(source io.ReadCloser) *Body { return &Body{source: source} }

// Restart returns a reader of the whole body, and ends the one before. It returns nil if the body is no longer whole,
// or may not be: a Read of the source that is in progress.
func (b *Body) Restart() io.ReadCloser {
	if b.source == nil || b.source == http.NoBody {
		return http.NoBody
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost || b.reading != nil {
		return nil
	}
	b.current = &reading{body: b}
	return b.current
}

// Open reports whether somebody reads the source, or may.
func (b *Body) Open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reading != nil || b.current != nil && b.over == nil
}

// Leave lets nobody read any more.
func (b *Body) Leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = nil
}

// End waits for a Read that is in progress, the last one.
func (b *Body) End() {
	b.Leave()
	b.mu.Lock()
	reading := b.reading
	b.mu.Unlock()
	if reading != nil {
		<-reading
	}
}

// Again is Restart as [http.Request] has it.
func (b *Body) Again() (io.ReadCloser, error) {
	if r := b.Restart(); r != nil {
		return r, nil
	}
	return nil, errRead
}

// reading is one attempt to read a Body.
type reading struct {
	body *Body
	at   int // in what is kept
}

// Read implements [io.Reader].
func (r *reading) Read(p []byte) (n int, err error) {
	n, again, err := r.begin(p)
	if !again {
		return n, err
	}
	defer func() { r.end(p[:n], err) }() // whatever the source does
	n, err = r.body.source.Read(p)
	return n, err
}

// begin reads what was kept, or reports that the source is to be read.
func (r *reading) begin(p []byte) (n int, source bool, err error) {
	b := r.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current != r {
		return 0, false, http.ErrBodyReadAfterClose
	}
	if r.at < len(b.kept) {
		n = copy(p, b.kept[r.at:])
		r.at += n
		return n, false, nil
	}
	if b.over != nil {
		return 0, false, b.over
	}
	b.reading = make(chan struct{})
	return 0, true, nil
}

// end keeps what was read of the source.
func (r *reading) end(read []byte, err error) {
	b := r.body
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.reading)
	b.reading = nil
	b.over = err
	b.lost = b.lost || len(b.kept)+len(read) > most
	if !b.lost {
		b.kept = append(b.kept, read...)
		r.at += len(read)
	}
}

// Close does nothing: the server closes the source.
func (r *reading) Close() error { return nil }
