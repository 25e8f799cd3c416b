//go:build unix

package page_test

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/org/watt/internal/count"
	"github.com/org/watt/internal/page"
)

// create makes a page that is closed when the test ends.
func create(t *testing.T, slots int) *page.Page {
	t.Helper()
	p, err := page.Create(slots, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// twin opens a page a second time, as another process would.
func twin(t *testing.T, p *page.Page) *page.Page {
	t.Helper()
	second, err := page.Open(duplicate(t, p.File()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.Close() })
	return second
}

// content returns what is in the file of a page with one slot and 3 kinds of calls, if it had so many.
func content(t *testing.T, slots, calls uint64) []byte {
	t.Helper()
	text := make([]byte, 2*page.SlotSize+3*unsafe.Sizeof(count.Calls{}))
	if _, err := create(t, 1).File().ReadAt(text, 0); err != nil {
		t.Fatal(err)
	}
	binary.NativeEndian.PutUint64(text[8:], slots)
	binary.NativeEndian.PutUint64(text[16:], calls)
	return text
}

// fields returns the numbers of a slot in the order in which they stand there.
func fields(t *testing.T, s *page.Slot) []*atomic.Int64 {
	t.Helper()
	var all []*atomic.Int64
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		if !v.Type().Field(i).IsExported() {
			continue
		}
		if field, ok := reflect.TypeAssert[*atomic.Int64](v.Field(i).Addr()); ok {
			all = append(all, field)
		}
	}
	if len(all) != 13 {
		t.Fatalf("a slot has %d fields, want 13", len(all))
	}
	return all
}

func TestWhatOneWritesTheOtherReads(t *testing.T) {
	const slots = 100 // more than one page of memory
	here := create(t, slots)
	there := twin(t, here)
	if got := there.Len(); got != slots {
		t.Fatalf("got %d slots, want %d", got, slots)
	}
	for i := range slots {
		for k, field := range fields(t, here.Slot(i)) {
			if got := field.Load(); got != 0 {
				t.Fatalf("field %d of slot %d begins as %d, want 0", k, i, got)
			}
			field.Store(int64(1000*i + k))
		}
	}
	part := there.Slots(3, slots-3)
	for i := range part {
		if got, want := &part[i], there.Slot(3+i); got != want {
			t.Fatalf("slot %d of those from 3 on is %p, want %p", i, got, want)
		}
	}
	for i := range slots {
		for k, field := range fields(t, there.Slot(i)) {
			if got, want := field.Load(), int64(1000*i+k); got != want {
				t.Fatalf("field %d of slot %d is %d, want %d", k, i, got, want)
			}
		}
	}
}

func TestWhatOneCountsTheOtherSees(t *testing.T) {
	here := create(t, 2)
	there := twin(t, here)
	for i := range 3 {
		here.Calls(i).Ended(time.Second, count.Kind(1+i))
	}
	here.Slot(1).Served.Answered("GET", 200)
	here.Slot(1).Admission.Refused.Store(5)
	if got := there.Slot(1).Admission.Refused.Load(); got != 5 {
		t.Errorf("got %d refused, want 5", got)
	}
	if got := there.Slot(1).Served.Answers()["GET"]["2xx"]; got != 1 {
		t.Errorf("got %d answers, want 1", got)
	}
	for i := range 3 {
		if got := there.Calls(i).Errors(); len(got) != 1 || got[count.Kind(1+i).String()] != 1 {
			t.Errorf("calls %d: got %v", i, got)
		}
	}
	for _, calls := range []int{-1, 1<<20 + 1} {
		if p, err := page.Create(1, calls); err == nil {
			p.Close()
			t.Errorf("a page for %d kinds of calls was made", calls)
		}
	}
}

func TestResetEmptiesOneSlotOnly(t *testing.T) {
	p := create(t, 3)
	for i := range 3 {
		p.Slot(i).Served.Panics.Store(7)
		p.Slot(i).Admission.Refused.Store(7)
		for _, field := range fields(t, p.Slot(i)) {
			field.Store(7)
		}
	}
	p.Slot(1).Reset()
	for i, want := range []int64{7, 0, 7} {
		if got := p.Slot(i).Served.Panics.Load(); got != want {
			t.Errorf("slot %d has %d panics, want %d", i, got, want)
		}
		if got := p.Slot(i).Admission.Refused.Load(); got != want {
			t.Errorf("slot %d has refused %d, want %d", i, got, want)
		}
		for k, field := range fields(t, p.Slot(i)) {
			if got := field.Load(); got != want {
				t.Errorf("field %d of slot %d is %d, want %d", k, i, got, want)
			}
		}
	}
}

func TestADoubtEndsWhenTheChildShowsItself(t *testing.T) {
	s := create(t, 1).Slot(0)
	for range 2 {
		if s.Doubted() {
			t.Error("doubted for no reason")
		}
		s.Doubt()
		if !s.Doubted() {
			t.Error("not doubted")
		}
		s.Beat.Add(1)
	}
	s.Doubt()
	s.Reset()
	if s.Doubted() {
		t.Error("the next child is doubted for what became of the last")
	}
}

func TestSlotsShareNoCacheLine(t *testing.T) {
	if got := unsafe.Sizeof(page.Slot{}); got != page.SlotSize {
		t.Errorf("a slot has %d bytes, want %d", got, page.SlotSize)
	}
	p := create(t, 2)
	for i := range 2 {
		if at := uintptr(unsafe.Pointer(p.Slot(i))); at%page.SlotSize != 0 {
			t.Errorf("slot %d is at %#x, want a multiple of %d", i, at, page.SlotSize)
		}
	}
}

func TestWithinBelievesNoImpossibleNumber(t *testing.T) {
	var field atomic.Int64
	for _, test := range []struct{ value, want int64 }{
		{-1 << 63, 0},
		{-1, 0},
		{0, 0},
		{5, 5},
		{8, 8},
		{9, 8},
		{1<<63 - 1, 8},
	} {
		field.Store(test.value)
		if got := page.Within(&field, 8); got != test.want {
			t.Errorf("got %d for %d, want %d", got, test.value, test.want)
		}
	}
}

func TestAPageHasAReasonableNumberOfSlots(t *testing.T) {
	for _, slots := range []int{-1, 0, 1<<16 + 1, 1 << 62} {
		if p, err := page.Create(slots, 3); err == nil {
			p.Close()
			t.Errorf("a page of %d slots was made", slots)
		}
	}
	p := create(t, 1<<16)
	p.Slot(p.Len() - 1).Room.Store(1)
}

func TestOpenRefusesWhatIsNoPage(t *testing.T) {
	file := func(content []byte) *os.File {
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	pipe, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	version := content(t, 1, 3)
	version[0] ^= 0xff
	version[7] ^= 0xff
	for name, f := range map[string]*os.File{
		"an empty file":       file(nil),
		"a text":              file([]byte(strings.Repeat("watt ", 1000))),
		"a pipe":              pipe,
		"another version":     file(version),
		"no slots":            file(content(t, 0, 3)),
		"slots without end":   file(content(t, 1<<60, 3)),
		"fewer bytes":         file(content(t, 2, 3)),
		"nothing but a start": file(content(t, 1, 3)[:16]),
	} {
		p, err := page.Open(f)
		if err == nil {
			t.Errorf("%s was opened as a page", name)
			p.Close()
			continue
		}
		if !strings.HasPrefix(err.Error(), "page: opening: ") {
			t.Errorf("got error %q for %s, want one that says what was attempted", err, name)
		}
		if err := f.Close(); err != nil {
			t.Errorf("closing %s after it was refused: %v", name, err)
		}
	}
}

func TestAPageGoesOnAfterAnotherClosedIt(t *testing.T) {
	here := create(t, 1)
	there := twin(t, here)
	there.Slot(0).Room.Store(42)
	for range 2 {
		if err := there.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}
	if got := here.Slot(0).Room.Load(); got != 42 {
		t.Errorf("got beat %d, want 42", got)
	}
	if _, err := there.File().Stat(); err == nil {
		t.Error("the file of a closed page is still open")
	}
}

func TestNothingIsLeftOfPages(t *testing.T) {
	descriptors := func() int {
		all, err := os.ReadDir("/dev/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := descriptors()
	for range 100 {
		here, err := page.Create(4, 3)
		if err != nil {
			t.Fatal(err)
		}
		there, err := page.Open(duplicate(t, here.File()))
		if err != nil {
			t.Fatal(err)
		}
		here.Close()
		there.Close()
		if p, err := page.Open(there.File()); err == nil {
			p.Close()
			t.Fatal("a closed file was opened")
		}
	}
	if got := descriptors(); got > before {
		t.Errorf("got %d descriptors after 100 pages, want %d as before", got, before)
	}
}

func TestManyMayCountAtOnce(t *testing.T) {
	here := create(t, 2)
	there := twin(t, here)
	done := make(chan struct{})
	for _, p := range []*page.Page{here, there} {
		go func() {
			for range 10_000 {
				p.Slot(1).Admission.Admitted.Add(1)
			}
			done <- struct{}{}
		}()
	}
	<-done
	<-done
	if got := here.Slot(1).Admission.Admitted.Load(); got != 20_000 {
		t.Errorf("got %d, want 20000", got)
	}
	if _, err := io.Copy(io.Discard, io.NewSectionReader(here.File(), 0, 1)); err != nil {
		t.Errorf("the file cannot be read any more: %v", err)
	}
}
