//go:build !unix

package control

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
)

// Conn cannot be had on this system.
type Conn struct{}

// Pair fails on this system.
func Pair() (mine *Conn, theirs *os.File, err error) { return nil, nil, errors.ErrUnsupported }

// Files fails on this system.
func Files() (near, far *os.File, err error) { return nil, nil, errors.ErrUnsupported }

// ID returns "" on this system.
func ID(uintptr) string { return "" }

// Keep does nothing on this system.
func Keep(uintptr) {}

// Open fails on this system.
func Open(*os.File) (*Conn, error) { return nil, errors.ErrUnsupported }

// ConnOf fails on this system.
func ConnOf(*os.File) (net.Conn, error) { return nil, errors.ErrUnsupported }

// ListenerOf fails on this system.
func ListenerOf(*os.File) (net.Listener, error) { return nil, errors.ErrUnsupported }

// Send fails on this system.
func (c *Conn) Send(context.Context, Message, ...syscall.Conn) error { return errors.ErrUnsupported }

// Receive fails on this system.
func (c *Conn) Receive() (Message, []*os.File, error) { return Message{}, nil, errors.ErrUnsupported }

// Close does nothing on this system.
func (c *Conn) Close() error { return nil }

// Drop does nothing on this system.
func Drop([]*os.File) {}
