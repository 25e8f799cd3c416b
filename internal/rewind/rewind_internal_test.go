package rewind

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

func TestABodyIsReadOnceMoreWhileNoMoreThan4KiBWereRead(t *testing.T) {
	whole := strings.Repeat("0123456789abcdef", most/16) + "more"
	for _, read := range []int{0, 1, most, most + 1} {
		b := New(io.NopCloser(strings.NewReader(whole)))
		before := b.Restart()
		if _, err := io.ReadFull(before, make([]byte, read)); err != nil {
			t.Fatal(err)
		}
		again, err := b.Again()
		if read > most {
			if again != nil || !errors.Is(err, errRead) || len(b.kept) > most {
				t.Errorf("after %d bytes: got %v, %v, with %d kept", read, again, err, len(b.kept))
			}
			continue
		}
		if _, err := before.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("after %d bytes: the reader before got %v", read, err)
		}
		if got, err := io.ReadAll(again); string(got) != whole || err != nil || len(b.kept) > most || b.Open() {
			t.Errorf("after %d bytes: got %d, %v, with %d kept, open: %t", read, len(got), err, len(b.kept), b.Open())
		}
	}
}

func TestABodyThatIsBeingReadIsNotReadOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, client := io.Pipe()
		b := New(source)
		reader, ended := b.Restart(), false
		go io.ReadFull(reader, make([]byte, 1))
		synctest.Wait()
		if got := b.Restart(); got != nil {
			t.Errorf("got %v", got)
		}
		go func() { b.End(); ended = true }()
		synctest.Wait()
		if ended || !b.Open() {
			t.Errorf("ended: %t, open: %t", ended, b.Open())
		}
		io.WriteString(client, "x")
		synctest.Wait()
		if !ended || b.Open() {
			t.Errorf("once it has been read, ended: %t, open: %t", ended, b.Open())
		}
	})
}
