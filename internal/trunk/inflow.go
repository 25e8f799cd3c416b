package trunk

import (
	"bufio"
	"io"
	"net"
	"sync"

	"github.com/org/watt/internal/pipe"
)

// inflow is what has come of a body and was not read. It has memory only while there is some. Adding to it does not block:
// credit bounds how much there can be.
type inflow struct {
	buffers *pipe.Buffers

	mu      sync.Mutex
	changed sync.Cond
	pieces  []piece // the oldest first
	ended   bool    // nothing more comes
	closed  bool    // nobody reads any more
}

// piece is memory of which the bytes from one index to another are not read.
type piece struct {
	mem      *[]byte
	from, to int
}

func newInflow(buffers *pipe.Buffers) *inflow {
	f := &inflow{buffers: buffers}
	f.changed.L = &f.mu
	return f
}

// add takes n bytes from r.
func (f *inflow) add(r *bufio.Reader, n int) error {
	if n <= r.Buffered() && f.extend(r, n) {
		return nil
	}
	for n > 0 {
		size := min(n, maxData)
		mem := f.buffers.Get(size)
		m, err := io.ReadFull(r, (*mem)[:size])
		f.append(piece{mem, 0, m})
		if err != nil {
			return cutShort(err)
		}
		n -= m
	}
	return nil
}

// extend adds n bytes, which r has, to the last piece, if that has room.
func (f *inflow) extend(r *bufio.Reader, n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pieces) == 0 {
		return false
	}
	last := &f.pieces[len(f.pieces)-1]
	if len(*last.mem)-last.to < n {
		return false
	}
	m, _ := r.Read((*last.mem)[last.to : last.to+n]) // all, as far as that is buffered
	last.to += m
	return true
}

func (f *inflow) append(p piece) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || p.to == 0 {
		f.buffers.Put(p.mem)
		return
	}
	f.pieces = append(f.pieces, p)
	f.changed.Broadcast()
}

// Read blocks until there is something, or nothing more comes ([io.EOF]), or close is called.
func (f *inflow) Read(p []byte) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.pieces) == 0 && !f.ended && !f.closed && len(p) > 0 {
		f.changed.Wait()
	}
	if f.closed {
		return 0, net.ErrClosed
	}
	for n < len(p) && len(f.pieces) > 0 {
		n += f.takeLocked(p[n:])
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// takeLocked reads from the oldest piece.
func (f *inflow) takeLocked(p []byte) int {
	oldest := &f.pieces[0]
	n := copy(p, (*oldest.mem)[oldest.from:oldest.to])
	if oldest.from += n; oldest.from == oldest.to {
		f.buffers.Put(oldest.mem)
		f.pieces = f.pieces[1:]
	}
	return n
}

// end has Read return io.EOF after all that has come.
func (f *inflow) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.changed.Broadcast()
}

// close drops what was not read, and what may come.
func (f *inflow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.pieces {
		f.buffers.Put(p.mem)
	}
	f.pieces, f.closed = nil, true
	f.changed.Broadcast()
}
