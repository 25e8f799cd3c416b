//go:build !unix

package wire

import "net"

// socket cannot be looked at on this system.
type socket struct{}

func newSocket(net.Conn) *socket { return nil }

func (*socket) pending() bool { return false }
