package process_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestThePriorityOfAllThreadsIsLowered(t *testing.T) {
	t.Parallel()
	p := play(t, "hang")
	<-p.up
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, p.PID(), 19); err != nil { // the first thread alone
		t.Fatal(err)
	}
	if err := p.LowerPriority(19); err != nil {
		t.Fatal(err)
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID()))
	if len(threads) < 2 {
		t.Fatalf("got threads %v, %v, want several", threads, err)
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			t.Fatal(err)
		}
		if _, rest, _ := strings.Cut(string(stat), ") "); strings.Fields(rest)[16] != "19" {
			t.Errorf("%s: got %s, want a niceness of 19", thread, rest)
		}
	}
	if err := p.LowerPriority(10); err != nil { // which would raise it
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if _, rest, _ := strings.Cut(string(stat), ") "); err != nil || strings.Fields(rest)[16] != "19" {
		t.Errorf("got %s, %v, want a niceness of 19 still", rest, err)
	}
}
