package admin

import "testing"

func TestWhoHasLeftIsToldNothingMore(t *testing.T) {
	l := new(Logs)
	_, _, stopOne := l.read()
	_, another, stopOther := l.read()
	stopOne()
	l.Output("app", 0, "line")
	if len(l.readers) != 1 || len(another) != 1 {
		t.Errorf("got %d readers, and %d lines for the one that is left", len(l.readers), len(another))
	}
	stopOther()
	if len(l.readers) != 0 {
		t.Errorf("got %d readers when all have left", len(l.readers))
	}
}
