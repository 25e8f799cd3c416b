package pipe

import "sync"

// The memory of a ring grows through three classes: enough to stay within four times of what was written to it.
const (
	minBuffered = 4 << 10
	maxBuffered = minBuffered << 4 // what one direction of a pipe holds for its reader
	classes     = 3
)

// Buffers recycles the bytes of pipes. The zero value is ready to use and safe for concurrent use.
// It belongs to one runtime: the pipes that share a Buffers share its memory, and nothing else.
type Buffers struct {
	pools [classes]sync.Pool // of *[]byte, because putting a plain slice would allocate
}

// Get returns memory of at least size bytes, which must not be more than a pipe holds. What was in it is still there.
func (b *Buffers) Get(size int) *[]byte {
	class, capacity := classOf(size)
	if mem, ok := b.pools[class].Get().(*[]byte); ok {
		return mem
	}
	mem := make([]byte, capacity)
	return &mem
}

// Put takes back what Get has returned, whole, and which nobody uses any more.
func (b *Buffers) Put(mem *[]byte) {
	class, _ := classOf(len(*mem))
	b.pools[class].Put(mem)
}

func classOf(size int) (class, capacity int) {
	for capacity = minBuffered; capacity < size; capacity *= 4 {
		class++
	}
	return class, capacity
}

// ring holds the bytes that one direction has in flight, in order. It has memory only while there are any.
type ring struct {
	buffers *Buffers
	mem     *[]byte // nil when the ring is empty
	start   int     // where the oldest byte is
	size    int
}

// fits reports whether n more bytes may be written.
func (r *ring) fits(n int) bool { return r.size+n <= maxBuffered }

// write appends p, which must fit.
func (r *ring) write(p []byte) {
	if len(p) == 0 {
		return
	}
	if r.mem == nil || len(*r.mem) < r.size+len(p) {
		r.grow(r.size + len(p))
	}
	mem := *r.mem
	end := (r.start + r.size) % len(mem)
	copy(mem, p[copy(mem[end:], p):])
	r.size += len(p)
}

// read moves the oldest bytes to p and returns how many.
func (r *ring) read(p []byte) int {
	if r.size == 0 || len(p) == 0 {
		return 0
	}
	n := r.peek(p)
	r.start = (r.start + n) % len(*r.mem)
	r.size -= n
	if r.size == 0 {
		r.release()
	}
	return n
}

// peek copies the oldest bytes to p and returns how many.
func (r *ring) peek(p []byte) int {
	mem := *r.mem
	n := copy(p, mem[r.start:min(r.start+r.size, len(mem))])
	return n + copy(p[n:], mem[:max(r.start+r.size-len(mem), 0)])
}

// grow moves the bytes to memory that holds size.
func (r *ring) grow(size int) {
	mem := r.buffers.Get(size)
	if r.mem != nil {
		r.peek(*mem)
		r.buffers.Put(r.mem)
	}
	r.mem, r.start = mem, 0
}

// release drops all bytes and gives the memory back.
func (r *ring) release() {
	if r.mem != nil {
		r.buffers.Put(r.mem)
	}
	r.mem, r.start, r.size = nil, 0, 0
}
