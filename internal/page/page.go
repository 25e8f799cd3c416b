// Package page shares a little memory between a process and its children: a page of numbers that each
// may read and write at any time, without asking and without waiting.
//
// One process makes a page and hands its file to others, which open it. The page has a [Slot] for each
// child, and room to count its calls. Whoever dies leaves its slot as it was; the memory lives until the last process
// has given it back.
//
// On Linux nobody who got the file can change the page's size, so nobody can crash the others that way.
// On other Unix systems that depends on the good will of all. Elsewhere there are no pages.
package page

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"github.com/org/watt/internal/count"
)

// A page begins with magic, which is "watt" and the version of the layout of pages and slots, and the
// numbers of slots and of what calls are counted in. The first slot starts where a slot before it would end,
// and the calls where the last slot does.
const magic = 0x77617474_00000004

// maxSlots is more than any machine runs processes for one program, and maxCalls more than they call each other.
const (
	maxSlots = 1 << 16
	maxCalls = 1 << 20
)

var errOther = errors.New("not a page of this program, or one of another version")

// Page is memory that several processes share.
type Page struct {
	file  *os.File
	slots []Slot
	calls []count.Calls
	close sync.Once
}

// Create makes a page of slots, and of blocks to count calls in, which are all zero. Its error wraps
// [errors.ErrUnsupported] where the system has no such thing.
func Create(slots, calls int) (*Page, error) {
	if slots < 1 || slots > maxSlots {
		return nil, fmt.Errorf("page: %d slots, where 1 to %d can be had", slots, maxSlots)
	}
	if calls < 0 || calls > maxCalls {
		return nil, fmt.Errorf("page: %d kinds of calls, where up to %d can be counted", calls, maxCalls)
	}
	head := binary.NativeEndian.AppendUint64(nil, magic)
	head = binary.NativeEndian.AppendUint64(head, uint64(slots))
	head = binary.NativeEndian.AppendUint64(head, uint64(calls))
	file, err := create(head, size(slots, calls))
	if err != nil {
		return nil, fmt.Errorf("page: creating: %w", err)
	}
	p, err := load(file, slots, calls)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("page: creating: %w", err), file.Close())
	}
	return p, nil
}

// Open maps the page that another process made and handed over as f. If Open returns no error, f belongs
// to the page, and else to the caller. It refuses what is not a page, was made by another version of this
// package, is too small, or, on Linux, could shrink.
func Open(f *os.File) (*Page, error) {
	slots, calls, err := inspect(f)
	if err != nil {
		return nil, fmt.Errorf("page: opening: %w", err)
	}
	p, err := load(f, slots, calls)
	if err != nil {
		return nil, fmt.Errorf("page: opening: %w", err)
	}
	return p, nil
}

// inspect returns what the page in f has. It reads the file, since memory that is not there would end the
// process.
func inspect(f *os.File) (slots, calls int, err error) {
	head := make([]byte, 24)
	if _, err := f.ReadAt(head, 0); err != nil {
		return 0, 0, fmt.Errorf("%w: %w", errOther, err)
	}
	if binary.NativeEndian.Uint64(head) != magic {
		return 0, 0, errOther
	}
	if err := checkSeals(f); err != nil {
		return 0, 0, err
	}
	n, m := binary.NativeEndian.Uint64(head[8:]), binary.NativeEndian.Uint64(head[16:])
	if n < 1 || n > maxSlots || m > maxCalls {
		return 0, 0, fmt.Errorf("%w: %d slots and %d kinds of calls", errOther, n, m)
	}
	slots, calls = int(n), int(m)
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	if want := size(slots, calls); info.Size() < want {
		return 0, 0, fmt.Errorf("%w: %d bytes, where %d slots take %d", errOther, info.Size(), slots, want)
	}
	return slots, calls, nil
}

// size returns how many bytes a page takes.
func size(slots, calls int) int64 {
	return int64(1+slots)*SlotSize + int64(calls)*int64(unsafe.Sizeof(count.Calls{}))
}

func load(file *os.File, slots, calls int) (*Page, error) {
	memory, err := mapFile(file, int(size(slots, calls)))
	if err != nil {
		return nil, err
	}
	p := &Page{file: file}
	runtime.AddCleanup(p, func(memory []byte) { _ = unmap(memory) }, memory)
	p.slots = unsafe.Slice((*Slot)(unsafe.Pointer(&memory[SlotSize])), slots)
	if calls > 0 {
		p.calls = unsafe.Slice((*count.Calls)(unsafe.Pointer(&memory[(1+slots)*SlotSize])), calls)
	}
	return p, nil
}

// File returns the page's file, to be handed to another process. It belongs to the page.
func (p *Page) File() *os.File { return p.file }

// Len returns the number of slots, which is what it was when this process made or opened the page:
// others cannot change it.
func (p *Page) Len() int { return len(p.slots) }

// Slot returns one of the Len slots, counted from 0; other numbers panic. The slot is there as long as something
// refers to the page.
func (p *Page) Slot(i int) *Slot { return &p.slots[i] }

// Slots returns n of them, from first on; those beyond Len panic. They are there as long as something refers to the page.
func (p *Page) Slots(first, n int) []Slot { return p.slots[first : first+n : first+n] }

// Calls returns one of the blocks for calls, counted from 0; numbers that Create was not asked for panic. It is
// there as long as something refers to the page.
func (p *Page) Calls(i int) *count.Calls { return &p.calls[i] }

// Close closes the file; the second time it does nothing and returns nil. The memory is given back once nothing refers
// to the page any more: whoever keeps one of its slots must keep the page too.
func (p *Page) Close() error {
	var err error
	p.close.Do(func() { err = p.file.Close() })
	return err
}
