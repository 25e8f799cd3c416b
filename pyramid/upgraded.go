package pyramid

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// linger is how long the client of a WebSocket may take to close its end when the app has closed the other.
const linger = 5 * time.Second

var errLingers = errors.New("pyramid: the client does not close its end")

// upgraded is the app's end of an upgraded connection. Once that has ended, ReverseProxy waits for the client to end
// its own for as long as it likes, drain or not: what ends the wait is an error of WriteTo.
type upgraded struct {
	io.ReadWriteCloser
	ctx       context.Context //nolint:containedctx // the request's
	websocket bool
	once      sync.Once
	done      chan struct{} // closed when the client has said all, or nobody waits any more
	err       error         // net.ErrClosed if it is the latter; read after done
}

// newUpgraded returns the body of a 101 answer, as ReverseProxy is to have it. It ends with ctx, the request's.
func newUpgraded(ctx context.Context, resp *http.Response) io.ReadCloser {
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		return resp.Body
	}
	u := &upgraded{
		ReadWriteCloser: conn, ctx: ctx, done: make(chan struct{}),
		websocket: strings.EqualFold(resp.Header.Get("Upgrade"), "websocket"),
	}
	context.AfterFunc(ctx, func() { _ = u.Close() }) // which ReverseProxy forgets if it cannot pass the connection on
	return u
}

// WriteTo passes on what the app says, until the request's context ends, whether or not the client reads. Then it ends that
// direction of the client's, and waits for the other.
func (u *upgraded) WriteTo(client io.Writer) (int64, error) {
	if conn, ok := client.(net.Conn); ok {
		defer context.AfterFunc(u.ctx, func() { _ = conn.SetWriteDeadline(time.Unix(1, 0)) })() // long ago
	}
	n, err := io.Copy(client, struct{ io.Reader }{u.ReadWriteCloser})
	half, ok := client.(interface{ CloseWrite() error })
	if err != nil || !ok {
		return n, err
	}
	if err := half.CloseWrite(); err != nil {
		return n, err
	}
	var late <-chan time.Time
	if u.websocket { // to which half a connection is none
		late = time.After(linger)
	}
	select {
	case <-u.done:
		return n, u.err
	case <-late:
		return n, errLingers
	}
}

// CloseWrite tells the app that the client has said all.
func (u *upgraded) CloseWrite() error {
	u.end(nil)
	if half, ok := u.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return u.ReadWriteCloser.Close()
}

// Close ends both directions.
func (u *upgraded) Close() error {
	u.end(net.ErrClosed)
	return u.ReadWriteCloser.Close()
}

// end ends the wait for the client. Only its first call counts.
func (u *upgraded) end(err error) {
	u.once.Do(func() {
		u.err = err
		close(u.done)
	})
}
