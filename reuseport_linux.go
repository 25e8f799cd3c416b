package watt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// port is one public address and the listeners of the instances that share it. The kernel gives each
// connection to one of them, at random among those that are on. It is the only owner of the listeners:
// the kernel knows them by an index that nobody can ask for, and that changes when one is closed.
//
// Somebody must accept from every listener, also from one that is off: connections still get there
// while all are off, and where the kernel cannot be told whom to choose. Its methods are safe for
// concurrent use.
type port struct {
	address string
	shared  bool // there is one listener, which is everybody's
	asking  asking

	mu      sync.Mutex
	closed  bool
	sockets []*socket // of instances; nil where one was removed
	group   []*socket // by the kernel's index
	steered bool      // the kernel took the last program
	strays  int       // how often it chose among all for a moment, also those that are leaving
}

// socket is one listener of a port.
type socket struct {
	*net.TCPListener
	on      bool
	leaving bool
}

// openPort listens at address with n listeners, all of them off. Port 0 is chosen once for all. If the
// address is taken, by whomever, it tries again for a second, and then the error wraps
// [syscall.EADDRINUSE]; it ends earlier if ctx does. If listen is not nil it is called instead, once,
// and all instances share what it returns.
func openPort(ctx context.Context, address string, n int, listen listenFunc) (*port, error) {
	first, err := claim(ctx, address, listen)
	if err != nil {
		return nil, err
	}
	s := &socket{TCPListener: first}
	p := &port{address: first.Addr().String(), shared: listen != nil, sockets: []*socket{s}, group: []*socket{s}}
	for range n - 1 {
		if _, err := p.grow(ctx); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return p, nil
}

// grow adds a listener, which is off, and returns its number: the lowest that is free. It refuses to
// share the address with another program that has joined in the meantime.
func (p *port) grow(ctx context.Context) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, net.ErrClosed
	}
	s := p.group[0]
	if !p.shared {
		var err error
		if s, err = p.joinLocked(ctx); err != nil {
			return 0, err
		}
		p.steerLocked()
	}
	i := slices.Index(p.sockets, nil)
	if i < 0 {
		i = len(p.sockets)
		p.sockets = append(p.sockets, nil)
	}
	p.sockets[i] = s
	return i, nil
}

// joinLocked opens a listener beside those that are there.
func (p *port) joinLocked(ctx context.Context) (*socket, error) {
	for _, s := range p.group {
		if err := s.control(shareAddress); err != nil {
			return nil, err
		}
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return withFD(c, shareAddress) }}
	config.SetMultipathTCP(false)
	// A program that tries to claim the address may stand in the way for a moment.
	ln, err := claim(ctx, p.address, config.Listen)
	if err != nil {
		return nil, err
	}
	s := &socket{TCPListener: ln}
	if err := p.alone(append(slices.Clone(p.group), s)); err != nil {
		return nil, errors.Join(err, s.end())
	}
	p.group = append(p.group, s)
	return s, nil
}

// shareAddress sets SO_REUSEPORT. Later it cannot be taken back: the kernel remembers for the address.
func shareAddress(fd int) error {
	return syscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// listener returns the listener of instance i, or nil if there is none. It stays the port's.
func (p *port) listener(i int) *net.TCPListener {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.socketLocked(i)
	if err != nil {
		return nil
	}
	return s.TCPListener
}

// listeners returns all listeners that there are.
func (p *port) listeners() []net.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]net.Listener, 0, len(p.group))
	for _, s := range p.group {
		all = append(all, s.TCPListener)
	}
	return all
}

// queued returns how many connections to instance i wait to be accepted.
func (p *port) queued(i int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.socketLocked(i)
	if err != nil {
		return 0, err
	}
	return s.queued()
}

func (p *port) socketLocked(i int) (*socket, error) {
	if p.closed {
		return nil, net.ErrClosed
	}
	if i < 0 || i >= len(p.sockets) || p.sockets[i] == nil {
		return nil, fmt.Errorf("%s has no listener %d: %w", p.address, i, net.ErrClosed)
	}
	return p.sockets[i], nil
}

// remove takes the listener of instance i away without losing a connection, if the port is steered: it
// is given no new ones, and closed when those it has were accepted, for which somebody must go on
// calling Accept. That blocks until then, or until ctx ends: the listener is closed all the same, and the
// error wraps [context.Cause]. Whoever else has a descriptor of it sees Accept fail.
// The last listener cannot be removed, but only closed with the port.
func (p *port) remove(ctx context.Context, i int) error {
	s, err := p.leave(i)
	if err != nil || p.shared {
		return err
	}
	for dropped := false; !dropped; {
		strays := p.strayed()
		err = s.drained(ctx, &p.asking)
		dropped, err = p.drop(i, s, strays, err)
	}
	return err
}

// leave makes sure that no new connection gets to instance i.
func (p *port) leave(i int) (*socket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.socketLocked(i)
	if err != nil {
		return nil, err
	}
	if p.shared {
		p.sockets[i] = nil
		return s, nil
	}
	if s.leaving {
		return nil, fmt.Errorf("%s: listener %d is being removed already", p.address, i)
	}
	if !slices.ContainsFunc(p.group, func(other *socket) bool { return other != s && !other.leaving }) {
		return nil, fmt.Errorf("%s: listener %d is the last one", p.address, i)
	}
	s.on, s.leaving = false, true
	p.steerLocked()
	return s, nil
}

func (p *port) strayed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.strays
}

// drop closes a listener that gets nothing any more, since there were so many strays. It refuses if there
// was one after that. The listener was drained, unless err says why not, which drop then returns too.
func (p *port) drop(i int, s *socket, strays int, err error) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return true, err
	}
	if err == nil && strays != p.strays {
		return false, nil
	}
	hole, last := slices.Index(p.group, s), len(p.group)-1
	p.attachLocked(p.movableLocked(hole, last))
	_ = s.deafen() // a moment after it has left the group, the kernel may still find it: who comes then asks again after a second
	err = errors.Join(err, s.end())
	p.group[hole] = p.group[last] // as the kernel does
	p.group = p.group[:last]
	p.sockets[i] = nil
	p.steerLocked()
	return true, err
}

// close closes all listeners, also those whose descriptors other processes have, and what waits in their
// queues; but of one that everybody shares only the descriptor here, for it may be another program's too. The second time
// it does nothing.
func (p *port) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var errs []error
	for _, s := range p.group {
		if p.shared {
			errs = append(errs, s.Close())
		} else {
			errs = append(errs, s.end())
		}
	}
	return errors.Join(errs...)
}

// end takes the socket out of the kernel's group now. Closing alone would do that when the last one who
// has a descriptor, or is in Accept, lets go of it.
func (s *socket) end() error {
	err := s.control(func(fd int) error { return syscallError("shutdown", unix.Shutdown(fd, unix.SHUT_RD)) })
	return errors.Join(err, s.Close())
}

// queued returns how many connections wait to be accepted.
func queued(ln net.Listener) (int, error) {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return (&socket{TCPListener: tcp}).queued()
}

// queued asks for tcpi_unacked, which of a listener is the length of its queue.
func (s *socket) queued() (n int, err error) {
	err = s.control(func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			n = int(info.Unacked)
		}
		return syscallError("getsockopt TCP_INFO", err)
	})
	return n, err
}

func (s *socket) control(f func(fd int) error) error {
	c, err := s.SyscallConn()
	if err != nil {
		return err
	}
	return withFD(c, f)
}

// withFD returns both what c says and what f did.
func withFD(c syscall.RawConn, f func(fd int) error) error {
	var err error
	outer := c.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(outer, err)
}

func syscallError(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}
