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
	buffers *Buffers // nil if the memory is not recycled
	mem     *[]byte  // nil if there is nothing
	from    int      // what is not read, in mem
	to      int
}

// Hold makes it hold the first n bytes of mem, which is from buffers. If n is 0, mem may be nil.
func (h *Held) Hold(buffers *Buffers, mem *[]byte, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buffers, h.mem, h.from, h.to = buffers, mem, 0, n
}

// Copy makes it hold a copy of p.
func (h *Held) Copy(buffers *Buffers, p []byte) {
	switch {
	case len(p) == 0:
	case len(p) > maxBuffered:
		mem := bytes.Clone(p)
		h.Hold(nil, &mem, len(p))
	default:
		mem := buffers.Get(len(p))
		h.Hold(buffers, mem, copy(*mem, p))
	}
}

// Bytes returns what is not read. It is valid until the next Read or Drop.
func (h *Held) Bytes() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bytesLocked()
}

func (h *Held) bytesLocked() []byte {
	if h.mem == nil {
		return nil
	}
	return (*h.mem)[h.from:h.to]
}

// Read reads some of the bytes. With the last of them it returns [io.EOF].
func (h *Held) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := copy(p, h.bytesLocked())
	if h.from += n; h.from < h.to {
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
	if h.mem != nil && h.buffers != nil {
		h.buffers.Put(h.mem)
	}
	h.mem, h.from, h.to = nil, 0, 0
}
