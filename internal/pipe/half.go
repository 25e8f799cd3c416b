package pipe

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// half is one direction of a pipe. Bytes go from the slice of the Write in progress to the slice of the
// Read in progress: directly when both are there, by way of the ring when one of them is not.
//
//	writer.rest ──► ring ──► reader.rest
//
// Every operation puts its slice in place and calls flow, which leaves the three so that
//   - while a Read waits, the ring is empty,
//   - while a Write waits, the ring has no room for all of its rest.
//
// So a Read waits only for a Write, a Write only for a Read, and no goroutine runs between them.
type half struct {
	mu        sync.Mutex
	writer    side
	ring      ring
	reader    side
	eof       bool   // no Write may start; the reader gets io.EOF after what the ring holds
	delivered uint64 // bytes that were read
}

// side is what one end does to a half: its Reads or its Writes, one at a time.
type side struct {
	changed  sync.Cond // what a waiting operation should look at has changed
	waiting  int32     // on changed: the operation in progress, and those that wait for their turn
	busy     bool      // an operation is in progress
	closed   bool
	expired  bool      // the deadline has passed
	rest     []byte    // what the operation in progress has yet to fill or to send
	deadline time.Time // the one in force, by the monotonic clock, or zero
	timer    *time.Timer
}

func (h *half) init(buffers *Buffers) {
	h.ring.buffers = buffers
	h.writer.changed.L = &h.mu
	h.reader.changed.L = &h.mu
}

// read ends as soon as it has a byte.
func (h *half) read(p []byte) (int, error) { return h.move(&h.reader, p, min(1, len(p))) }

// write ends when all of p is read or in the ring.
func (h *half) write(p []byte) (int, error) { return h.move(&h.writer, p, len(p)) }

// move runs one operation: it waits for its turn, then until enough of p has moved or never can.
// What has moved counts even if a fault comes at the same time, for the other end has seen it move.
func (h *half) move(s *side, p []byte, enough int) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for err = h.fault(s); err == nil && s.busy; err = h.fault(s) {
		s.wait()
	}
	if err != nil {
		return 0, err
	}
	s.busy, s.rest = true, p
	h.flow()
	for len(p)-len(s.rest) < enough && err == nil {
		s.wait()
		err = h.fault(s)
	}
	if n = len(p) - len(s.rest); n >= enough {
		err = nil
	}
	s.busy, s.rest = false, nil
	s.wake()
	return n, err
}

// flow moves the bytes that can move, in order, and wakes the operation that this completes. A Write sleeps on
// until its last byte has gone, so the Reads of a bulk transfer copy from it without a switch of goroutines.
func (h *half) flow() {
	r, w := &h.reader, &h.writer
	if h.ring.size > 0 {
		n := h.ring.read(r.rest)
		r.rest, h.delivered = r.rest[n:], h.delivered+uint64(n)
	}
	if len(w.rest) == 0 {
		return
	}
	if n := copy(r.rest, w.rest); n > 0 {
		r.rest, w.rest, h.delivered = r.rest[n:], w.rest[n:], h.delivered+uint64(n)
		r.wake()
	}
	if h.ring.fits(len(w.rest)) {
		h.ring.write(w.rest)
		w.rest = nil
		w.wake()
	}
}

// fault returns why the operations of a side cannot go on, or nil. EPIPE has the shape of a socket's error because
// that is how servers and their middleware tell a client that went away from a fault of their own.
func (h *half) fault(s *side) error {
	switch {
	case s.closed:
		return net.ErrClosed
	case s.expired:
		return os.ErrDeadlineExceeded
	case !h.eof && !h.reader.closed:
		return nil
	case s == &h.writer:
		return os.NewSyscallError("write", syscall.EPIPE)
	case h.ring.size == 0:
		return io.EOF
	}
	return nil
}

func (s *side) wait() {
	s.waiting++
	s.changed.Wait()
	s.waiting--
}

// wake wakes all that wait: seldom more than one, and only each of them can tell whom a change concerns.
func (s *side) wake() {
	if s.waiting > 0 {
		s.changed.Broadcast()
	}
}

// closeReader also drops what nobody can read any more.
func (h *half) closeReader() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reader.close()
	h.ring.release()
	h.writer.wake()
}

func (h *half) closeWriter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writer.close()
	h.eof = true
	h.reader.wake()
}

// withdraw is closeWriter, and drops what the reader has not got.
func (h *half) withdraw() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writer.close()
	h.eof = true
	h.ring.release()
	h.reader.wake()
}

// over reports whether the writer has closed and the reader has all that there was.
func (h *half) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.writer.closed && h.ring.size == 0
}

func (h *half) ended() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.eof || h.ring.size > 0 || len(h.writer.rest) > 0
}

// endWriter is closeWriter without the end of the Conn: its deadlines can still be set.
func (h *half) endWriter() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.writer.closed {
		return net.ErrClosed
	}
	h.eof = true
	h.writer.wake()
	h.reader.wake()
	return nil
}

func (s *side) close() {
	s.closed = true
	s.disarm()
	s.wake()
}

func (h *half) progress() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.delivered
}
