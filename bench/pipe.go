package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"sync"
	"time"
)

// The pipe group compares the bare connections.

const (
	messageSize = 64 // of a ping and its pong
	megabyte    = 1 << 20
	idleSize    = 600      // what an idle connection has carried in each direction
	chunkSize   = 32 << 10 // of a stream, as io.Copy has it
)

func pipeBenchmarks(cfg config) []benchmark {
	return []benchmark{
		{
			name: "pipe/pingpong", unit: "ns/op",
			contenders: onNetworks(echo(messageSize), pingpong),
			bars:       []bar{vsInMemory(0.6)},
		}, {
			name: "pipe/throughput-1MiB", unit: "ns/op",
			contenders: onNetworks(takeMegabytes, throughput),
			bars:       []bar{vsInMemory(1)},
		}, {
			name: "pipe/dial", unit: "ns/op",
			contenders: onNetworks(greet, nil),
		}, {
			name: "pipe/idle-bytes", unit: "B/conn",
			contenders: idle(cfg.conns),
			bars:       []bar{atMost(1024, "bytes", valueOf(watt))},
		},
	}
}

// onNetworks has serve talk, on each network, to one client. client makes the operation on a
// connection; if it is nil, the operation is a connection.
func onNetworks(serve func(net.Conn), client func(net.Conn) op) []contender {
	var all []contender
	for _, n := range append([]network{wattPipe()}, otherNetworks()...) {
		start := func(ctx context.Context) (session, error) {
			ln, dial, err := n.listen(ctx)
			if err != nil {
				return session{}, err
			}
			var server sync.WaitGroup
			server.Go(func() { accept(ln, serve) })
			end := func() { _ = ln.Close(); server.Wait() }
			if client == nil {
				return repeat([]op{visit(dial)}, end), nil
			}
			conn, err := dial(ctx)
			if err != nil {
				end()
				return session{}, err
			}
			return repeat([]op{client(conn)}, func() { _ = conn.Close(); end() }), nil
		}
		all = append(all, contender{name: n.name, inMemory: n.inMemory, start: start})
	}
	return all
}

// accept serves one connection after the other until the listener is closed.
func accept(ln net.Listener, serve func(net.Conn)) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		serve(conn)
		_ = conn.Close()
	}
}

var errWrongAnswer = errors.New("not the answer to what was asked")

// echo sends messages back until the client has gone.
func echo(size int) func(net.Conn) {
	return func(conn net.Conn) {
		message := make([]byte, size)
		for {
			if _, err := io.ReadFull(conn, message); err != nil {
				return
			}
			if _, err := conn.Write(message); err != nil {
				return
			}
		}
	}
}

// pingpong sends a message, another one each time, and reads it back.
func pingpong(conn net.Conn) op {
	ping, pong := make([]byte, messageSize), make([]byte, messageSize)
	return func(context.Context) error {
		ping[0]++
		if _, err := conn.Write(ping); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, pong); err != nil {
			return err
		}
		if !bytes.Equal(ping, pong) {
			return errWrongAnswer
		}
		return nil
	}
}

// takeMegabytes answers each MiB with its last byte.
func takeMegabytes(conn net.Conn) {
	chunk := make([]byte, chunkSize)
	for {
		var n int
		for size := 0; size < megabyte; size += n {
			var err error
			if n, err = conn.Read(chunk[:min(len(chunk), megabyte-size)]); err != nil {
				return
			}
		}
		if _, err := conn.Write(chunk[n-1 : n]); err != nil {
			return
		}
	}
}

// throughput sends 1 MiB, the last byte another one each time, and waits until it has arrived.
func throughput(conn net.Conn) op {
	data, answer := make([]byte, megabyte), make([]byte, 1)
	return func(context.Context) error {
		data[len(data)-1]++
		for chunk := range slices.Chunk(data, chunkSize) {
			if _, err := conn.Write(chunk); err != nil {
				return err
			}
		}
		if _, err := io.ReadFull(conn, answer); err != nil {
			return err
		}
		if answer[0] != data[len(data)-1] {
			return errWrongAnswer
		}
		return nil
	}
}

// greet sends a byte and waits until the client hangs up.
func greet(conn net.Conn) {
	b := []byte{'!'}
	if _, err := conn.Write(b); err != nil {
		return
	}
	_, _ = conn.Read(b) // EOF or a reset: it is over either way
}

// visit opens a connection, waits for the server's byte, so that it was accepted, and closes it.
func visit(dial dial) op {
	b := make([]byte, 1)
	return func(ctx context.Context) error {
		conn, err := dial(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		b[0] = 0
		if _, err := io.ReadFull(conn, b); err != nil {
			return err
		}
		if b[0] != '!' {
			return errWrongAnswer
		}
		return nil
	}
}

// idle measures the bytes that an established connection holds, both ends together, after a message
// has gone each way. What the system holds for sockets is not seen.
func idle(conns int) []contender {
	var all []contender
	for _, n := range append([]network{wattPipe()}, otherNetworks()...) {
		count := conns
		if !n.inMemory {
			count = (conns + 3) / 4 // descriptors are scarcer than memory
		}
		measure := func(ctx context.Context, _ time.Duration) (sample, error) {
			bytes, err := idleBytes(ctx, n, count)
			return sample{value: bytes / float64(count), allocs: math.NaN()}, err
		}
		start := func(context.Context) (session, error) { return session{measure, func() {}}, nil }
		all = append(all, contender{name: n.name, inMemory: n.inMemory, start: start})
	}
	return all
}

func idleBytes(ctx context.Context, n network, count int) (float64, error) {
	before := memory()
	ln, dial, err := n.listen(ctx)
	if err != nil {
		return 0, err
	}
	accepted := make([]net.Conn, 0, count)
	var server sync.WaitGroup
	server.Go(func() {
		message := make([]byte, idleSize)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			accepted = append(accepted, conn)
			if _, err := io.ReadFull(conn, message); err == nil {
				_, _ = conn.Write(message) // the client sees it if that fails
			}
		}
	})
	dialled := make([]net.Conn, 0, count)
	defer func() {
		_ = ln.Close()
		hangUp(dialled)
		server.Wait()
		hangUp(accepted)
	}()
	for range count {
		conn, err := dial(ctx)
		if err != nil {
			return 0, err
		}
		dialled = append(dialled, conn)
		message := make([]byte, idleSize)
		if _, err := conn.Write(message); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(conn, message); err != nil {
			return 0, err
		}
	}
	return memory() - before, nil
}

func hangUp(conns []net.Conn) {
	for _, conn := range conns {
		_ = conn.Close()
	}
}
