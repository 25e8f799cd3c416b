//go:build !race

// Under the race detector sync.Pool drops things at random, so that what is recycled cannot be counted.

package pipe_test

import (
	"io"
	"testing"
	"time"

	"github.com/org/watt/internal/pipe"
)

func TestReadsAndWritesDoNotAllocate(t *testing.T) {
	a, b := newPipe(t)
	b.SetDeadline(time.Now().Add(time.Hour)) // the first makes the timers
	p := make([]byte, capacity)
	got := testing.AllocsPerRun(100, func() {
		for _, size := range []int{1, 10_000, capacity} {
			a.Write(p[:size])
			io.ReadFull(b, p[:size])
		}
		b.SetReadDeadline(time.Unix(1, 0)) // as net/http does for every request
		b.SetReadDeadline(time.Time{})
		b.SetDeadline(time.Now().Add(time.Minute))
	})
	if got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

func TestWhatIsHeldIsInRecycledMemory(t *testing.T) {
	var buffers pipe.Buffers
	p := make([]byte, 600)
	for name, end := range map[string]func(*pipe.Held){
		"read":    func(h *pipe.Held) { h.Read(make([]byte, len(p))) },
		"dropped": (*pipe.Held).Drop,
	} {
		got := testing.AllocsPerRun(100, func() {
			var h pipe.Held
			h.Copy(&buffers, p)
			end(&h)
		})
		if got > 2 { // it, and what it is read into
			t.Errorf("%s: got %v allocations, want at most 2", name, got)
		}
	}
}

func TestBuffersThatNobodyCanReadAnyMoreAreRecycled(t *testing.T) {
	var buffers pipe.Buffers
	p := make([]byte, capacity)
	for name, hangUp := range map[string]func(writer, reader *pipe.Conn){
		"the reader closes":                  func(_, r *pipe.Conn) { r.Close() },
		"both close, the writer first":       func(w, r *pipe.Conn) { w.Close(); r.Close() },
		"the reader closes after CloseWrite": func(w, r *pipe.Conn) { w.CloseWrite(); r.Close() },
	} {
		got := testing.AllocsPerRun(100, func() {
			a, b := pipe.New(&buffers, "a:1", "b:2")
			a.Write(p)
			hangUp(a, b)
		})
		if got != 1 {
			t.Errorf("%s: got %v allocations, want 1, the pipe", name, got)
		}
	}
}
