//go:build linux

package watt_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/internal/hrtick"
)

// mainCrowded prints how many threads have the kernel look more often at who should run: while there is nothing to do, while
// all processors belong to children, while an app of this process has a request beside that, and after it; then while it has
// one beside children that need not give way, and beside those that do; and after Shutdown.
func mainCrowded() error {
	holds := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	rt := watt.New(
		watt.App{Name: "one", Profile: watt.CPUBound, Isolation: watt.OwnProcess, Instances: 1, Workers: runtime.NumCPU(), Handler: holds},
		watt.App{Name: "equal", Isolation: watt.OwnProcess, Workers: runtime.NumCPU(), Handler: holds},
		watt.App{Name: "light", Handler: holds},
	)
	if err := rt.Start(context.Background()); err != nil {
		return err
	}
	show := func(want func(int) bool) {
		n := ticking()
		for by := time.Now().Add(10 * time.Second); !want(n) && time.Now().Before(by); n = ticking() {
			<-time.After(time.Millisecond)
		}
		fmt.Println(n)
	}
	none := func(n int) bool { return n == 0 }
	all := func(n int) bool { return n == runtime.NumCPU() }

	ctx, cancel := context.WithCancel(context.Background())
	var calls sync.WaitGroup
	hold := func(app string, n int) {
		for range n {
			calls.Go(func() {
				if resp, err := rt.Env().Get(ctx, "http://"+app+".watt.local/"); err == nil {
					resp.Body.Close()
				}
			})
		}
		for busy, by := 0, time.Now().Add(10*time.Second); busy < n && time.Now().Before(by); {
			<-time.After(time.Millisecond)
			for _, s := range rt.Status() {
				if s.Name == app {
					busy = s.Busy
				}
			}
		}
	}
	show(none)
	someLooks := func() { <-time.After(200 * time.Millisecond) }
	hold("one", runtime.NumCPU())
	someLooks()
	show(none)
	hold("light", 1)
	show(all)
	cancel()
	calls.Wait()
	show(none)

	ctx, cancel = context.WithCancel(context.Background())
	hold("light", 1)
	hold("equal", runtime.NumCPU())
	someLooks()
	show(none)
	hold("one", runtime.NumCPU())
	show(all)
	cancel()
	err := rt.Shutdown(context.Background())
	show(none)
	return err
}

// ticking returns how many threads of this process wake up all the time so that the kernel looks.
func ticking() (n int) {
	before := wakeups()
	<-time.After(20 * time.Millisecond)
	for thread, count := range wakeups() {
		if count > before[thread]+1 {
			n++
		}
	}
	return n
}

// wakeups returns how often each of those threads has slept.
func wakeups() map[string]int {
	of := make(map[string]int)
	names, _ := filepath.Glob("/proc/self/task/*/comm")
	for _, name := range names {
		if got, err := os.ReadFile(name); err != nil || string(bytes.TrimSpace(got)) != hrtick.Name {
			continue
		}
		status, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "status"))
		_, after, _ := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
		value, _, _ := strings.Cut(after, "\n")
		of[name], _ = strconv.Atoi(strings.TrimSpace(value))
	}
	return of
}

func TestTheKernelLooksMoreOftenWhileChildrenHaveAllProcessors(t *testing.T) {
	t.Parallel()
	n := strconv.Itoa(runtime.NumCPU())
	if got, want := strings.Fields(mainOf(t, "crowded", os.Args[0])), []string{"0", "0", n, "0", "0", n, "0"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v threads, want %v", got, want)
	}
}
