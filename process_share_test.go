//go:build linux

package watt_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/org/watt"
	"github.com/org/watt/internal/cgroup"
	"github.com/org/watt/watttest"
)

// farewell is the signal that the death of its parent sends this process. Only the first thread is told, which runs
// this.
var farewell = func() (signal int) {
	unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&signal)), 0, 0, 0)
	if os.Getenv(untoldVariable) != "" && os.Getenv("WATT_CHILD") != "" {
		unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0)
	}
	return signal
}()

// addShare adds what tells which share of the machine an instance has, and what starts a process of its own.
func addShare(mux *http.ServeMux) {
	mux.HandleFunc("/share", func(w http.ResponseWriter, _ *http.Request) {
		var data syscall.Rlimit
		syscall.Getrlimit(syscall.RLIMIT_DATA, &data)
		fmt.Fprint(w, runtime.GOMAXPROCS(0), " ", niceness(), " ", data.Cur, " ", farewell)
	})
	mux.HandleFunc("/reserved", func(w http.ResponseWriter, _ *http.Request) {
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		var asked int64 // in pages
		statm, err := os.ReadFile("/proc/self/statm")
		if err == nil {
			_, err = fmt.Sscan(string(statm), new(int), new(int), new(int), new(int), new(int), &asked)
		}
		fmt.Fprint(w, debug.SetMemoryLimit(-1), " ", asked*int64(os.Getpagesize())-int64(mem.Sys), " ", err)
	})
	mux.HandleFunc("/spawn", func(w http.ResponseWriter, _ *http.Request) {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			watt.WriteError(w, err)
			return
		}
		fmt.Fprint(w, os.Getpid(), " ", cmd.Process.Pid)
	})
}

func TestAnInstanceHasItsShareOfTheMachineAndItsParentsDeath(t *testing.T) {
	t.Parallel()
	data := int64(400 << 20)
	if racing {
		data = -1
	}
	for _, instances := range []int{1, 2} {
		rt := ward()
		rt.Update("ward", func(a *watt.App) { a.Instances, a.Nice = instances, 7 })
		top := watttest.Start(t, rt)
		processors := max(2, int(math.Ceil(cgroup.CPUs()/float64(instances)))+1)
		want := fmt.Sprint(processors, " ", max(7, niceness()), " ", uint64(data), " ", int(syscall.SIGKILL))
		if _, got := top.Get("http://ward.watt.local/share"); got != want {
			t.Errorf("of %d instances: got %q, want %q", instances, got, want)
		}
	}
}

func TestGarbageDoesNotReachTheLimitOfMemory(t *testing.T) {
	t.Parallel()
	top := watttest.Start(t, ward())
	_, got := top.Get("http://ward.watt.local/reserved")
	var collected, reserved int64
	if _, err := fmt.Sscanf(got, "%d %d <nil>", &collected, &reserved); err != nil {
		t.Fatalf("got %q: %v", got, err)
	}
	most := int64(350 << 20) // of 400 MiB
	if racing {
		reserved, most = 0, 400<<20 // and nothing is limited but what the collector knows
	}
	if all := collected + reserved; all > most || collected < 100<<20 {
		t.Errorf("the collector allows %d bytes, and %d are reserved beside: want %d together at most", collected, reserved, most)
	}
}

func TestWhatAnInstanceHasStartedEndsWithIt(t *testing.T) {
	t.Parallel()
	rt := ward()
	top := watttest.Start(t, rt)
	_, body := top.Get("http://ward.watt.local/spawn")
	var pid, spawned int
	if n, _ := fmt.Sscan(body, &pid, &spawned); n != 2 {
		t.Fatalf("got %q", body)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	soon(t, "the end of what it has started", func() bool {
		return !slices.ContainsFunc(processes(t), func(p process) bool { return p.pid == spawned && p.state != "Z" })
	})
	soon(t, "the runtime to miss it", func() bool { // else its shutdown tells of the kill
		return !slices.ContainsFunc(statusOf(t, rt, "ward").PerInstance, func(in watt.InstanceStatus) bool { return in.PID == pid })
	})
}

// noMore is a limit of descriptors that leaves none, whatever is closed meanwhile: the first three are taken.
const noMore = 3

// spendDescriptors leaves this process none, until restore is called.
func spendDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	return limitDescriptors(t, noMore)
}

// limitDescriptors leaves this process those below most, until restore is called.
func limitDescriptors(t *testing.T, most uint64) (restore func()) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = most
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	return func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) }
}

func TestConnectionsOfASilentInstanceAreServedOnceThereAreDescriptorsAgain(t *testing.T) {
	rt := pair()
	top := watttest.Start(t, rt)
	pid := statusOf(t, rt, "pair").PerInstance[1].PID
	stop(t, pid)
	defer syscall.Kill(pid, syscall.SIGCONT)
	conns := make([]net.Conn, 20) // of which some get to that one
	for i := range conns {
		conns[i] = dialTCP(t, strings.TrimPrefix(top.URL("pair"), "http://"))
	}
	restore := spendDescriptors(t)
	defer restore()
	soon(t, "the silence to be noticed", func() bool { return statusOf(t, rt, "pair").PerInstance[1].State == "silent" })
	noticed := time.Now()
	soon(t, "Accept to have failed", func() bool { return time.Since(noticed) > 200*time.Millisecond })
	restore()
	for _, conn := range conns { // no sooner: until it is noticed, requests are handed over to that one
		fmt.Fprint(conn, "GET /who HTTP/1.1\r\nHost: pair\r\n\r\n")
		if got := answered(t, conn); got[1] != "0" {
			t.Fatalf("got %q, want an answer of the other instance", got)
		}
	}
}

func TestACallForWhichThereAreNoDescriptorsHasNotStarted(t *testing.T) {
	rt := alone()
	watttest.Start(t, rt)
	defer spendDescriptors(t)()
	err := within(t, going(t.Context(), rt, "ward.watt.local/well"), "the end of the call").err
	var call *watt.CallError
	if !errors.Is(err, watt.ErrOverloaded) || !errors.As(err, &call) || call.Started {
		t.Errorf("got %v, want ErrOverloaded of a call that has not started", err)
	}
}

// leaveDescriptors leaves this process n descriptors until the function that it returns is called.
func leaveDescriptors(t *testing.T, n int) func() {
	t.Helper()
	var free []*os.File
	for range n + 1 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		free = append(free, f)
	}
	last := free[n].Fd()
	for _, f := range free {
		f.Close()
	}
	return limitDescriptors(t, uint64(last))
}

func TestACallForWhichThereAreTooFewDescriptorsHasNotStarted(t *testing.T) {
	rt := alone()
	watttest.Start(t, rt)
	failed := 0
	for n := range 5 {
		restore := leaveDescriptors(t, n)
		conn, err := rt.Env().Dial(t.Context(), "ward")
		restore()
		if err == nil {
			conn.Close()
			continue
		}
		failed++
		if call, is := errors.AsType[*watt.CallError](err); !is || call.Started || !errors.Is(err, watt.ErrOverloaded) {
			t.Errorf("with %d: got %v, want ErrOverloaded of a call that has not started", n, err)
		}
	}
	if failed == 0 {
		t.Error("none has failed: this test is blind")
	}
}

func TestAnInstanceForWhichThereAreNoDescriptorsIsTakenBack(t *testing.T) {
	rt := pair()
	watttest.Start(t, rt)
	more := func() error { return rt.Update("pair", func(a *watt.App) { a.Instances = 3 }) }
	restore := spendDescriptors(t)
	err := more()
	restore()
	if !errors.Is(err, syscall.EMFILE) || errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want that there are no descriptors, and nothing else", err)
	}
	if err := more(); err != nil {
		t.Error(err)
	}
}

func TestAnInstanceThatIsKilledWhileItIsRestartedIsNotOneThatDidNotEnd(t *testing.T) {
	t.Parallel()
	rt := ward()
	watttest.Start(t, rt)
	for i := range 20 {
		pid := statusOf(t, rt, "ward").PerInstance[i%3].PID
		syscall.Kill(pid, syscall.SIGKILL)
		if err := rt.Restart("ward", i%3); err != nil {
			t.Error(err)
		}
		soon(t, "the next process", func() bool {
			in := statusOf(t, rt, "ward").PerInstance[i%3]
			return in.State == "ready" && in.PID != pid
		})
	}
	if s := statusOf(t, rt, "ward"); s.Abandoned != 0 {
		t.Errorf("got Abandoned %d: %q", s.Abandoned, s.PerInstance[0].LastError)
	}
}

func TestAnInstanceIsRemovedInTimeAlsoIfNobodyTakesItsConnections(t *testing.T) {
	t.Parallel()
	rt := hasty()
	rt.Update("ward", func(a *watt.App) { a.Instances, a.MaxRestarts = 2, 1 })
	top := watttest.Start(t, rt)
	soon(t, "the first to be given up", func() bool {
		in := statusOf(t, rt, "ward").PerInstance[0]
		if in.State == "ready" && in.PID > 1 {
			syscall.Kill(in.PID, syscall.SIGKILL)
		}
		return in.State == "failed"
	})
	updated := make(chan error, 1)
	go func() { updated <- rt.Update("ward", func(a *watt.App) { a.Instances = 1 }) }()
	address := strings.TrimPrefix(top.URL("ward"), "http://")
	soon(t, "the update to end while clients come", func() bool {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			t.Cleanup(func() { conn.Close() })
			io.WriteString(conn, "GET /well HTTP/1.1\r\nHost: ward\r\n\r\n")
		}
		return len(updated) == 1
	})
	t.Log(<-updated)
}

// deferring has the kernel end handshakes at the listeners of an address only when data has come.
func deferring(t *testing.T, address string) {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, entry := range open {
		fd, _ := strconv.Atoi(entry.Name())
		if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens == 0 {
			continue
		}
		if at, _ := unix.Getsockname(fd); strconv.Itoa(portOf(at)) != address[strings.LastIndexByte(address, ':')+1:] {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60); err != nil {
			t.Fatal(err)
		}
		found++
	}
	if found == 0 {
		t.Fatalf("nobody listens at %s", address)
	}
}

func portOf(at unix.Sockaddr) int {
	if inet, ok := at.(*unix.SockaddrInet4); ok {
		return inet.Port
	}
	return 0
}

func TestAClientWhoseHandshakeDoesNotEndHoldsUpTheRemovalOfSeveralInstancesOnce(t *testing.T) {
	t.Parallel()
	rt := ward()
	rt.Update("ward", func(a *watt.App) { a.Instances, a.DrainTimeout = 4, 6*time.Second })
	top := watttest.Start(t, rt)
	address := strings.TrimPrefix(top.URL("ward"), "http://")
	deferring(t, address)
	dialTCP(t, address)
	if err := rt.Update("ward", func(a *watt.App) { a.Instances = 1 }); err != nil {
		t.Error(err)
	}
}
