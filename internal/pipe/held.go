package pipe

import (
	"bytes"
	"io"
	"sync"
)

// Held is bytes that were handed over whole. Once they are read, or dropped, their memory is another's: hence the lock, against
// those who do both at the same time. The zero value holds nothing.
type Held struct {
	mu      sync.Mutex
	buffers *Buffers
	mem     *[]byte // nil if it is not recycled
	rest    []byte  // what is not read
}

// Hold makes it hold p, which is in mem. That is from buffers, or nil.
func (h *Held) Hold(buffers *Buffers, mem *[]byte, p []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buffers, h.mem, h.rest = buffers, mem, p
}

// Copy makes it hold a copy of p.
func (h *Held) Copy(buffers *Buffers, p []byte) {
	switch {
	case len(p) == 0:
	case len(p) > maxBuffered:
		h.Hold(nil, nil, bytes.Clone(p))
	default:
		mem := buffers.Get(len(p))
		h.Hold(buffers, mem, (*mem)[:copy(*mem, p)])
	}
}

// Bytes returns what is not read. It is valid until the next Read or Drop.
func (h *Held) Bytes() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rest
}

// Read reads some of the bytes. With the last of them it returns [io.EOF].
func (h *Held) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := copy(p, h.rest)
	if h.rest = h.rest[n:]; len(h.rest) > 0 {
		return n, nil
	}
	h.dropLocked()
	return n, io.EOF
}

// Drop drops what is not read.
func (h *Held) Drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropLocked()
}

func (h *Held) dropLocked() {
	if h.mem != nil {
		h.buffers.Put(h.mem)
	}
	h.mem, h.rest = nil, nil
}
