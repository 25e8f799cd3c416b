package watt

import (
	"errors"
	"net"
	"slices"
)

// queued returns how many connections wait to be accepted.
func queued(ln net.Listener) (int, error) {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return (&socket{TCPListener: tcp}).queued()
}

// chosen reports whether new connections get to the listener of instance i.
func (p *port) chosen(i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.socketLocked(i)
	return err == nil && (p.shared || !p.steered || slices.Contains(p.chosenLocked(), slices.Index(p.group, s)))
}
