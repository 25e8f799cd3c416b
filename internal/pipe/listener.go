package pipe

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
)

// backlog is how many connections may wait for Accept: what Linux gave listeners for decades.
const backlog = 128

// Listener hands connections from those who dial to those who accept. Its methods are safe for concurrent use.
type Listener struct {
	buffers   *Buffers
	addr      Addr
	queue     chan net.Conn
	places    chan struct{} // an element for each connection that is in the queue or about to be
	sweeping  sync.Mutex
	accepting chan struct{}
	accept    sync.Once
	closed    chan struct{}
	close     sync.Once
}

// Listen returns a listener at addr whose pipes share buffers. It starts nothing:
// connections queue up until somebody calls Accept.
func Listen(buffers *Buffers, addr Addr) *Listener {
	return &Listener{
		buffers:   buffers,
		addr:      addr,
		queue:     make(chan net.Conn, backlog),
		places:    make(chan struct{}, backlog),
		accepting: make(chan struct{}),
		closed:    make(chan struct{}),
	}
}

// Dial makes a pipe, queues one end for Accept and returns the other, without waiting for Accept.
// The accepted end returns caller from [Conn.Caller]. It blocks while 128 connections are queued, until ctx ends:
// then the error wraps [context.Cause]. It wraps [syscall.ECONNREFUSED] as soon as the listener is closed.
// A queued connection whose other end has closed, and left nothing to read, takes no place from others.
func (l *Listener) Dial(ctx context.Context, from Addr, caller any) (*Conn, error) {
	here, there := New(l.buffers, from, l.addr)
	there.caller = caller
	if err := l.deliver(ctx, there); err != nil {
		return nil, &net.OpError{Op: "dial", Net: l.addr.Network(), Source: from, Addr: l.addr, Err: err}
	}
	return here, nil
}

// Deliver queues an existing connection for Accept, with the rules and errors of Dial.
// The connection belongs to the listener if Deliver returns nil, and to the caller if not.
func (l *Listener) Deliver(ctx context.Context, c net.Conn) error {
	if err := l.deliver(ctx, c); err != nil {
		return &net.OpError{Op: "dial", Net: l.addr.Network(), Source: c.RemoteAddr(), Addr: l.addr, Err: err}
	}
	return nil
}

func (l *Listener) deliver(ctx context.Context, c net.Conn) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if l.Closed() {
		return refused()
	}
	if len(l.places) == backlog {
		l.sweep()
		if l.Closed() { // perhaps while it had a connection in its hands
			l.hangUp()
			return refused()
		}
	}
	select {
	case l.places <- struct{}{}:
		l.queue <- c // there is room for as many as have a place
	case <-l.closed:
		return refused()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// Close empties the queue, but may have done so before c got there.
	if l.Closed() {
		l.hangUp()
	}
	return nil
}

// Accept returns the connection that was queued first. Once the listener is closed its error wraps [net.ErrClosed].
func (l *Listener) Accept() (net.Conn, error) {
	l.accept.Do(func() { close(l.accepting) })
	select {
	case c := <-l.queue:
		<-l.places
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
	}
}

// Accepting returns a channel that is closed when Accept is called for the first time: somebody serves.
func (l *Listener) Accepting() <-chan struct{} { return l.accepting }

// Waiting returns how many connections nobody has accepted yet.
func (l *Listener) Waiting() int { return len(l.places) }

// Close refuses further connections and closes those that nobody has accepted. It returns nil, the second time too.
func (l *Listener) Close() error {
	l.close.Do(func() { close(l.closed) })
	l.hangUp()
	return nil
}

// Addr returns the [Addr] that the listener was made with.
func (l *Listener) Addr() net.Addr { return l.addr }

// Closed reports whether Close was called.
func (l *Listener) Closed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// hangUp closes what is queued, so that those who dialled see EOF instead of silence.
func (l *Listener) hangUp() {
	for {
		select {
		case c := <-l.queue:
			<-l.places
			_ = c.Close() // nobody is left to tell
		default:
			return
		}
	}
}

// sweep takes out of the queue what nobody has any use for, and leaves the rest in its order.
func (l *Listener) sweep() {
	l.sweeping.Lock()
	defer l.sweeping.Unlock()
	for range len(l.queue) {
		select {
		case c := <-l.queue:
			if !gone(c) {
				l.queue <- c // it still has its place
				continue
			}
			<-l.places
			_ = c.Close()
		default:
			return
		}
	}
}

func gone(c net.Conn) bool {
	other, ok := c.(interface{ Gone() bool })
	return ok && other.Gone()
}

func refused() error { return os.NewSyscallError("connect", syscall.ECONNREFUSED) }
