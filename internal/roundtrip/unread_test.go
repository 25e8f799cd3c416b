package roundtrip_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/org/watt/internal/roundtrip"
)

type counting struct {
	io.Reader
	closed int
}

func (c *counting) Close() error {
	c.closed++
	return nil
}

func TestABodyThatNobodyHasReadOfCanBeHadAgain(t *testing.T) {
	body := &counting{Reader: strings.NewReader("whole")}
	first, end := roundtrip.WhileUnread(newRequest(t, body))
	first.Body.Close()
	if body.closed != 0 {
		t.Error("it was closed with the first attempt")
	}
	second := roundtrip.Again(first)
	if second == nil {
		t.Fatal("it cannot be had again")
	}
	if _, err := first.Body.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("got %v for the first attempt, want that it reads no more", err)
	}
	if got, err := io.ReadAll(second.Body); string(got) != "whole" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	first.Body.Close()
	if roundtrip.Again(second) != nil || body.closed != 0 {
		t.Errorf("it can be had after it was read, or was closed %d times before", body.closed)
	}
	end()
	second.Body.Close()
	if body.closed != 1 {
		t.Errorf("it was closed %d times", body.closed)
	}
}

func TestABodyThatNobodyHasReadOfIsClosedOnce(t *testing.T) {
	for name, order := range map[string]func(attempt io.Closer, end func()){
		"by the end":           func(a io.Closer, end func()) { a.Close(); end() },
		"by the last attempt":  func(a io.Closer, end func()) { end(); a.Close() },
		"however often closed": func(a io.Closer, end func()) { a.Close(); a.Close(); end(); a.Close(); end() },
	} {
		t.Run(name, func(t *testing.T) {
			body := &counting{Reader: strings.NewReader("")}
			req, end := roundtrip.WhileUnread(newRequest(t, body))
			order(roundtrip.Again(req).Body, end)
			req.Body.Close() // late
			if body.closed != 1 {
				t.Errorf("it was closed %d times", body.closed)
			}
		})
	}
}

func TestABodyThatCanBeHadAgainOrIsInMemoryStaysWhatItIs(t *testing.T) {
	again := newRequest(t, strings.NewReader("words"))
	memory := newRequest(t, strings.NewReader("words"))
	memory.GetBody = nil
	for _, req := range []*http.Request{again, memory, newRequest(t, nil), newRequest(t, http.NoBody)} {
		if got, end := roundtrip.WhileUnread(req); got != req {
			t.Errorf("got %v", got)
		} else {
			end()
		}
	}
}
