package trunk

import (
	"bufio"
	"net"
	"runtime"
	"time"
)

// readSize is how much is read at once, in bytes.
const readSize = 16 << 10

// readAll reads the head of each frame that comes, and has receive take the rest of it. It returns why the connection has
// ended, or the first error of receive.
//
// Frames that come together wake many goroutines, most of which are about to send something. So that it goes out in few
// pieces, the reader takes the turn to write while it hands such frames on. At the end of its turn it lets those goroutines
// run, and then writes what they have left.
func readAll(nc net.Conn, out *writer, receive func(frame, *bufio.Reader) error) error {
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
		if err := receive(f, r); err != nil {
			return err
		}
		turn.passed()
	}
}

// mostPassed is how many frames are handed on in one turn. With all that have come in one, either side would have nothing to do
// while the other is at work.
const mostPassed = 8

// On a busy processor it may be long until the reader runs again. Then it takes no turn for a while, which is twice as long
// each time that this happens in a row.
const (
	longTurn   = time.Millisecond
	firstPause = 10 * time.Millisecond
	mostPause  = time.Second
)

// turn is a reader's turn to write.
type turn struct {
	out    *writer
	held   bool
	frames int           // handed on since it began
	pause  time.Duration // the last one; 0 if the last turn was none too long
	after  time.Time     // when that is over
}

func (t *turn) begin() {
	if !t.held && (t.pause == 0 || time.Now().After(t.after)) {
		t.held, t.frames = t.out.hold(), 0
	}
}

// passed is called when a frame was handed on.
func (t *turn) passed() {
	if t.frames++; t.frames >= mostPassed {
		t.end()
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
