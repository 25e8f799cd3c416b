//go:build !linux

package watt

import (
	"errors"
	"net"
)

// queued returns how many connections wait to be accepted, which this system does not tell.
func queued(net.Listener) (int, error) { return 0, errors.ErrUnsupported }

// chosen reports whether new connections get to the listener of instance i: it is everybody's.
func (p *port) chosen(i int) bool { return p.check(i) == nil }
