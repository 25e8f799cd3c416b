package watt

import (
	"context"
	"net"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// empty has listeners get no new connections, and waits until all that they have are accepted, for emptyTime at most or
// until ctx ends: what is not would be reset. Who comes in between hears nothing, asks again a second later, and is refused
// once they are closed. What Listen has returned goes on getting some: another program may have the same socket.
func (a *app) empty(ctx context.Context, all ...net.Listener) {
	ctx, cancel := context.WithTimeout(ctx, emptyTime)
	defer cancel()
	var emptying sync.WaitGroup
	var kernel asking
	for _, ln := range all {
		if tcp, ok := ln.(*net.TCPListener); ok {
			emptying.Go(func() { (&socket{TCPListener: tcp}).empty(ctx, a.rt.Listen == nil, &kernel) })
		}
	}
	emptying.Wait()
}

func (s *socket) empty(ctx context.Context, own bool, kernel *asking) {
	if own && s.deafen() == nil {
		_ = s.drained(ctx, kernel)
		return
	}
	wait(ctx, func() bool {
		n, err := s.queued()
		return n == 0 || err != nil
	})
}

// deafen drops the packets with which connections begin, also for others who have the socket, and for good. Listeners of
// multipath TCP cannot be told so.
func (s *socket) deafen() error {
	const flags, syn, ack = 13, 0x02, 0x10 // of a TCP header
	program := assembled([]bpf.Instruction{
		bpf.LoadAbsolute{Off: flags, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: syn | ack},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: syn, SkipFalse: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1<<32 - 1}, // all of it
	})
	return s.control(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
}
