package pipe_test

import (
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/org/watt/internal/pipe"
)

func TestAnIdlePipeHoldsNoBuffer(t *testing.T) {
	const pipes = 1000
	ends := make([]*pipe.Conn, 0, 2*pipes)
	p := make([]byte, capacity)
	before := heap()
	for range pipes {
		a, b := pipe.New(new(pipe.Buffers), "a:1", "b:2") // not shared, so that every pipe had its own
		for _, c := range []*pipe.Conn{a, b} {
			c.Write(p)
		}
		io.ReadFull(a, p)
		io.ReadFull(b, p)
		ends = append(ends, a, b)
	}
	if got := (heap() - before) / pipes; got > 1024 {
		t.Errorf("an idle pipe holds %d bytes, want at most 1024", got)
	}
	runtime.KeepAlive(ends)
}

// heap returns what is in use after the collections that also empty the pools.
func heap() int {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// skipUnderRace skips where sync.Pool drops things at random.
func skipUnderRace(t *testing.T) {
	t.Helper()
	info, _ := debug.ReadBuildInfo()
	if slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("sync.Pool drops things at random under the race detector")
	}
}

func TestReadsAndWritesDoNotAllocate(t *testing.T) {
	skipUnderRace(t)
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
		b.Attach(a)
	})
	if got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

func TestBuffersThatNobodyCanReadAnyMoreAreRecycled(t *testing.T) {
	skipUnderRace(t)
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
