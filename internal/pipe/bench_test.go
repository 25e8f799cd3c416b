package pipe_test

import (
	"io"
	"testing"
	"time"
)

// echo answers until the other end is closed.
func echo(c io.ReadWriter, size int) {
	p := make([]byte, size)
	for {
		if _, err := io.ReadFull(c, p); err != nil {
			return
		}
		c.Write(p)
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	x, y := newPipe(b)
	go echo(y, 128)
	p := make([]byte, 128)
	b.ReportAllocs()
	for b.Loop() {
		x.Write(p)
		io.ReadFull(x, p)
	}
}

// net/http sets and resets the read deadline for every request.
func BenchmarkRoundTripWithDeadlines(b *testing.B) {
	x, y := newPipe(b)
	go echo(y, 128)
	p := make([]byte, 128)
	b.ReportAllocs()
	for b.Loop() {
		x.Write(p)
		io.ReadFull(x, p)
		x.SetReadDeadline(time.Unix(1, 0))
		x.SetReadDeadline(time.Time{})
	}
}

func BenchmarkThroughput1MiB(b *testing.B) {
	x, y := newPipe(b)
	go func() {
		p := make([]byte, 1<<20)
		for {
			if _, err := x.Write(p); err != nil {
				return
			}
		}
	}()
	p := make([]byte, 32<<10)
	b.ReportAllocs()
	b.SetBytes(1 << 20)
	for b.Loop() {
		for range 1 << 20 / len(p) {
			io.ReadFull(y, p)
		}
	}
}

func BenchmarkDialAcceptClose(b *testing.B) {
	l := newListener(b)
	b.ReportAllocs()
	for b.Loop() {
		x, _ := l.Dial(b.Context(), "caller:1", nil)
		y, _ := l.Accept()
		x.Close()
		y.Close()
	}
}
