//go:build unix

package control_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/org/watt/internal/control"
)

// pair returns both sides of a connection.
func pair(t *testing.T) (near, far *control.Conn) {
	t.Helper()
	near, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	if far, err = control.Open(theirs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// raw returns one side of a connection, and what its other side writes to.
func raw(t *testing.T) (*control.Conn, *net.UnixConn) {
	t.Helper()
	near, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := control.ConnOf(theirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); conn.Close() })
	return near, conn.(*net.UnixConn)
}

func send(t *testing.T, c *control.Conn, kind string, v any, files ...syscall.Conn) {
	t.Helper()
	m, err := control.New(kind, v)
	if err == nil {
		err = c.Send(context.Background(), m, files...)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestMessagesArriveInOrderWithTheirOwnDescriptors(t *testing.T) {
	near, far := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	long := strings.Repeat("x", control.MaxLength-100)
	go func() {
		defer w.Close()
		send(t, near, "plain", nil)
		send(t, near, "long", long)
		send(t, near, "writer", 1, w)
		send(t, near, "both", 2, r, w)
		send(t, near, "last", nil)
	}()
	for _, want := range []struct {
		kind, data string
		files      int
	}{{"plain", "", 0}, {"long", `"` + long + `"`, 0}, {"writer", "1", 1}, {"both", "2", 2}, {"last", "", 0}} {
		m, files, err := far.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind != want.kind || string(m.Data) != want.data || len(files) != want.files {
			t.Errorf("got %s with %d bytes and %d descriptors, want %s", m.Kind, len(m.Data), len(files), want.kind)
		}
		if want.kind == "writer" {
			fmt.Fprint(files[0], "by way of the other side")
		}
		control.Drop(files)
	}
	if text, err := io.ReadAll(r); string(text) != "by way of the other side" { // it ends: no descriptor is left
		t.Errorf("got %q, %v", text, err)
	}
}

func TestAMessageWhoseDescriptorsDoNotFitComesWithoutAndTheNextHasItsOwn(t *testing.T) {
	near, far := raw(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	write := func(kind string, announced byte, fds ...int) {
		t.Helper()
		text := fmt.Sprintf(`{"kind":%q}`, kind)
		text = string(binary.BigEndian.AppendUint32([]byte{announced}, uint32(len(text)))) + text
		var rights []byte
		if len(fds) > 0 {
			rights = syscall.UnixRights(fds...)
		}
		if _, _, err := far.WriteMsgUnix([]byte(text), rights, nil); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		write("before", 0)
		write("too many", control.MaxFiles, slices.Repeat([]int{int(fd)}, control.MaxFiles+1)...) // as if there was no room
		write("between", 0)
		write("one", 1, int(fd))
	})
	w.Close()
	for _, want := range []string{"before 0", "too many 0", "between 0", "one 1"} {
		m, files, err := near.Receive()
		if got := fmt.Sprint(m.Kind, " ", len(files)); got != want || err != nil {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
		control.Drop(files)
	}
	if n, err := r.Read(make([]byte, 1)); err != io.EOF { // what did fit is closed
		t.Errorf("got %d bytes, %v, want the end", n, err)
	}
}

func TestMessagesOfManySendersDoNotMix(t *testing.T) {
	near, far := pair(t)
	const senders, each = 8, 50
	var sending sync.WaitGroup
	for i := range senders {
		sending.Go(func() {
			for k := range each {
				send(t, near, strconv.Itoa(i), strings.Repeat(strconv.Itoa(i), 100*k))
			}
		})
	}
	next := make(map[string]int)
	for range senders * each {
		m, _, err := far.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if want := `"` + strings.Repeat(m.Kind, 100*next[m.Kind]) + `"`; string(m.Data) != want {
			t.Fatalf("sender %s: got %d bytes, want %d", m.Kind, len(m.Data), len(want))
		}
		next[m.Kind]++
	}
	sending.Wait()
}

func TestWhatIsTooLongIsNotSent(t *testing.T) {
	near, far := pair(t)
	m, err := control.New("long", strings.Repeat("x", control.MaxLength))
	if err != nil {
		t.Fatal(err)
	}
	if err := near.Send(t.Context(), m); err == nil {
		t.Error("a long message was sent")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	many := make([]syscall.Conn, control.MaxFiles+1)
	for i := range many {
		many[i] = r
	}
	if err := near.Send(t.Context(), control.Message{Kind: "many"}, many...); err == nil {
		t.Error("many descriptors were sent")
	}
	send(t, near, "next", nil)
	if m, _, err := far.Receive(); err != nil || m.Kind != "next" {
		t.Errorf("got %q, %v, want the next message", m.Kind, err)
	}
}

func TestAMessageThatIsGivenUpIsNotSent(t *testing.T) {
	near, far := pair(t)
	sent := 0
	for ; ; sent++ {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("on purpose"))
		err := near.Send(ctx, control.Message{Kind: strconv.Itoa(sent)})
		cancel()
		if err != nil {
			if err.Error() != "on purpose" {
				t.Fatal(err)
			}
			break
		}
	}
	for i := range sent {
		if m, _, err := far.Receive(); err != nil || m.Kind != strconv.Itoa(i) {
			t.Fatalf("got %q, %v, want %d", m.Kind, err, i)
		}
	}
	send(t, near, "next", nil)
	if m, _, err := far.Receive(); err != nil || m.Kind != "next" {
		t.Errorf("got %q, %v, want the next message", m.Kind, err)
	}
}

func TestAClosedDescriptorIsAnErrorAndNothingIsSent(t *testing.T) {
	near, far := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	r.Close()
	if err := near.Send(t.Context(), control.Message{Kind: "dead"}, r); err == nil {
		t.Error("it was sent")
	}
	near.Close()
	if m, _, err := far.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("got %q, %v, want the end", m.Kind, err)
	}
}

func TestNonsenseEndsTheConnection(t *testing.T) {
	message := func(files byte, text string) string {
		return string(binary.BigEndian.AppendUint32([]byte{files}, uint32(len(text)))) + text
	}
	for name, c := range map[string]struct{ sent, want string }{
		"no JSON":                {message(0, "nonsense"), "malformed message"},
		"of another shape":       {message(0, `{"kind":7}`), "malformed message"},
		"too long":               {"\x00\xff\xff\xff\xff", "is malformed"},
		"too many descriptors":   {"\xff\x00\x00\x00\x02{}", "is malformed"},
		"without its descriptor": {message(1, `{"kind":"a"}`), "has 0 descriptors of 1"},
		"half":                   {"\x00\x00\x00\x00\x20{", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := raw(t)
			if _, err := io.WriteString(far, c.sent); err != nil {
				t.Fatal(err)
			}
			far.Close()
			if m, files, err := near.Receive(); err == nil || !strings.Contains(err.Error(), c.want) || len(files) > 0 {
				t.Errorf("got %q, %d descriptors, %v, want %s", m.Kind, len(files), err, c.want)
			}
		})
	}
}

func TestDescriptorsThatNobodyAskedForAreClosed(t *testing.T) {
	near, far := raw(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer w.Close()
		raw.Control(func(fd uintptr) {
			for range 100 {
				if _, _, err := far.WriteMsgUnix([]byte{0}, syscall.UnixRights(int(fd)), nil); err != nil {
					return // it has closed
				}
			}
		})
	}()
	if m, _, err := near.Receive(); err == nil {
		t.Errorf("got %q, want an error", m.Kind)
	}
	near.Close()
	if n, err := r.Read(make([]byte, 1)); err != io.EOF { // all copies of the other end are closed
		t.Errorf("got %d bytes, %v, want the end", n, err)
	}
}
