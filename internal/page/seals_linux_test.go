package page_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/watt/internal/page"
)

func TestNobodyCanChangeTheSizeOfAPage(t *testing.T) {
	p := create(t, 2)
	_, output := child(t, "shrink", p.File())
	for output.Scan() && output.Text() != "done" {
		t.Errorf("the child has %s the page", output.Text())
	}
	if output.Text() != "done" {
		t.Errorf("got %q from the child, want that it is done", output.Text())
	}
	p.Slot(1).Room.Store(1) // is there still
}

func TestTheMemoryOfAClosedPageIsThereForWhoeverHasThePage(t *testing.T) {
	mapped := func() int {
		all, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(all, []byte("watt page"))
	}
	soon := func(what string, ok func() bool) {
		t.Helper()
		for began := time.Now(); !ok(); runtime.GC() {
			if time.Since(began) > 10*time.Second {
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	soon("the memory of earlier tests to be given back", func() bool { return mapped() == 0 })
	p := create(t, 1)
	slot := p.Slot(0)
	p.Close()
	for range 3 {
		runtime.GC()
		slot.Beat.Add(1)
	}
	if slot := p.Slot(0); slot.Beat.Load() != 3 {
		t.Errorf("got beat %d, want 3", slot.Beat.Load())
	}
	for range 100 {
		p, err := page.Create(1, 0)
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
	soon("the memory of closed pages to be given back", func() bool { return mapped() == 1 })
	runtime.KeepAlive(p)
}

func TestAPageCanBeOpenedThroughTheProcessThatHasIt(t *testing.T) {
	p := create(t, 2)
	cmd, output := child(t, "count", p.File())
	if !output.Scan() || output.Text() != "ready" {
		t.Fatalf("got %q from the child, want that it is ready", output.Text())
	}
	f, err := os.OpenFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "fd/3"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	again, err := page.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got, want := again.Slot(1).Beat.Load(), int64(cmd.Process.Pid); got != want {
		t.Errorf("got process %d, want %d", got, want)
	}
}

func TestOpenRefusesAPageThatCouldShrink(t *testing.T) {
	content := make([]byte, 3*page.SlotSize)
	if _, err := create(t, 2).File().ReadAt(content, 0); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if p, err := page.Open(f); err == nil {
		p.Close()
		t.Error("an ordinary file with a page's content was opened")
	}
}

func TestOpenRefusesASealedFileThatClaimsToBeLarger(t *testing.T) {
	for _, test := range []struct {
		slots, calls uint64
		ok           bool
	}{{0, 3, false}, {1, 3, true}, {2, 3, false}, {1 << 60, 3, false}, {1, 4, false}, {1, 1 << 60, false}} {
		fd, err := unix.MemfdCreate("page", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "page")
		if _, err := f.Write(content(t, test.slots, test.calls)); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
			t.Fatal(err)
		}
		p, err := page.Open(f)
		if (err == nil) != test.ok {
			t.Errorf("got error %v for a page of one slot and 3 kinds of calls that claims to have %d and %d", err, test.slots, test.calls)
		}
		if err == nil {
			p.Slot(p.Len() - 1).Room.Store(1)
			p.Close()
		}
		f.Close()
	}
}

func TestOpenRefusesAPageThatMayOnlyBeRead(t *testing.T) {
	conn := filepath.Join("/proc/self/fd", strconv.Itoa(descriptor(t, create(t, 1).File())))
	f, err := os.Open(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if p, err := page.Open(f); err == nil {
		p.Close()
		t.Error("a page that cannot be written was opened")
	}
}

// descriptor returns the number of an open file.
func descriptor(t *testing.T, f *os.File) int {
	t.Helper()
	conn, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if err := conn.Control(func(fd uintptr) { number = int(fd) }); err != nil {
		t.Fatal(err)
	}
	return number
}
