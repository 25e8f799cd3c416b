package watt

import (
	"net"
	"syscall"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// short is a port of a process that is out of descriptors for a while.
type short struct {
	net.Listener
	answers chan error
}

func (s *short) Accept() (net.Conn, error) {
	if err := <-s.answers; err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	return near, far.Close()
}

func (s *short) Addr() net.Addr { return nil }
func (s *short) Close() error   { return nil }

func TestAnInletGoesOnAfterAWantOfDescriptorsAndWithoutItsPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.WarnLevel)
		port := &short{answers: make(chan error, 4)}
		for _, err := range []error{syscall.EMFILE, syscall.EMFILE, nil, net.ErrClosed} {
			port.answers <- err
		}
		in := newInlet(port)
		go in.run(zap.New(core))
		conn, err := in.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		synctest.Wait() // until the port is closed, with which the parent still has a connection
		near, far := net.Pipe()
		defer far.Close()
		in.put(near)
		if conn, err = in.Accept(); conn != near || err != nil {
			t.Errorf("got %v, %v", conn, err)
		}
		near.Close()
		in.Close()
		if _, err := in.Accept(); err == nil {
			t.Error("got a connection of an inlet that is closed")
		}
		if got := logs.FilterMessage("accept failed").Len(); got != 1 {
			t.Errorf("got %d lines, want 1: they came within a second", got)
		}
	})
}
