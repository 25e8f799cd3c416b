package hrtick_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/watt/internal/hrtick"
)

func TestThereIsAThreadOnEachProcessorThatWakesUpAllTheTime(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	var ticks hrtick.Ticks
	for range 20 { // also anew, and whichever thread it begins on
		ticks.Begin()
		var found []string
		for by := time.Now().Add(10 * time.Second); len(found) < all.Count(); found = threads(t) {
			if time.Now().After(by) {
				t.Fatalf("got %d threads, want %d", len(found), all.Count())
			}
		}
		on := make(map[string]bool)
		for _, thread := range found {
			on[field(t, thread, "Cpus_allowed_list:")] = true
			before := field(t, thread, "voluntary_ctxt_switches:")
			for by := time.Now().Add(10 * time.Second); field(t, thread, "voluntary_ctxt_switches:") == before; {
				if time.Now().After(by) {
					t.Fatal("a thread does not wake up")
				}
			}
		}
		if len(on) != all.Count() {
			t.Errorf("they are on %v, want each of %d processors", on, all.Count())
		}
		ticks.Begin() // no more of them, which nothing would end
		ticks.End()
		ticks.End()
		for by := time.Now().Add(10 * time.Second); len(threads(t)) > 0; {
			if time.Now().After(by) {
				t.Fatal("there are still threads")
			}
		}
	}
}

// threads returns the directories in /proc of those that there are.
func threads(t *testing.T) (found []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil || len(names) == 0 {
		t.Fatal("this system does not show threads", err)
	}
	for _, name := range names {
		if got, err := os.ReadFile(name); err == nil && string(bytes.TrimSpace(got)) == hrtick.Name {
			found = append(found, filepath.Dir(name))
		}
	}
	return found
}

// field returns what the system says of a thread.
func field(t *testing.T, thread, name string) string {
	t.Helper()
	status, err := os.ReadFile(filepath.Join(thread, "status"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(status), "\n"+name)
	if !found {
		t.Fatalf("no %s in %s", name, status)
	}
	value, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(value)
}
