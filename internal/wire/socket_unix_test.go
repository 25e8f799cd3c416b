//go:build unix

package wire_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/watt/internal/control"
	"github.com/org/watt/internal/wire"
)

// sockets serves the socket pairs that its pool dials with servers, in order.
func sockets(t *testing.T, servers ...func(net.Conn)) *wire.Pool {
	t.Helper()
	var running sync.WaitGroup
	pool := &wire.Pool{Dial: func(context.Context) (net.Conn, error) {
		near, far, err := control.Files()
		if err != nil {
			return nil, err
		}
		server, err := control.ConnOf(far)
		if err != nil {
			return nil, err
		}
		serve := servers[0]
		servers = servers[1:]
		running.Go(func() { serve(server) })
		return control.ConnOf(near)
	}}
	t.Cleanup(func() { pool.Close(); running.Wait() })
	return pool
}

func TestASocketThatHasEndedIsNotUsed(t *testing.T) {
	for name, then := range endings() {
		t.Run(name, func(t *testing.T) {
			idle, ended := make(chan struct{}), make(chan struct{})
			pool := sockets(t, func(conn net.Conn) {
				http.ReadRequest(bufio.NewReader(conn))
				io.WriteString(conn, ok)
				<-idle
				then(conn)
				close(ended)
				silent(t)(conn)
			}, respond(ok))
			readBack(t, pool, request(t, t.Context(), http.MethodGet, nil))
			close(idle)
			<-ended
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			req := request(t, ctx, http.MethodPost, track(strings.NewReader("cannot be read twice")))
			if got := readBack(t, pool, req); got != "ok" {
				t.Errorf("got %q", got)
			}
		})
	}
}
