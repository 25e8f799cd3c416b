package watt

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// maxRewind is how much of a request's body is kept so that it can be sent once more.
const maxRewind = 4 << 10

var errRead = errors.New("too much of the body has been read")

// rewindable is the body of a request that may have to be sent more than once: its first 4 KiB are kept, and until
// more than those have been read it can be read from the start again. It is closed by whoever owns the source.
type rewindable struct {
	source io.ReadCloser

	mu      sync.Mutex
	kept    []byte   // what was read of the source, unless lost
	lost    bool     // more was read than is kept
	reading bool     // somebody reads the source
	current *reading // nobody else may read
}

func rewind(source io.ReadCloser) *rewindable { return &rewindable{source: source} }

// restart returns a reader of the whole body, and ends the one before. It returns nil if the body is no longer whole,
// or may not be: a Read of the source that is in progress.
func (b *rewindable) restart() io.ReadCloser {
	if b.source == nil || b.source == http.NoBody {
		return http.NoBody
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost || b.reading {
		return nil
	}
	b.current = &reading{body: b}
	return b.current
}

// again is restart as [http.Request] has it.
func (b *rewindable) again() (io.ReadCloser, error) {
	if r := b.restart(); r != nil {
		return r, nil
	}
	return nil, errRead
}

// reading is one attempt to read a rewindable.
type reading struct {
	body *rewindable
	at   int // in what is kept
}

// Read implements [io.Reader].
func (r *reading) Read(p []byte) (int, error) {
	b := r.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current != r {
		return 0, http.ErrBodyReadAfterClose
	}
	if r.at < len(b.kept) {
		n := copy(p, b.kept[r.at:])
		r.at += n
		return n, nil
	}
	b.reading = true
	b.mu.Unlock()
	n, err := b.source.Read(p)
	b.mu.Lock()
	b.reading = false
	b.lost = b.lost || len(b.kept)+n > maxRewind
	if !b.lost {
		b.kept = append(b.kept, p[:n]...)
		r.at += n
	}
	return n, err
}

// Close does nothing: the server closes the source.
func (r *reading) Close() error { return nil }
