package pipe_test

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/org/watt/internal/pipe"
)

func TestWhatIsHeldIsReadOnce(t *testing.T) {
	var buffers pipe.Buffers
	for _, size := range []int{0, 1, 600, capacity, capacity + 1} {
		p := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
		var h pipe.Held
		h.Copy(&buffers, p)
		if !bytes.Equal(h.Bytes(), p) {
			t.Errorf("of %d bytes it has %d", size, len(h.Bytes()))
		}
		if err := iotest.TestReader(&h, p); err != nil {
			t.Errorf("of %d bytes: %v", size, err)
		}
		if n, err := h.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // Read returns it bare
			t.Errorf("of %d bytes: got %d, %v after the end, want %v", size, n, err, io.EOF)
		}
	}
}

func TestWhatWasDroppedIsNotRead(t *testing.T) {
	var buffers pipe.Buffers
	var h pipe.Held
	for range 2 {
		h.Drop()
		if n, err := h.Read(make([]byte, 1)); n != 0 || err != io.EOF || len(h.Bytes()) > 0 { //nolint:errorlint // likewise
			t.Errorf("got %d, %v, want %v", n, err, io.EOF)
		}
		h.Copy(&buffers, []byte("content"))
	}
}

// TestMemoryThatWasHeldIsNotAnothersTwice has it read and dropped at the same time, again and again.
func TestMemoryThatWasHeldIsNotAnothersTwice(t *testing.T) {
	var buffers pipe.Buffers
	var busy sync.WaitGroup
	for i := range 4 {
		busy.Go(func() {
			want := bytes.Repeat([]byte{byte(i)}, 600)
			for range 5_000 {
				var h pipe.Held
				h.Copy(&buffers, want)
				var both sync.WaitGroup
				both.Go(h.Drop)
				got := make([]byte, len(want))
				if n, _ := h.Read(got); n > 0 && !bytes.Equal(got, want) {
					t.Errorf("it was overwritten while it was held")
				}
				both.Wait()
			}
		})
	}
	busy.Wait()
}
