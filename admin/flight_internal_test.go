package admin

import (
	"testing"
	"time"
)

func TestQueuesThatTakeTurnsHaveNotStalled(t *testing.T) {
	f := &flight{dir: t.TempDir()}
	if err := f.start(); err != nil {
		t.Fatal(err)
	}
	defer f.stop()
	began := time.Now()
	for _, test := range []struct {
		second     int
		overloaded []string
		stalled    bool
	}{
		{0, []string{"one"}, false},
		{4, []string{"two"}, false},
		{8, []string{"one"}, false},
		{10, nil, false},
		{12, []string{"one", "two"}, false},
		{17, []string{"one", "two"}, true},
		{18, []string{"two"}, false}, // it is written down already
	} {
		file, err := f.note(began.Add(time.Duration(test.second)*time.Second), test.overloaded)
		if err != nil || (file != "") != test.stalled {
			t.Errorf("after %d s: got %q, %v", test.second, file, err)
		}
	}
}
