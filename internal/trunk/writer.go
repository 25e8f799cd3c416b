package trunk

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// Sizes in bytes.
const (
	maxQueued = 8 << 20  // what may wait before nothing more is taken
	maxKept   = 64 << 10 // how much memory is kept for what waits
)

// maxRounds is how often a goroutine that has come to write its own frame also writes what has come meanwhile.
const maxRounds = 4

var errUnread = errors.New("the other side does not read")

// writer writes the frames of many goroutines to one connection. A goroutine that finds nobody writing writes its frame
// itself, as far as the system takes it at once; what others bring meanwhile it writes after that, in one piece. Only a
// goroutine of the writer's own waits for the other side to read, and those that have much to write.
type writer struct {
	nc      net.Conn
	attempt attempt
	scratch sync.Pool // of *[]byte: memory for frames that are being made

	mu      sync.Mutex
	turn    sync.Cond // for those in sendInTurn: nobody writes
	stopped sync.Cond // for those in lost: nobody writes, nor will any more
	inTurn  int       // how many wait for turn
	busy    bool      // somebody writes
	waiting []byte    // frames to be written next
	other   []byte    // memory for those that come after them; what is being written is in it
	queued  uint64    // bytes that were taken, ever
	written uint64    // bytes that the system has taken of them
	err     error     // why nothing more is
}

func (w *writer) init(nc net.Conn) {
	w.nc, w.turn.L, w.stopped.L = nc, &w.mu, &w.mu
	w.attempt.init(nc)
}

// framed calls send with a frame that fill has made.
func (w *writer) framed(fill func([]byte) []byte, send func([]byte)) {
	mem, ok := w.scratch.Get().(*[]byte)
	if !ok {
		mem = new([]byte)
	}
	p := fill((*mem)[:0])
	send(p)
	if *mem = p; cap(p) <= maxKept {
		w.scratch.Put(mem)
	}
}

// send sends a frame, whose memory is the caller's again when it returns. It does not block. By end, lost tells
// later whether the frame went out.
func (w *writer) send(p []byte) (end uint64, err error) {
	w.mu.Lock()
	if w.err == nil && len(w.waiting)+len(p) > maxQueued {
		w.mu.Unlock()
		return 0, errUnread
	}
	return w.sendLocked(p)
}

// tell is send for short frames without which the other side might wait for ever, such as credit. There is always room for them.
func (w *writer) tell(p []byte) {
	w.mu.Lock()
	_, _ = w.sendLocked(p)
}

// sendInTurn is send for those who have much to write: it blocks until nobody else writes, and then until all of p is written.
func (w *writer) sendInTurn(p []byte) error {
	w.mu.Lock()
	for w.busy && w.err == nil {
		w.inTurn++
		w.turn.Wait()
		w.inTurn--
	}
	if w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	w.busy, w.queued = true, w.queued+uint64(len(p))
	w.mu.Unlock()
	n, err := w.nc.Write(p)
	w.mu.Lock()
	w.written += uint64(n)
	next := w.nextLocked(err)
	w.mu.Unlock()
	w.write(next)
	return err
}

// sendLocked is send where there is room, and unlocks.
func (w *writer) sendLocked(p []byte) (end uint64, err error) {
	if w.err != nil {
		defer w.mu.Unlock()
		return 0, w.err
	}
	w.queued += uint64(len(p))
	end = w.queued
	if w.busy {
		w.waiting = append(w.waiting, p...)
		w.mu.Unlock()
		return end, nil
	}
	w.busy = true
	w.mu.Unlock()
	w.write(p)
	return end, nil
}

// hold keeps frames back until release. It reports false, and does nothing, if somebody writes or waits for a turn.
func (w *writer) hold() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy || w.err != nil || w.inTurn > 0 {
		return false
	}
	w.busy = true
	return true
}

// release writes what was kept back.
func (w *writer) release() {
	w.mu.Lock()
	p := w.nextLocked(nil)
	w.mu.Unlock()
	w.write(p)
}

// write writes p and what comes meanwhile. Where the system takes no more at once, or others bring more and more, it leaves
// the rest to a goroutine.
func (w *writer) write(p []byte) {
	for round := 0; len(p) > 0; round++ {
		n, err := w.attempt.write(p)
		w.mu.Lock()
		w.written += uint64(n)
		rest := p[n:]
		if len(rest) == 0 || err != nil {
			rest = w.nextLocked(err)
		} else if round == 0 {
			rest = append([]byte(nil), rest...) // p is its owner's again
		}
		w.mu.Unlock()
		if err == nil && len(rest) > 0 && (n < len(p) || round == maxRounds) {
			go w.writeAll(rest)
			return
		}
		p = rest
	}
}

// writeAll is write, and blocks while the other side does not read.
func (w *writer) writeAll(p []byte) {
	for len(p) > 0 {
		n, err := w.nc.Write(p)
		w.mu.Lock()
		w.written += uint64(n)
		p = w.nextLocked(err)
		w.mu.Unlock()
	}
}

// nextLocked is called by whoever writes, with the error that this has met, if any. It returns what is to be written next. If
// that is nothing, the caller writes no more.
func (w *writer) nextLocked(err error) []byte {
	if err != nil {
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) { // else reading ends too, after what has come
			_ = w.nc.Close()
		}
		w.failLocked(err)
		return nil
	}
	if cap(w.other) > maxKept {
		w.other = nil
	}
	w.waiting, w.other = w.other[:0], w.waiting
	if w.busy = len(w.other) > 0; !w.busy {
		w.idleLocked()
	}
	return w.other
}

func (w *writer) failLocked(err error) {
	if w.err == nil {
		w.err = err
	}
	w.busy, w.waiting, w.other = false, nil, nil
	w.idleLocked()
}

// idleLocked tells that nobody writes.
func (w *writer) idleLocked() {
	if w.err == nil {
		w.turn.Signal()
		return
	}
	w.turn.Broadcast()
	w.stopped.Broadcast()
}

// fail ends the writing from outside. Whoever writes finds out by itself.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.turn.Broadcast()
}

// waits reports whether the system has yet to take some of what was sent.
func (w *writer) waits() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err == nil && w.written < w.queued
}

// lost reports whether the writing has ended before a frame was written to its end, so that the other side cannot have it. It
// waits for a write in progress, which is about to return: only then is it known how far that came.
func (w *writer) lost(end uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err != nil && w.busy {
		w.stopped.Wait()
	}
	return w.err != nil && w.written < end
}
