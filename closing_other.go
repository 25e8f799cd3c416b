//go:build !linux

package watt

import (
	"context"
	"net"
)

// empty does nothing: this system does not tell who waits to be accepted.
func (a *app) empty(context.Context, ...net.Listener) {}
