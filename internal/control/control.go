//go:build unix

package control

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a message: its length in bytes, and how many descriptors may travel with it.
const (
	MaxLength = 1 << 20
	MaxFiles  = 8
)

// Conn is one side of the connection. Send is safe for concurrent use, Receive is for one goroutine.
type Conn struct {
	conn    *net.UnixConn
	sending sync.Mutex

	buf     []byte   // received, and not yet a message
	bundles []bundle // received, and not yet of a message
}

// bundle is what came of the descriptors of one message: the system never gives those of two at once.
type bundle struct {
	files []*os.File
	cut   bool // some were lost, since too many are open
}

// Pair returns both sides: one to use, and one for a child to inherit.
func Pair() (mine *Conn, theirs *os.File, err error) {
	near, far, err := Files()
	if err != nil {
		return nil, nil, err
	}
	if mine, err = Open(near); err != nil {
		_ = far.Close()
		return nil, nil, err
	}
	return mine, far, nil
}

// Files returns both ends of a new stream connection. Neither is inherited by itself, nor does it block.
func Files() (near, far *os.File, err error) {
	syscall.ForkLock.RLock() // so that no child is started in between
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		_ = unix.SetNonblock(fd, true)
	}
	return os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far"), nil
}

// ID identifies what a descriptor stands for, to every process that has one for it; "" if it stands for nothing.
func ID(fd uintptr) string {
	var s unix.Stat_t
	if err := unix.Fstat(int(fd), &s); err != nil {
		return ""
	}
	return fmt.Sprint(s.Dev, "/", s.Ino)
}

// Keep keeps a descriptor from what this process starts.
func Keep(fd uintptr) { unix.CloseOnExec(int(fd)) }

// Open returns the side that f is. It owns f from then on.
func Open(f *os.File) (*Conn, error) {
	conn, err := ConnOf(f)
	if err != nil {
		return nil, err
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("%T is no Unix socket", conn)
	}
	return &Conn{conn: unixConn}, nil
}

// ConnOf returns the connection that f is. It owns f from then on.
func ConnOf(f *os.File) (net.Conn, error) {
	defer func() { _ = f.Close() }()
	return net.FileConn(f)
}

// ListenerOf returns the listener that f is. It owns f from then on.
func ListenerOf(f *os.File) (net.Listener, error) {
	defer func() { _ = f.Close() }()
	return net.FileListener(f)
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// sendTime is how long the other side may take to read.
const sendTime = 10 * time.Second

// Send sends m, and duplicates of files' descriptors with it. It blocks while the other side does not read, until ctx
// ends, or for 10 s: then nothing was sent, and the error wraps [context.Cause] or [os.ErrDeadlineExceeded].
func (c *Conn) Send(ctx context.Context, m Message, files ...syscall.Conn) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(text) > MaxLength || len(files) > MaxFiles {
		return fmt.Errorf("a message of %d bytes with %d descriptors is too long", len(text), len(files))
	}
	text = append(binary.BigEndian.AppendUint32(append(make([]byte, 0, len(text)+5), byte(len(files))), uint32(len(text))), text...)
	return withFDs(files, nil, func(fds []int) error {
		c.sending.Lock()
		defer c.sending.Unlock()
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		n, err := c.write(ctx, text, rights)
		if err == nil && n < len(text) {
			if _, err = c.conn.Write(text[n:]); err != nil {
				_ = c.conn.Close() // half a message cannot be followed by another
			}
		}
		return err
	})
}

// write writes some of the text, and all of the rights with it, or nothing.
func (c *Conn) write(ctx context.Context, text, rights []byte) (int, error) {
	_ = c.conn.SetWriteDeadline(time.Now().Add(sendTime))
	given := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(given)
		_ = c.conn.SetWriteDeadline(time.Unix(1, 0)) // long ago
	})
	n, _, err := c.conn.WriteMsgUnix(text, rights, nil)
	if stop() {
		return n, err
	}
	<-given
	_ = c.conn.SetWriteDeadline(time.Now().Add(sendTime))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.Cause(ctx)
	}
	return n, err
}

// withFDs calls f with the descriptors of files, which stay open and as they are meanwhile.
func withFDs(files []syscall.Conn, fds []int, f func(fds []int) error) error {
	if len(files) == 0 {
		return f(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = withFDs(files[1:], append(fds, int(fd)), f) }); err != nil {
		return err
	}
	return inner
}

// Drop closes descriptors that came with a message and are not wanted.
func Drop(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// head is how many bytes stand before a message: how many descriptors it has, and how long it is.
const head = 5

// Receive returns the next message and its descriptors, which are the caller's: none where this process had no room for
// all of them. It blocks until there is one; an error that is io.EOF means that the other side has gone. After an error
// there is nothing more to come.
func (c *Conn) Receive() (m Message, files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, b := range c.bundles {
				Drop(b.files)
			}
			c.bundles = nil
		}
	}()
	for {
		text, files, ok, err := c.next()
		if err != nil {
			return m, nil, err
		}
		if ok {
			if err := json.Unmarshal(text, &m); err != nil {
				Drop(files)
				return m, nil, fmt.Errorf("malformed message: %w", err)
			}
			return m, files, nil
		}
		if err := c.read(); err != nil {
			return m, nil, err
		}
	}
}

// next takes a message from what was received, if it is all there.
func (c *Conn) next() (text []byte, files []*os.File, ok bool, err error) {
	if len(c.buf) < head {
		return nil, nil, false, nil
	}
	n, length := int(c.buf[0]), int(binary.BigEndian.Uint32(c.buf[1:head]))
	if n > MaxFiles || length > MaxLength {
		return nil, nil, false, fmt.Errorf("a message of %d bytes with %d descriptors is malformed", length, n)
	}
	if len(c.buf) < head+length {
		return nil, nil, false, nil
	}
	if files, err = c.filesOf(n); err != nil {
		return nil, nil, false, err
	}
	text, c.buf = c.buf[head:head+length], c.buf[head+length:]
	return text, files, true, nil
}

// filesOf takes the n descriptors of the next message, or none if some were lost.
func (c *Conn) filesOf(n int) ([]*os.File, error) {
	if n == 0 {
		return nil, nil
	}
	var b bundle
	if len(c.bundles) > 0 {
		b, c.bundles = c.bundles[0], c.bundles[1:]
	}
	switch {
	case b.cut:
		Drop(b.files)
		return nil, nil
	case len(b.files) != n:
		Drop(b.files)
		return nil, fmt.Errorf("a message has %d descriptors of %d", len(b.files), n)
	}
	return b.files, nil
}

// maxBundles is how many bundles may be there at a time: that of a message whose end was just read, and the next one's.
const maxBundles = 2

// read reads what there is.
func (c *Conn) read() error {
	buf, rights := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(4*MaxFiles))
	n, rn, flags, _, err := c.conn.ReadMsgUnix(buf, rights)
	if err != nil {
		return err
	}
	files, err := received(rights[:rn])
	if cut := flags&unix.MSG_CTRUNC != 0; cut || len(files) > 0 {
		c.bundles = append(c.bundles, bundle{files, cut})
	}
	switch {
	case err != nil:
		return err
	case len(c.bundles) > maxBundles:
		return errors.New("descriptors without messages")
	case n == 0:
		return io.EOF
	}
	c.buf = append(c.buf, buf[:n]...)
	return nil
}

// received returns the descriptors that came. Go's ReadMsgUnix has seen to it that no child inherits them.
func received(rights []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			_ = syscall.SetNonblock(fd, true)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}
