package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/valyala/fasthttp/fasthttputil"
	"google.golang.org/grpc/test/bufconn"

	"github.com/org/watt/internal/pipe"
)

// buffered is what one direction of a connection holds for its reader: what watt's pipe does.
const buffered = 64 << 10

// network is one way to connect a client with a server in the same program.
type network struct {
	name     string
	inMemory bool
	listen   func(ctx context.Context) (net.Listener, dial, error)
}

type dial func(ctx context.Context) (net.Conn, error)

// wattPipe is what the mesh is made of.
func wattPipe() network {
	return network{watt, true, func(context.Context) (net.Listener, dial, error) {
		ln := pipe.Listen(new(pipe.Buffers), "server:80")
		return ln, func(ctx context.Context) (net.Conn, error) { return ln.Dial(ctx, "client:80", nil) }, nil
	}}
}

// otherNetworks are what could be used instead.
func otherNetworks() []network {
	return []network{
		{"netpipe", true, func(context.Context) (net.Listener, dial, error) {
			ln := newPipeListener()
			return ln, ln.dial, nil
		}},
		{"bufconn", true, func(context.Context) (net.Listener, dial, error) {
			ln := bufconn.Listen(buffered)
			return ln, ln.DialContext, nil
		}},
		{"fasthttputil", true, func(context.Context) (net.Listener, dial, error) {
			ln := fasthttputil.NewInmemoryListener()
			return ln, func(context.Context) (net.Conn, error) { return ln.Dial() }, nil
		}},
		{tcp, false, listenTCP},
		{"unix", false, listenUnix},
	}
}

func listenTCP(ctx context.Context) (net.Listener, dial, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	address := ln.Addr().String()
	return ln, func(ctx context.Context) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		// Without it the ports of closed connections stay taken for a minute, and there are 28,000.
		return conn, conn.(*net.TCPConn).SetLinger(0)
	}, nil
}

func listenUnix(ctx context.Context) (net.Listener, dial, error) {
	dir, err := os.MkdirTemp("", "bench") // short enough for a socket's name
	if err != nil {
		return nil, nil, err
	}
	address := filepath.Join(dir, "s")
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", address)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return unixListener{ln, dir}, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", address)
	}, nil
}

// unixListener removes the directory that its socket is in.
type unixListener struct {
	net.Listener
	dir string
}

func (l unixListener) Close() error {
	return errors.Join(l.Listener.Close(), os.RemoveAll(l.dir))
}

// pipeListener hands out the ends of [net.Pipe], as everybody writes it who needs one.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipe.Addr("netpipe:80") }
