package watt

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/org/watt/internal/count"
)

func TestAnswersAreExpectedToBeAsLongAsThoseLately(t *testing.T) {
	const thumb, list = "/thumb/1", "/list"
	for name, test := range map[string]struct {
		happens func(note func(path string, long bool))
		thumb   bool
		list    bool
		other   bool
	}{
		"nothing":             {func(func(string, bool)) {}, false, false, false},
		"short ones":          {func(note func(string, bool)) { note(list, false) }, false, false, false},
		"a long one":          {func(note func(string, bool)) { note(thumb, true) }, true, true, true},
		"both":                {func(note func(string, bool)) { note(list, false); note(thumb, true) }, true, false, true},
		"many short ones":     {func(note func(string, bool)) { times(longMemory+1, func() { note(list, false) }) }, false, false, false},
		"a long one long ago": {func(note func(string, bool)) { note(thumb, true); times(longMemory+1, func() { note(thumb, false) }) }, false, false, false},
		"a long one lately":   {func(note func(string, bool)) { note(thumb, true); times(longMemory-1, func() { note(thumb, false) }) }, true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			var l lengths
			test.happens(func(path string, long bool) { l.note(l.of(path), long) })
			for path, want := range map[string]bool{thumb: test.thumb, "/thumb/2": test.thumb, list: test.list, "/other": test.other} {
				if got := l.long(l.of(path)); got != want {
					t.Errorf("%s: got %v", path, got)
				}
			}
		})
	}
}

// TestAnAnswerWithoutABodySaysNothingOfHowLongOthersAre has one to HEAD, and one of which the caller has the body.
func TestAnAnswerWithoutABodySaysNothingOfHowLongOthersAre(t *testing.T) {
	for want, resp := range map[int32]*http.Response{
		0:  {StatusCode: http.StatusOK, ContentLength: longAnswer + 1},
		1:  {StatusCode: http.StatusNotModified},
		-1: {StatusCode: http.StatusNoContent}, // of which others have none either
	} {
		c := &call{ctx: t.Context(), edge: &edge{calls: new(count.Calls)}}
		length := c.edge.lengths.of("/pictures")
		c.length = length
		if want > 0 {
			length.Store(want)
		}
		resp.Body = http.NoBody
		if err := c.accept(resp); err != nil {
			t.Error(err)
		}
		if got := length.Load(); got != want {
			t.Errorf("%d: got %d, want %d", resp.StatusCode, got, want)
		}
	}
}

func times(n int, f func()) {
	for range n {
		f()
	}
}

func TestKindsOfAnswersAreSpread(t *testing.T) {
	var l lengths
	kinds := make(map[*length]bool)
	for i := range 200 {
		kinds[l.of(fmt.Sprint("/route", i, "/x"))] = true
	}
	if len(kinds) < len(l.some)/2 {
		t.Errorf("200 routes have %d kinds", len(kinds))
	}
}
