package trunk

import (
	"bufio"
	"net"
	"runtime"
	"time"
)

// readSize is how much is read at once, in bytes.
const readSize = 16 << 10

// readAll has heard read the content of each frame that comes, until the connection ends or heard returns an error, which it
// returns.
//
// Frames that have come together make many goroutines run, which are about to send something. All that goes out in one
// piece: meanwhile it is the reader's turn to write, which lets them run first, and then writes.
func readAll(nc net.Conn, out *writer, heard func(frame, *bufio.Reader) error) error {
	r := bufio.NewReaderSize(nc, readSize)
	turn := turn{out: out}
	defer turn.end()
	for {
		if r.Buffered() < frameHead {
			turn.end() // before waiting for more
		}
		f, err := next(r)
		if err != nil {
			return err
		}
		switch n := r.Buffered(); {
		case n < f.length:
			turn.end() // likewise
		case n > f.length:
			turn.begin()
		}
		if err := heard(f, r); err != nil {
			return err
		}
	}
}

// Where something computes, others may take long to let the reader go on. Then it does not wait for them for a while, which is
// longer each time in a row.
const (
	longTurn   = time.Millisecond
	firstPause = 10 * time.Millisecond
	mostPause  = time.Second
)

// turn is a reader's to write.
type turn struct {
	out   *writer
	held  bool
	pause time.Duration // the last one; 0 if the last turn was none too long
	after time.Time     // when that is over
}

func (t *turn) begin() {
	if !t.held && (t.pause == 0 || time.Now().After(t.after)) {
		t.held = t.out.hold()
	}
}

func (t *turn) end() {
	if !t.held {
		return
	}
	t.held = false
	began := time.Now()
	runtime.Gosched()
	now := time.Now()
	if t.pause = min(max(2*t.pause, firstPause), mostPause); now.Sub(began) < longTurn {
		t.pause = 0
	}
	t.after = now.Add(t.pause)
	t.out.release()
}
