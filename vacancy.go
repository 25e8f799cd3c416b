package watt

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/watt/internal/pipe"
)

// vacancy answers the public clients of an app in own processes when none of them is there: as a door would, with 503. The
// clients of an app with Serve, whose protocol nobody knows, see the end of their connection.
type vacancy struct {
	place    *processes
	listener *pipe.Listener
	server   *publicServer // nil with Serve

	mu    sync.Mutex
	since time.Time // when no instance was found; zero while there is one
}

func newVacancy(p *processes, config *App) *vacancy {
	a := p.app
	v := &vacancy{place: p, listener: pipe.Listen(&a.rt.buffers, address(a.name))}
	if config.Serve == nil {
		v.server = newPublicServer(a, config, http.HandlerFunc(v.answer), v.listener, new(atomic.Int64))
		a.rt.owned.Go(func() { _ = v.server.serve() })
	}
	return v
}

// until returns until when clients wait for an instance: as long as a request may wait after the first that found none.
func (v *vacancy) until() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.since.IsZero() {
		v.since = time.Now()
	}
	return v.since.Add(v.place.app.conf().longestWait())
}

// over notes that an instance is there.
func (v *vacancy) over() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.since = time.Time{}
}

// refuse answers whoever is at the other end of a connection, which belongs to the vacancy from then on.
func (v *vacancy) refuse(conn net.Conn, why error) {
	v.place.countRefused()
	v.place.app.sheds.note(why)
	if v.server == nil || v.listener.Deliver(context.Background(), conn) != nil {
		_ = conn.Close()
	}
}

// answer answers a request. Nobody waits for its body.
func (v *vacancy) answer(w http.ResponseWriter, r *http.Request) {
	if in := receive(w, r); in != nil {
		defer in.leave()
	}
	a := v.place.app
	err := a.away()
	if err == nil {
		err = ErrUnavailable
	}
	w.Header().Set("Connection", "close") // the next one may find an instance
	WriteError(w, a.rt.mesh.failed(a.name, err))
}

// close answers whoever is there still.
func (v *vacancy) close(ctx context.Context) {
	if v.server != nil {
		wait(ctx, func() bool { return v.listener.Waiting() == 0 })
		v.server.quiet(ctx)
		v.server.close(ctx)
	}
	_ = v.listener.Close()
}
