package admin

import (
	"runtime"
	"testing"
	"time"
)

func TestQueuesThatTakeTurnsHaveNotStalled(t *testing.T) {
	f := &flight{dir: t.TempDir()}
	err := f.start()
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); err = f.start() {
		runtime.Gosched() // a handler whose runtime has just ended is about to stop its own
	}
	if err != nil {
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
