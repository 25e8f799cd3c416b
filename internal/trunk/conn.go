package trunk

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// conn is the caller's end of a connection.
type conn struct {
	client *Client
	nc     net.Conn
	out    writer

	mu      sync.Mutex
	calls   map[uint64]*call // in progress
	last    uint64           // the number of the latest call
	leaving bool             // it takes no more calls, and is closed when the last is over
	idle    *time.Timer      // nil if it is kept for ever
	idled   uint64           // what last was when expire has found the connection idle
}

func newConn(client *Client, nc net.Conn) *conn {
	k := &conn{client: client, nc: nc, calls: make(map[uint64]*call)}
	k.out.init(nc)
	if d := client.IdleTimeout; d > 0 {
		k.idle = time.AfterFunc(d, k.expire)
	}
	go k.read()
	return k
}

// enter gives a call its number. It reports false if the connection takes no more.
func (k *conn) enter(x *call) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.leaving {
		return false
	}
	k.last++
	x.id = k.last
	k.calls[x.id] = x
	return true
}

// of returns the call with a number, or nil if that is over.
func (k *conn) of(id uint64) *call {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[id]
}

// remove ends a call. It reports whether that was in progress.
func (k *conn) remove(x *call) bool {
	k.mu.Lock()
	_, there := k.calls[x.id]
	delete(k.calls, x.id)
	last := k.leaving && len(k.calls) == 0
	k.mu.Unlock()
	if last {
		_ = k.nc.Close()
	}
	return there
}

// leave has the connection closed when no call uses it, and none begun on it.
func (k *conn) leave() {
	k.client.dropped(k)
	k.mu.Lock()
	k.leaving = true
	if k.idle != nil {
		k.idle.Stop()
	}
	last := len(k.calls) == 0
	k.mu.Unlock()
	if last {
		_ = k.nc.Close()
	}
}

// expire is called once in an IdleTimeout. It closes the connection if there was no call since the last time.
func (k *conn) expire() {
	k.mu.Lock()
	over := false
	if len(k.calls) == 0 {
		over, k.idled = k.idled == k.last, k.last
	}
	if !over && !k.leaving {
		k.idle.Reset(k.client.IdleTimeout)
	}
	k.mu.Unlock()
	if over {
		k.leave()
	}
}

// read takes what the callee sends, until the connection ends.
func (k *conn) read() {
	err := readAll(k.nc, &k.out, k.receive)
	_ = k.nc.Close()
	k.out.fail(err)
	k.leave()
	k.mu.Lock()
	calls := k.calls
	k.calls = nil
	k.mu.Unlock()
	if err == io.EOF { //nolint:errorlint // next returns it bare
		err = io.ErrUnexpectedEOF
	}
	for _, x := range calls {
		x.fail(fmt.Errorf("the connection has ended: %w", err))
	}
}

// receive takes a frame from the callee, whose head has been read.
func (k *conn) receive(f frame, r *bufio.Reader) error {
	x := k.of(f.id)
	if f.kind == kindData {
		if x == nil { // it was given up
			_, err := r.Discard(f.length)
			return cutShort(err)
		}
		return x.take(f, r)
	}
	return f.content(r, func(p []byte) error {
		switch {
		case f.kind == kindLeave:
			k.leave()
		case f.kind < kindInform || f.kind > kindLeave:
			return fmt.Errorf("%w: of kind %d", ErrMalformed, f.kind)
		case x == nil: // it was given up
		case f.kind == kindInform:
			return x.informed(p)
		case f.kind == kindAnswer:
			return x.answered(p)
		case f.kind == kindEnd:
			return x.ended(p)
		case f.kind == kindCut:
			x.cut(p)
		}
		return nil
	})
}
