package watt

import (
	"net"
	"os"
	"sync"

	"go.uber.org/zap"

	"github.com/org/watt/internal/control"
)

// inlet is the public listener of an instance in a process of its own: its share of the port, and the connections
// that its parent has for it. What has got in when it is closed is accepted all the same.
type inlet struct {
	port    net.Listener
	queue   chan net.Conn
	closing chan struct{} // closed when nothing more is wanted
	closed  chan struct{} // closed when nothing more comes from the port
	once    sync.Once
}

// inletQueue is how many connections may wait for Accept outside of the system's own queue.
const inletQueue = 128

func newInlet(port net.Listener) *inlet {
	return &inlet{port: port, queue: make(chan net.Conn, inletQueue), closing: make(chan struct{}), closed: make(chan struct{})}
}

// run accepts from the port until Close. The parent may have closed the port before that, and still give connections.
func (i *inlet) run(log *zap.Logger) {
	acceptAll(i.port, i.closing, log, i.put)
	<-i.closing
	close(i.closed)
}

// put queues a connection. It blocks while too many wait, until Close.
func (i *inlet) put(conn net.Conn) {
	if i.offer(conn) {
		return
	}
	select {
	case i.queue <- conn:
	case <-i.closing:
		_ = conn.Close()
	}
}

// offer queues a connection if there is room.
func (i *inlet) offer(conn net.Conn) bool {
	select {
	case i.queue <- conn:
		return true
	default:
		return false
	}
}

// take takes a connection from the parent. It does not block: the next message may say that the instance is to drain.
func (i *inlet) take(f *os.File) {
	conn, err := control.ConnOf(f)
	if err != nil { // whoever is there sees it closed
		return
	}
	if !i.offer(conn) {
		go i.put(conn)
	}
}

// Accept implements [net.Listener].
func (i *inlet) Accept() (net.Conn, error) {
	select {
	case conn := <-i.queue:
		return conn, nil
	case <-i.closed:
	}
	select {
	case conn := <-i.queue:
		return conn, nil
	default:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: i.Addr(), Err: net.ErrClosed}
	}
}

// Addr returns the port's.
func (i *inlet) Addr() net.Addr { return i.port.Addr() }

// Close closes this process's share of the port. What the port gets from then on, the parent takes.
func (i *inlet) Close() error {
	i.once.Do(func() { close(i.closing) })
	return i.port.Close()
}
