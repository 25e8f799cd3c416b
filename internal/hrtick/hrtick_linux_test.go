package hrtick_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
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
	for range 20 { // whichever thread it begins on
		for range 2 {
			ticks.Begin()
			ticks.Begin() // no more of them
			on := make(map[string]bool)
			for _, thread := range threads(t) {
				on[field(t, thread, "Cpus_allowed_list:")] = true
				before := wakeups(t, thread)
				soon(t, func() bool { return wakeups(t, thread) > before+3 }, "a thread does not wake up")
			}
			if n := len(threads(t)); n != all.Count() || len(on) != n {
				t.Errorf("%d threads are on %v, want one on each of %d processors", n, on, all.Count())
			}
			ticks.End()
			ticks.End()
			soon(t, func() bool {
				before := sum(t)
				<-time.After(10 * time.Millisecond)
				return sum(t) == before
			}, "a thread wakes up")
		}
		ticks.Close()
		ticks.Close()
		soon(t, func() bool { return len(threads(t)) == 0 }, "there are still threads")
	}
}

// TestTicksGoWhereTheProcessMayRun has somebody take processors from the process and give them back, as the manager of a
// container does.
func TestTicksGoWhereTheProcessMayRun(t *testing.T) {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	defer confine(t, &all)
	var ticks hrtick.Ticks
	defer ticks.Close()
	for _, may := range []*unix.CPUSet{&one, &all, &one} {
		confine(t, may)
		ticks.Begin()
		soon(t, func() bool { return len(threads(t)) == may.Count() }, "the threads are not as many as the processors")
		ticks.End()
	}
}

// confine sets which processors all threads may run on, also those that are made meanwhile.
func confine(t *testing.T, to *unix.CPUSet) {
	t.Helper()
	for changed := true; changed; {
		changed = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			id, _ := strconv.Atoi(task.Name())
			var now unix.CPUSet
			if unix.SchedGetaffinity(id, &now) != nil || now == *to { // it has ended, or need not be told
				continue
			}
			if err := unix.SchedSetaffinity(id, to); err != nil && !errors.Is(err, unix.ESRCH) {
				t.Fatal(err)
			}
			changed = true
		}
	}
}

func soon(t *testing.T, is func() bool, otherwise string) {
	t.Helper()
	for by := time.Now().Add(10 * time.Second); !is(); {
		if time.Now().After(by) {
			t.Fatal(otherwise)
		}
	}
}

// sum returns how often all threads have slept.
func sum(t *testing.T) (n int) {
	t.Helper()
	for _, thread := range threads(t) {
		n += wakeups(t, thread)
	}
	return n
}

// wakeups returns how often the system says that a thread has slept.
func wakeups(t *testing.T, thread string) int {
	t.Helper()
	n, err := strconv.Atoi(field(t, thread, "voluntary_ctxt_switches:"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A thread that ends while there is a CPU profile would leave the timer of that behind, for as long as the process lives.
func TestTicksLeaveNoTimersBehindDuringAProfile(t *testing.T) {
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Fatal(err)
	}
	defer pprof.StopCPUProfile()
	var ticks hrtick.Ticks
	for range 200 {
		ticks.Begin()
		ticks.End()
	}
	ticks.Close()
	timers, err := os.ReadFile("/proc/self/timers")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(timers, []byte("\nsignal:")); n > 100*runtime.NumCPU() { // each thread that has run has one
		t.Errorf("there are %d timers", n)
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
