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
	// silentTime is how long a connection that has not sent anything yet may keep the drain waiting.
	silentTime = 500 * time.Millisecond
)

// publicServer is the public side of a door.
type publicServer struct {
	server   *http.Server
	listener net.Listener
	trusts   bool        // clients with a verified certificate
	lame     atomic.Bool // every answer tells the client to go away

	mu     sync.Mutex
	states map[net.Conn]http.ConnState
}

func newPublicServer(d *door, config *App, listener net.Listener) *publicServer {
	s := &publicServer{listener: listener, states: make(map[net.Conn]http.ConnState)}
	s.server = &http.Server{
		Handler:           d,
		Protocols:         config.Protocols,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: 30 * time.Second, WriteByteTimeout: 30 * time.Second},
		ErrorLog:          zap.NewStdLog(d.app.log.WithOptions(zap.IncreaseLevel(zap.WarnLevel))),
		ConnState:         s.note,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, &peer{public: true})
		},
	}
	if config.TLS != nil {
		s.server.TLSConfig = config.TLS.Clone()
		s.trusts = config.TLS.ClientAuth == tls.RequireAndVerifyClientCert
	}
	return s
}

func (s *publicServer) serve() error {
	if s.server.TLSConfig != nil {
		return s.server.ServeTLS(s.listener, "", "")
	}
	return s.server.Serve(s.listener)
}

// note remembers what each connection is doing.
func (s *publicServer) note(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
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

// quiet lets clients go: it tells each with its next answer to leave, waits until no request is in
// progress, and only then stops accepting. [http.Server.Shutdown] alone would drop requests that it
// has just read. It returns early when ctx ends.
func (s *publicServer) quiet(ctx context.Context) {
	s.lame.Store(true)
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		open, active, silent := s.count()
		passed := time.Since(began)
		if open == 0 || active == 0 && passed >= lameDuckTime && (silent == 0 || passed >= silentTime) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	_ = s.server.Shutdown(ctx)
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
		known := &peer{public: true, trusted: true}
		if names := r.TLS.PeerCertificates[0].DNSNames; len(names) > 0 {
			known.caller = names[0]
		}
		return known
	}
	for _, host := range []string{r.Host, r.URL.Host} {
		if _, mesh := meshName(host); mesh {
			http.Error(w, http.StatusText(http.StatusMisdirectedRequest), http.StatusMisdirectedRequest)
			return nil
		}
	}
	cleanHeaders(r.Header)
	return p
}
