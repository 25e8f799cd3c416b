package watt

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"go.uber.org/zap"
)

// serveListener is the public side of a Serve app: it hands connections to the instance that has
// fewest, and leaves them to the system's queue while none is ready.
type serveListener struct {
	app      *app
	listener net.Listener
	tls      *tls.Config
	ctx      context.Context //nolint:containedctx // ends the handing over
	cancel   context.CancelFunc
}

func newServeListener(a *app, ln net.Listener) *serveListener {
	s := &serveListener{app: a, listener: ln, tls: a.conf().TLS}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *serveListener) close() {
	s.cancel()
	_ = s.listener.Close()
}

// run accepts until the listener is closed.
func (s *serveListener) run() {
	for pause := time.Duration(0); ; {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
			pause = 0
			s.hand(conn)
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		// Out of descriptors, most likely: wait for some to be closed, as net/http does.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.app.log.Warn("accept failed", zap.Error(err), zap.Duration("again in", pause))
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *serveListener) hand(conn net.Conn) {
	tracked, err := s.app.conns.track(conn)
	if err != nil {
		s.app.sheds.note()
		_ = conn.Close()
		return
	}
	if s.tls != nil {
		tracked = tls.Server(tracked, s.tls)
	}
	if err = s.app.await(s.ctx); err == nil {
		if g := s.app.emptiest(); g != nil && g.deliver(s.ctx, tracked) == nil {
			return
		}
	}
	_ = tracked.Close()
}
