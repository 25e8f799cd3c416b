package watt

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Before the first byte of an answer of HTTP/1 goes out, net/http reads what the handler has left of the request's
// body, so that the connection can be used again: as far as that makes sense, but for as long as it takes. An intake
// does so ahead of it, in bounded time, and has the connection closed where the rest does not come.
const (
	maxUnread      = 256 << 10             // what is read, in bytes; net/http has the same limit
	unreadTime     = time.Second           // for what nobody wants to arrive
	unreadInDuplex = 50 * time.Millisecond // the same, where the answer does not depend on it
	heldBack       = 2 << 10               // how much of an answer net/http keeps before its head goes out
)

// intake is the body of a request that has come over a connection of HTTP/1. As a nil pointer it is one that has not.
// Its methods about the answer are for the handler's goroutine.
type intake struct {
	request  http.Request // as the handler has it; what the server keeps must stay as it is
	body     io.ReadCloser
	writer   http.ResponseWriter // the server's
	expects  bool                // the client waits until it is asked for the body
	client   *timedWriter        // to that client, until it is asked; else nil
	duplex   bool                // the answer does not wait for it
	declined bool                // nothing more of it is wanted
	settled  bool                // the rest was read, or the connection is closed after the answer: the head may go out

	closed  atomic.Bool
	trailer http.Header // of a stranger's request, to be cleaned when it has come

	mu      sync.Mutex
	got     int64       // bytes
	fault   error       // the client's, which has sent what is no body
	grace   *time.Timer // ends the request's context when nothing else can any more
	idle    sync.Cond   // nobody reads any more
	reading bool
	ctx     *requestContext // the request's, once there is one
	rest    rest
}

// rest is what becomes of that part of a body which is still on the connection.
type rest int8

const (
	restUnread rest = iota // the handler reads it, or may, also once the head of the answer is out
	restTaken              // there is none: the connection is used again; or that was hijacked, and is the handler's
	restStruck             // nobody reads it any more: its time is up, or the handler has returned
)

// receive returns the intake of a request, or nil if it needs none.
func receive(w http.ResponseWriter, r *http.Request) *intake {
	if _, http1 := w.(http.Hijacker); !http1 || r.Body == http.NoBody {
		return nil
	}
	b := &intake{request: *r, body: r.Body, writer: w, expects: r.Header["Expect"] != nil}
	b.request.Body, b.idle.L = b, &b.mu
	return b
}

// setClient notes the writer to the client, which is used when the client is asked for the body.
func (b *intake) setClient(t *timedWriter) {
	if b != nil && b.expects {
		b.client = t
	}
}

// serves ties the intake to the context of its request.
func (b *intake) serves(ctx *requestContext) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ctx = ctx
}

// begin waits until nobody else reads.
func (b *intake) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.reading {
		b.idle.Wait()
	}
	b.reading = true
}

func (b *intake) finish() {
	b.mu.Lock()
	b.reading = false
	b.mu.Unlock()
	b.idle.Signal()
}

// Read implements [io.Reader].
func (b *intake) Read(p []byte) (int, error) {
	b.begin()
	defer b.finish()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.read(p)
	b.count(n)
	switch {
	case err == io.EOF: //nolint:errorlint // Read returns it bare
		b.end()
	case err != nil && !lost(err) && !ended(err):
		b.mu.Lock()
		b.fault = err
		b.mu.Unlock()
	}
	return n, err
}

// malformed reports whether err says that the body is none.
func (b *intake) malformed(err error) bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fault != nil && errors.Is(err, b.fault)
}

// read reads from the server, which asks for the body first where the client waits for that.
func (b *intake) read(p []byte) (int, error) {
	if c := b.client; c != nil {
		b.client = nil
		c.begin()
		defer c.end()
	}
	return b.body.Read(p)
}

func (b *intake) count(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got += int64(n)
}

// tooLong reports whether so much is left that nobody reads it for the connection's sake.
func (b *intake) tooLong() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.request.ContentLength >= 0 && b.request.ContentLength-b.got >= maxUnread
}

// Close ends the reading. It does not wait for the rest, as net/http does: the answer will.
func (b *intake) Close() error {
	b.closed.Store(true)
	return nil
}

// end notes that nothing of the body is left on the connection. While nobody else reads, since the server would fill them, it
// cleans the trailers; from then on they belong to whoever has read the body.
func (b *intake) end() {
	dropTrailers(b.trailer)
	b.trailer = nil
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rest == restUnread { // else the server's context has ended, which the next request would have
		b.rest = restTaken
	}
}

// hijacked notes that the connection is no longer the server's.
func (b *intake) hijacked() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest = restTaken
}

// left reports whether there may be more on the connection.
func (b *intake) left() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rest != restTaken
}

// blind reports whether the server can no longer tell when the client goes: it takes a body that is struck for the end of it.
func (b *intake) blind() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rest == restStruck
}

// strike ends all reading. For the server that is the end of the client, and of its context; the request's goes on, until
// nothing was written for a while: nobody sees any more when the client goes.
func (b *intake) strike() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rest != restUnread {
		return
	}
	b.rest = restStruck
	if b.ctx != nil {
		b.ctx.detach()
		b.grace = time.AfterFunc(stallTime, func() { b.ctx.cancel(context.Canceled) })
	}
	_ = http.NewResponseController(b.writer).SetReadDeadline(time.Unix(1, 0)) // long ago
}

// wrote is called when some of the answer has gone out: the client was still there.
func (b *intake) wrote() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.grace != nil {
		b.grace.Reset(stallTime)
	}
}

// decline leaves the rest where it is: the answer is to be told at once.
func (b *intake) decline() {
	if b != nil {
		b.declined = true
	}
}

// halfDuplex has the answer wait for the rest again, whatever the server does.
func (b *intake) halfDuplex() {
	if b != nil {
		b.duplex = false
	}
}

// begins is called before the status is said: a client is not promised a connection that may not be kept, as with
// HTTP/1.0, nor one that will not be. Without duplex, that is for settle to find out.
func (b *intake) begins(h http.Header) {
	if b.left() && (!b.request.ProtoAtLeast(1, 1) || b.declined && b.duplex) {
		h.Set("Connection", "close")
	}
}

// settle is called before the head of the answer goes out: the body is read to its end, or the connection closed
// after the answer.
func (b *intake) settle() {
	if b == nil || b.settled || b.duplex {
		return
	}
	b.settleWithin(unreadTime)
}

func (b *intake) settleWithin(limit time.Duration) {
	b.settled = true
	if b.left() && (!b.worthwhile() || !b.discard(limit)) {
		closeAfter(b.writer)
	}
}

// worthwhile reports whether to read the rest for the connection's sake. It does so only where net/http would: a
// handler may go on reading where the connection is closed anyway.
func (b *intake) worthwhile() bool {
	return !b.declined && !b.expects && !b.request.Close && b.request.ProtoAtLeast(1, 1) &&
		first(b.writer.Header(), "Connection") != "close"
}

// discard reads the rest, and reports whether it has come to the end in time.
func (b *intake) discard(limit time.Duration) bool {
	if b.tooLong() {
		return false
	}
	defer time.AfterFunc(limit, b.strike).Stop()
	b.begin()
	defer b.finish()
	if b.tooLong() {
		return false
	}
	if _, err := io.CopyN(io.Discard, b.body, maxUnread+1); err != io.EOF { //nolint:errorlint // CopyN returns it bare
		return false
	}
	_ = b.body.Close() // who reads on must not take that for the end
	b.end()
	return !b.left()
}

// leave is called when the handler has returned. From then on nobody waits for the body.
func (b *intake) leave() {
	if !b.settled {
		limit := unreadTime
		if b.duplex {
			limit = unreadInDuplex
		}
		b.settleWithin(limit)
	}
	b.closed.Store(true)
	b.strike()
	b.begin() // once nobody reads it
	b.finish()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.grace != nil {
		b.grace.Stop()
	}
}

// closeAfter has the server close the connection after the answer, and say so if it still can. Neither before nor
// after it is then anything read. The server's writer, which w may wrap, has a method for that, which only
// [http.MaxBytesReader] can call.
func closeAfter(w http.ResponseWriter) {
	for {
		outer, wraps := w.(interface{ Unwrap() http.ResponseWriter })
		if !wraps {
			break
		}
		w = outer.Unwrap()
	}
	tooLarge := http.MaxBytesReader(w, io.NopCloser(strings.NewReader(" ")), 0)
	_, _ = tooLarge.Read(make([]byte, 1))
}
