package process_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/org/watt/internal/process"
)

func TestLinesAreGivenWhole(t *testing.T) {
	long := strings.Repeat("x", 10<<10)
	text := "one\ntwo\r\n\nthree" + long + "\nlast"
	for _, size := range []int{1, 2, 7, 1000, len(text)} {
		var passed strings.Builder
		var got []string
		w := process.Lines(&passed, func(line string) { got = append(got, line) })
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if _, err := io.WriteString(w, rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if passed.String() != text {
			t.Errorf("in pieces of %d: %d bytes have passed, want %d", size, passed.Len(), len(text))
		}
		if !slices.Equal(got[:3], []string{"one", "two", ""}) || strings.Join(got[3:], "") != "three"+long {
			t.Errorf("in pieces of %d: got %.100q", size, got)
		}
		for _, line := range got {
			if len(line) > 4<<10 {
				t.Errorf("got a line of %d bytes", len(line))
			}
		}
	}
}
