package watt

import (
	"errors"
	"net"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// acceptAll gives take each connection that ln gets, until ln is closed, or stop while it waits.
func acceptAll(ln net.Listener, stop <-chan struct{}, log *zap.Logger, take func(net.Conn)) {
	for pause := time.Duration(0); ; {
		if conn, err := ln.Accept(); err == nil {
			pause = 0
			take(conn)
		} else if !acceptAgain(err, &pause, stop, log) {
			return
		}
	}
}

// acceptAgain waits after an error of Accept, longer than the last pause, as net/http does: the process is out of
// descriptors, most likely, and some have to be closed. It reports whether to go on: not if the listener is closed, as
// when it is removed, or stop meanwhile.
func acceptAgain(err error, pause *time.Duration, stop <-chan struct{}, log *zap.Logger) bool {
	if listenerEnded(err) {
		return false
	}
	*pause = min(max(2**pause, 5*time.Millisecond), time.Second)
	log.Warn("accept failed", zap.Error(err), zap.Duration("again in", *pause))
	select {
	case <-time.After(*pause):
		return true
	case <-stop:
		return false
	}
}

// listenerEnded reports whether an error of Accept says that the listener was closed, or shut down.
func listenerEnded(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EINVAL)
}

// toldListener warns of errors of Accept: net/http, which tries again, mentions them among what strangers do wrong.
type toldListener struct {
	net.Listener
	log *zap.Logger
}

// Accept is the listener's.
func (l toldListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil && !listenerEnded(err) {
		l.log.Warn("accept failed", zap.Error(err))
	}
	return conn, err
}
