package watt

import (
	"errors"
	"net"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// acceptAll gives take each connection that ln gets, until ln is closed, or stop while it waits.
func acceptAll(ln net.Listener, stop <-chan struct{}, log *zap.Logger, take func(net.Conn)) {
	for t := newTrouble(log); ; {
		if conn, err := ln.Accept(); err == nil {
			t.over()
			take(conn)
		} else if !t.wait(err, stop) {
			return
		}
	}
}

// trouble is that of one who accepts connections and gets errors: the process is out of descriptors, most likely.
type trouble struct {
	log   *zap.Logger
	told  rate.Sometimes
	pause time.Duration // the last
}

func newTrouble(log *zap.Logger) *trouble {
	return &trouble{log: log, told: rate.Sometimes{Interval: time.Second}}
}

// tell warns of an error, if none has been told for a second. One who accepts a connection whenever another is closed gets
// hundreds.
func (t *trouble) tell(err error) {
	t.told.Do(func() { t.log.Warn("accept failed", zap.Error(err)) })
}

// wait waits after an error until some descriptors may be closed, longer than the last time, as net/http does. It reports
// whether to go on: not if the listener is closed, as when it is removed, or stop meanwhile.
func (t *trouble) wait(err error, stop <-chan struct{}) bool {
	if listenerEnded(err) {
		return false
	}
	t.tell(err)
	t.pause = min(max(2*t.pause, 5*time.Millisecond), time.Second)
	select {
	case <-time.After(t.pause):
		return true
	case <-stop:
		return false
	}
}

// over is called when a connection was accepted.
func (t *trouble) over() { t.pause = 0 }

// listenerEnded reports whether an error of Accept says that the listener was closed, or shut down.
func listenerEnded(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EINVAL)
}

// toldListener warns of errors of Accept: net/http, which tries again, mentions them among what strangers do wrong.
type toldListener struct {
	net.Listener
	trouble *trouble
}

// Accept is the listener's.
func (l toldListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil && !listenerEnded(err) {
		l.trouble.tell(err)
	}
	return conn, err
}
