package pipe_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
)

// model says what a pipe does with Writes that are issued one after the other:
// those that fit are buffered whole, and the first that does not waits until its rest does.
type model struct {
	sent   []byte // by all Writes so far
	ends   []int  // of each Write, in sent
	read   int
	closed bool
}

// completed returns how many Writes have returned, and where in sent the first of the others ends.
func (m *model) completed() (n, reach int) {
	for n < len(m.ends) && m.ends[n]-m.read <= capacity {
		n++
	}
	return n, m.ends[min(n, len(m.ends)-1)]
}

// FuzzAPipeKeepsToItsModel plays a script: each pair of bytes is a Write, a Read or CloseWrite.
func FuzzAPipeKeepsToItsModel(f *testing.F) {
	f.Add([]byte{0, 1, 1, 1})
	f.Add([]byte{0, 40, 0, 200, 1, 10, 0, 3, 1, 255, 1, 255, 1, 255, 2, 0, 1, 1})
	f.Add([]byte{0, 255, 0, 255, 2, 0, 1, 255, 1, 255})
	f.Add(bytes.Repeat([]byte{0, 15, 1, 9, 0, 33, 1, 41}, 20))
	f.Fuzz(func(t *testing.T, script []byte) {
		synctest.Test(t, func(t *testing.T) { play(t, script) })
	})
}

func play(t *testing.T, script []byte) {
	t.Helper()
	a, b := newPipe(t)
	m := model{ends: []int{0}}
	writes := make(chan []byte, len(script))
	var mu sync.Mutex
	returned := 1 // like the empty Write that ends starts with
	go func() {
		for p := range writes {
			if _, err := a.Write(p); err != nil {
				return
			}
			mu.Lock()
			returned++
			mu.Unlock()
		}
	}()
	defer close(writes)
	random := rand.New(rand.NewPCG(1, 2))
	for ; len(script) >= 2; script = script[2:] {
		size := int(script[1]) * int(script[1]) * 3 // up to three times the capacity
		switch script[0] % 3 {
		case 0:
			if m.closed {
				continue
			}
			p := make([]byte, size)
			for i := range p {
				p[i] = byte(random.Uint32())
			}
			m.sent = append(m.sent, p...)
			m.ends = append(m.ends, len(m.sent))
			writes <- p
		case 1:
			readAsModelled(t, b, &m, size)
		case 2:
			a.CloseWrite()
			if n, _ := m.completed(); !m.closed { // what waits is cut off, but for what was read of it
				m.closed = true
				m.ends = m.ends[:n]
				m.sent = m.sent[:max(m.read, m.ends[n-1])]
				m.ends[n-1] = len(m.sent)
			}
		}
		synctest.Wait()
		mu.Lock()
		if want, _ := m.completed(); returned != want {
			t.Fatalf("%d Writes have returned, want %d", returned, want)
		}
		mu.Unlock()
	}
}

func readAsModelled(t *testing.T, c io.Reader, m *model, size int) {
	t.Helper()
	_, reach := m.completed()
	if reach == m.read && !m.closed || size == 0 {
		return // it would wait
	}
	p := make([]byte, size)
	n, err := c.Read(p)
	if want := m.sent[m.read:min(m.read+size, reach)]; !bytes.Equal(p[:n], want) {
		t.Fatalf("Read of %d bytes: got %d bytes that are not the %d expected", size, n, len(want))
	}
	if atEnd := m.closed && reach == m.read; (err == io.EOF) != atEnd || err != nil && !atEnd {
		t.Fatalf("Read: got %v, at the end = %v", err, atEnd)
	}
	m.read += n
}
