package watt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

const (
	claimTime  = time.Second // for the children of a parent that was killed to end
	claimPause = 20 * time.Millisecond
)

// listenFunc is the type of Runtime.Listen.
type listenFunc = func(ctx context.Context, network, address string) (net.Listener, error)

// claim is listenSoon for a listener that processes can hand to each other.
func claim(ctx context.Context, address string, listen listenFunc) (*net.TCPListener, error) {
	ln, err := listenSoon(ctx, address, listen)
	if err != nil {
		return nil, err
	}
	return asTCP(ln)
}

// singlePath listens without multipath TCP, with which the kernel refuses to be told whom to choose, and to take nobody new.
func singlePath(ctx context.Context, network, address string) (net.Listener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	return config.Listen(ctx, network, address)
}

// listenSoon makes a listener as soon as it can be had, for a second. If listen is nil, that is one without
// SO_REUSEPORT: the kernel refuses it while anybody else listens there, other copies of this program
// included, and once it is there nobody else can. There is no moment between asking and having.
func listenSoon(ctx context.Context, address string, listen listenFunc) (net.Listener, error) {
	if listen == nil {
		listen = singlePath
	}
	late := time.NewTimer(claimTime)
	defer late.Stop()
	tick := time.NewTicker(claimPause)
	defer tick.Stop()
	for {
		ln, err := listen(ctx, "tcp", address)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return ln, err
		}
		select {
		case <-tick.C:
		case <-late.C:
			return nil, fmt.Errorf("address %s is in use, by another program or another listener of this one: %w", address, err)
		case <-ctx.Done():
			return nil, fmt.Errorf("address %s is in use, and waiting ended: %w", address, context.Cause(ctx))
		}
	}
}

// asTCP refuses listeners that processes cannot hand to each other.
func asTCP(ln net.Listener) (*net.TCPListener, error) {
	if tcp, ok := ln.(*net.TCPListener); ok {
		return tcp, nil
	}
	return nil, errors.Join(fmt.Errorf("%T cannot be shared by instances: Listen must return a *net.TCPListener", ln), ln.Close())
}
