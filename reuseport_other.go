//go:build !linux

package watt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
)

// port is one public address. This system cannot spread connections over listeners, or not so that
// none is lost, so all instances share one: whoever calls Accept first gets a connection, and whether an
// instance is on makes no difference. Its methods are safe for concurrent use.
type port struct {
	address string
	shared  *net.TCPListener

	mu     sync.Mutex
	closed bool
	places []bool // of instances: whether there is one
}

// openPort listens at address, for n instances. If the address is taken it tries again for a second,
// and then the error wraps [syscall.EADDRINUSE]; it ends earlier if ctx does. If listen is not nil it is
// called instead of [net.ListenConfig].
func openPort(ctx context.Context, address string, n int, listen listenFunc) (*port, error) {
	shared, err := claim(ctx, address, listen)
	if err != nil {
		return nil, err
	}
	return &port{address: shared.Addr().String(), shared: shared, places: slices.Repeat([]bool{true}, n)}, nil
}

// grow makes room for one more instance and returns its number: the lowest that is free.
func (p *port) grow(context.Context) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, net.ErrClosed
	}
	i := slices.Index(p.places, false)
	if i < 0 {
		i = len(p.places)
		p.places = append(p.places, false)
	}
	p.places[i] = true
	return i, nil
}

// listener returns the one listener, or nil if there is no instance i. It stays the port's.
func (p *port) listener(i int) *net.TCPListener {
	if p.check(i) != nil {
		return nil
	}
	return p.shared
}

// listeners returns the one listener.
func (p *port) listeners() []net.Listener { return []net.Listener{p.shared} }

// weigh does nothing here.
func (p *port) weigh(int, bool) {}

// chosen reports whether new connections get to the listener of instance i: it is everybody's.
func (p *port) chosen(i int) bool { return p.check(i) == nil }

// queued returns how many connections wait to be accepted, which this system does not tell.
func queued(net.Listener) (int, error) { return 0, errors.ErrUnsupported }

// queued cannot be known here.
func (p *port) queued(i int) (int, error) {
	return 0, errors.Join(p.check(i), errors.ErrUnsupported)
}

// remove forgets instance i; the others go on accepting from the same listener.
func (p *port) remove(_ context.Context, i int) error {
	if err := p.check(i); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.places[i] = false
	return nil
}

func (p *port) check(i int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	if i < 0 || i >= len(p.places) || !p.places[i] {
		return fmt.Errorf("%s has no listener %d: %w", p.address, i, net.ErrClosed)
	}
	return nil
}

// close closes the listener. The second time it does nothing.
func (p *port) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return p.shared.Close()
}
