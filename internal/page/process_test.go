//go:build unix

package page_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/watt/internal/page"
)

const (
	patience = 10 * time.Second
	roleKey  = "WATT_PAGE_TEST_ROLE"
)

// roles are what this program does where a test runs it as a child, with the page as descriptor 3.
var roles = map[string]func(f *os.File){
	"count":  counting,
	"shrink": shrink,
	"ruin":   ruin,
}

func TestMain(m *testing.M) {
	if role := roles[os.Getenv(roleKey)]; role != nil {
		role(os.NewFile(3, "page"))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// counting beats in slot 1 until it is killed.
func counting(f *os.File) {
	p, err := page.Open(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	s := p.Slot(1)
	s.Beat.Store(int64(os.Getpid()))
	fmt.Println("ready")
	for {
		s.Room.Add(1)
	}
}

// shrink tries all ways to change the size, and says which worked.
func shrink(f *os.File) {
	if f.Truncate(0) == nil {
		fmt.Println("shrunk")
	}
	if f.Truncate(1<<20) == nil {
		fmt.Println("grown")
	}
	if _, err := f.WriteAt([]byte("more"), 1<<20); err == nil {
		fmt.Println("written beyond the end")
	}
	if own, err := os.OpenFile("/dev/fd/3", os.O_RDWR|os.O_TRUNC, 0); err == nil {
		fmt.Println("opened anew and shrunk")
		own.Close()
	}
	fmt.Println("done")
}

// ruin overwrites everything it can.
func ruin(f *os.File) {
	p, err := page.Open(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	all := make([]byte, int64(1+p.Len())*page.SlotSize)
	for i := range all {
		all[i] = 0xff
	}
	_, err = f.WriteAt(all, 0)
	fmt.Println("done", err)
}

// child runs a role in another process, which is killed when the test ends, and returns its output.
func child(t *testing.T, role string, f *os.File) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), roleKey+"="+role)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, bufio.NewScanner(stdout)
}

// duplicate returns a second descriptor of a file.
func duplicate(t *testing.T, f *os.File) *os.File {
	t.Helper()
	conn, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	outer := conn.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if outer != nil || err != nil {
		t.Fatal(outer, err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// soon waits until ok.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !ok(); <-tick.C {
		if time.Since(began) > patience {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestASlotOutlivesTheChildThatIsKilled(t *testing.T) {
	p := create(t, 2)
	s := p.Slot(1)
	var last int64
	for range 3 { // one child after the other, in the same slot
		s.Reset()
		cmd, output := child(t, "count", p.File())
		if !output.Scan() || output.Text() != "ready" {
			t.Fatalf("got %q from the child, want that it is ready", output.Text())
		}
		if got, want := s.Beat.Load(), int64(cmd.Process.Pid); got != want {
			t.Errorf("got process %d, want %d", got, want)
		}
		soon(t, "the child's beat", func() bool { return s.Room.Load() > 1000 })
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		last = s.Room.Load()
		if last <= 1000 {
			t.Errorf("got %d beats after the end, want those counted before", last)
		}
	}
	if got := p.Slot(0).Room.Load(); got != 0 {
		t.Errorf("got %d beats in a slot that nobody used, want 0", got)
	}
}

func TestAChildThatWritesNonsenseHarmsNobodyElse(t *testing.T) {
	p := create(t, 2)
	cmd, output := child(t, "ruin", p.File())
	if !output.Scan() || output.Text() != "done <nil>" {
		t.Fatalf("got %q from the child, want that all was written", output.Text())
	}
	cmd.Wait()
	if got := p.Len(); got != 2 {
		t.Errorf("got %d slots, want 2 as before", got)
	}
	if got := page.Within(&p.Slot(1).Busy, 8); got != 0 {
		t.Errorf("got %d busy workers, want 0 instead of less", got)
	}
	_, output = child(t, "count", p.File())
	if !output.Scan() || !strings.Contains(output.Text(), "not a page") {
		t.Errorf("got %q from the next child, want that this is no page", output.Text())
	}
}
