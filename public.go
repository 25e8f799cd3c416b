package watt

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// What strangers may do to a public door. The library's limits are on by default; App's fields
// bound the rest.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	maxStreams        = 250 // of one HTTP/2 connection

	// lameDuckTime is how long idle connections stay open after the drain began, so that a request
	// that is already on its way still gets an answer, and with it the news.
	lameDuckTime = 100 * time.Millisecond
	// emptyTime is how long listeners that are about to close stay open for those who wait there to be accepted.
	emptyTime = 100 * time.Millisecond
	// silentTime is how long a connection that has not sent anything yet may keep the drain waiting.
	silentTime = 500 * time.Millisecond
)

// publicServer serves strangers.
type publicServer struct {
	app      *app
	server   *http.Server
	listener net.Listener
	trusts   bool        // clients with a verified certificate
	lame     atomic.Bool // every answer tells the client to go away
	serving  atomic.Bool
	accepted *atomic.Int64
	served   chan struct{} // closed when nothing is accepted any more

	mu     sync.Mutex
	states map[net.Conn]http.ConnState
}

// newPublicServer returns the public side of an app, which counts in accepted.
func newPublicServer(a *app, config *App, handler http.Handler, listener net.Listener, accepted *atomic.Int64) *publicServer {
	s := &publicServer{app: a, listener: listener, accepted: accepted, served: make(chan struct{}), states: make(map[net.Conn]http.ConnState)}
	s.server = newPublicHTTP(config, handler, a.log)
	s.server.ConnState = s.note
	s.server.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, peerKey{}, &peer{public: s})
	}
	s.trusts = config.TLS != nil && config.TLS.ClientAuth == tls.RequireAndVerifyClientCert
	return s
}

// newPublicHTTP returns a server for strangers.
func newPublicHTTP(config *App, handler http.Handler, log *zap.Logger) *http.Server {
	errorLog, _ := zap.NewStdLogAt(log, zap.DebugLevel) // strangers' broken handshakes are no news
	return &http.Server{
		Handler:           handler,
		Protocols:         config.Protocols,
		TLSConfig:         config.TLS.Clone(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: stallTime, WriteByteTimeout: stallTime},
		ErrorLog:          errorLog,
	}
}

// serveHTTP serves what the listener gets, by TLS if the server is configured for it.
func serveHTTP(server *http.Server, ln net.Listener) error {
	if server.TLSConfig != nil {
		return server.ServeTLS(ln, "", "")
	}
	return server.Serve(ln)
}

func (s *publicServer) serve() error {
	s.serving.Store(true)
	defer close(s.served)
	return serveHTTP(s.server, toldListener{s.listener, newTrouble(s.app.log)})
}

// note remembers what each connection is doing.
func (s *publicServer) note(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateNew {
		s.accepted.Add(1)
	}
	if state == http.StateClosed || state == http.StateHijacked {
		delete(s.states, conn)
		return
	}
	s.states[conn] = state
}

// count returns how many connections are open, serve a request, and have not sent anything yet.
func (s *publicServer) count() (open, active, silent int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, state := range s.states {
		switch state { //nolint:exhaustive // the others are not kept, or only counted as open
		case http.StateActive:
			active++
		case http.StateNew:
			silent++
		}
	}
	return len(s.states), active, silent
}

// quiet lets clients go: it tells each with its next answer to leave, then stops accepting, and waits
// until no request is in progress. [http.Server.Shutdown] alone would drop what it reads from then on,
// also on connections that it has only just accepted. It returns early when ctx ends.
func (s *publicServer) quiet(ctx context.Context) {
	s.lame.Store(true)
	began := time.Now()
	wait(ctx, func() bool {
		open, _, _ := s.count()
		return open == 0 || time.Since(began) >= lameDuckTime
	})
	s.app.empty(ctx, s.listener) // those who were told to go come again
	_ = s.listener.Close()
	if s.serving.Load() {
		<-s.served // or a connection might not be counted yet
	}
	closed := time.Now()
	wait(ctx, func() bool {
		_, active, silent := s.count()
		return active == 0 && (silent == 0 || time.Since(closed) >= silentTime)
	})
	s.closeSilent()
	if ctx.Err() == nil {
		_ = s.server.Shutdown(ctx)
	}
}

// closeSilent closes the connections that have not sent anything yet, for which
// [http.Server.Shutdown] would wait 5 s.
func (s *publicServer) closeSilent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn, state := range s.states {
		if state == http.StateNew {
			_ = conn.Close()
		}
	}
}

// wait returns when done says so, or ctx ends.
func wait(ctx context.Context, done func() bool) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// close ends what quiet has left over.
func (s *publicServer) close(ctx context.Context) {
	_ = s.listener.Close() // also where serve has not got to it yet
	if s.server.Shutdown(ctx) != nil {
		_ = s.server.Close()
	}
}

// clean makes the request of a stranger harmless, or answers it and returns nil. A peer whose
// certificate was verified is taken at its word.
func (s *publicServer) clean(w http.ResponseWriter, r *http.Request, p *peer) *peer {
	if r.Method == http.MethodConnect {
		w.Header().Set("Connection", "close")
		http.Error(w, "CONNECT is refused", http.StatusMethodNotAllowed)
		return nil
	}
	if s.trusts && r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		known := &peer{public: s, trusted: true}
		if names := r.TLS.PeerCertificates[0].DNSNames; len(names) > 0 {
			known.caller = names[0]
		}
		return known
	}
	if _, mesh := AppOf(r.Host); mesh { // the target's host has become this one
		http.Error(w, http.StatusText(http.StatusMisdirectedRequest), http.StatusMisdirectedRequest)
		return nil
	}
	cleanHeaders(r.Header)
	cleanTrailers(r)
	return p
}
