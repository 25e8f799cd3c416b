package pipe_test

import (
	"io"
	"runtime"
	"testing"

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
