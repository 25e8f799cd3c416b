package watt

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

func TestABodyIsReadOnceMoreWhileNoMoreThan4KiBWereRead(t *testing.T) {
	whole := strings.Repeat("0123456789abcdef", maxRewind/16) + "more"
	for _, read := range []int{0, 1, maxRewind, maxRewind + 1} {
		b := rewind(io.NopCloser(strings.NewReader(whole)))
		before := b.restart()
		if _, err := io.ReadFull(before, make([]byte, read)); err != nil {
			t.Fatal(err)
		}
		again, err := b.again()
		if read > maxRewind {
			if again != nil || !errors.Is(err, errRead) || len(b.kept) > maxRewind {
				t.Errorf("after %d bytes: got %v, %v, with %d kept", read, again, err, len(b.kept))
			}
			continue
		}
		if _, err := before.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("after %d bytes: the reader before got %v", read, err)
		}
		if got, err := io.ReadAll(again); string(got) != whole || err != nil || len(b.kept) > maxRewind || b.open() {
			t.Errorf("after %d bytes: got %d, %v, with %d kept, open: %t", read, len(got), err, len(b.kept), b.open())
		}
	}
}

func TestABodyThatIsBeingReadIsNotReadOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, client := io.Pipe()
		b := rewind(source)
		reader, ended := b.restart(), false
		go io.ReadFull(reader, make([]byte, 1))
		synctest.Wait()
		if got := b.restart(); got != nil {
			t.Errorf("got %v", got)
		}
		go func() { b.end(); ended = true }()
		synctest.Wait()
		if ended || !b.open() {
			t.Errorf("ended: %t, open: %t", ended, b.open())
		}
		io.WriteString(client, "x")
		synctest.Wait()
		if !ended || b.open() {
			t.Errorf("once it has been read, ended: %t, open: %t", ended, b.open())
		}
	})
}
