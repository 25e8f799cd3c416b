package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// inlineBody is the longest body, in bytes, that is written before the answer is read. The
	// connection takes it whole even if nobody reads, so that this cannot wait for the server.
	inlineBody = 16 << 10
	// lateBody is how long a body may still be written after the answer was read to its end. Then the
	// connection is closed: the server does not want the rest.
	lateBody = 50 * time.Millisecond
)

// exchange is one request and its answer on a connection. It is the body of the answer.
type exchange struct {
	pool  *Pool
	c     *conn
	req   *http.Request
	trace *httptrace.ClientTrace
	stop  func() bool  // ends the watch over the context; false if that has ended the connection
	body  *requestBody // written beside the reading; nil if there is none, or it was written before

	answer io.ReadCloser // what http.ReadResponse made of the answer's body
	closed atomic.Bool

	mu      sync.Mutex
	written bool        // the request is out, or was given up
	keep    bool        // the connection may serve another request, if nothing goes wrong
	read    bool        // the answer was read to its end
	over    bool        // the connection is kept or closed; it is no longer this exchange's
	late    *time.Timer // ends the wait for the rest of the request's body
}

// roundTrip sends the request and reads the head of the answer.
func (x *exchange) roundTrip() (*http.Response, error) {
	ctx := x.req.Context()
	x.stop = context.AfterFunc(ctx, x.c.close)
	if x.trace != nil && x.trace.GotConn != nil {
		x.trace.GotConn(httptrace.GotConnInfo{Conn: x.c.nc, Reused: x.c.reused, WasIdle: x.c.reused})
	}
	x.c.limit = maxHeader
	x.send()
	resp, err := x.receive()
	if err == nil && ctx.Err() == nil { // a server that sees the end too may have answered because of it
		return resp, nil
	}
	x.finish(false)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if x.body != nil {
		if failed := x.body.failed(); failed != nil {
			err = failed
		}
	}
	return nil, err
}

// send writes the request. A body that may not be written at once is left to a goroutine, which ends
// with the body or with the connection.
func (x *exchange) send() {
	if x.req.Body == nil || x.req.Body == http.NoBody || x.inline() {
		x.wrote(x.write(x.req))
		return
	}
	x.body = newRequestBody(x.req, x.c.bw.Flush)
	out := x.req.WithContext(x.req.Context())
	out.Body = x.body
	go func() { x.wrote(x.write(out)) }()
}

// inline reports whether the body is in memory already, and short.
func (x *exchange) inline() bool {
	return x.req.GetBody != nil && x.req.ContentLength > 0 && x.req.ContentLength <= inlineBody && !expectsContinue(x.req)
}

func expectsContinue(req *http.Request) bool {
	return textproto.TrimString(req.Header.Get("Expect")) == "100-continue"
}

func (x *exchange) write(req *http.Request) error {
	err := req.Write(x.c.bw)
	if err == nil {
		err = x.c.bw.Flush()
	}
	if x.trace != nil && x.trace.WroteRequest != nil {
		x.trace.WroteRequest(httptrace.WroteRequestInfo{Err: err})
	}
	return err
}

// receive reads the head of the answer, and of informational ones before it.
func (x *exchange) receive() (*http.Response, error) {
	if _, err := x.c.br.Peek(1); err != nil {
		if x.c.reused && x.c.limit == maxHeader {
			return nil, fmt.Errorf("%w: %w", errStale, err)
		}
		return nil, noEOF(err)
	}
	if x.trace != nil && x.trace.GotFirstResponseByte != nil {
		x.trace.GotFirstResponseByte()
	}
	for {
		resp, err := http.ReadResponse(x.c.br, x.req)
		if err != nil {
			return nil, noEOF(err)
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			x.answered(resp)
			return resp, nil
		}
		if err := x.informational(resp); err != nil {
			return nil, err
		}
	}
}

// noEOF makes an error of the end of a connection in the middle of an answer.
func noEOF(err error) error {
	if err == io.EOF { //nolint:errorlint // Read returns it bare
		return io.ErrUnexpectedEOF
	}
	return err
}

func (x *exchange) informational(resp *http.Response) error {
	if resp.StatusCode == http.StatusContinue {
		x.body.proceed(true)
		if x.trace != nil && x.trace.Got100Continue != nil {
			x.trace.Got100Continue()
		}
	}
	if x.trace != nil && x.trace.Got1xxResponse != nil {
		return x.trace.Got1xxResponse(resp.StatusCode, textproto.MIMEHeader(resp.Header))
	}
	return nil
}

// answered makes resp ready for the caller.
func (x *exchange) answered(resp *http.Response) {
	x.body.proceed(false)
	x.c.limit = math.MaxInt64
	x.answer = resp.Body
	if resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = &upgraded{x}
		return
	}
	x.mu.Lock()
	x.keep = !resp.Close && !x.req.Close
	x.mu.Unlock()
	if resp.Body == http.NoBody {
		x.finish(true)
		return
	}
	resp.Body = x
}

// Read reads the answer's body. When it has come to the end, the connection is free again.
func (x *exchange) Read(p []byte) (int, error) {
	if x.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := x.answer.Read(p)
	if err == io.EOF { //nolint:errorlint // Read returns it bare
		x.finish(true)
	} else if err != nil {
		err = x.failure(err)
	}
	return n, err
}

// failure ends the exchange, and says why reading has failed.
func (x *exchange) failure(err error) error {
	x.finish(false)
	if x.closed.Load() {
		return http.ErrBodyReadAfterClose
	}
	if ctx := x.req.Context(); ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Close gives up what was not read of the answer, and with it the connection.
func (x *exchange) Close() error {
	x.closed.Store(true)
	x.finish(false)
	return nil
}

// wrote is called when the request is out, or could not be written.
func (x *exchange) wrote(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.written = true
	if err != nil {
		x.keep = false
		// The answer may say why nobody wants the rest. Only a body that could not be read is
		// nobody's fault but the caller's.
		if x.body != nil && x.body.failed() != nil {
			x.c.close()
		}
	}
	if x.read {
		x.releaseLocked()
	}
}

// finish is called when the answer was read to its end, or is given up.
func (x *exchange) finish(whole bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.over || x.read && whole:
	case !whole && !x.read:
		x.keep = false
		x.releaseLocked()
	case !x.written && x.late == nil:
		x.read = true
		x.late = time.AfterFunc(lateBody, x.tooLate)
	case x.written:
		x.read = true
		x.releaseLocked()
	}
}

func (x *exchange) tooLate() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.keep = false
	x.releaseLocked()
}

// releaseLocked keeps the connection for the next request, or closes it.
func (x *exchange) releaseLocked() {
	if x.over {
		return
	}
	x.over = true
	if x.late != nil {
		x.late.Stop()
	}
	if x.stop() && x.keep && x.c.br.Buffered() == 0 {
		x.pool.put(x.c)
		return
	}
	x.c.close()
	if x.body != nil {
		_ = x.body.Close()
	}
}

// upgraded is the connection after 101 Switching Protocols.
type upgraded struct{ x *exchange }

func (u *upgraded) Read(p []byte) (int, error) {
	n, err := u.x.c.br.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // Read returns it bare
		if ctx := u.x.req.Context(); ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	return n, err
}

func (u *upgraded) Write(p []byte) (int, error) { return u.x.c.nc.Write(p) }

// CloseWrite ends this direction alone.
func (u *upgraded) CloseWrite() error {
	if half, ok := u.x.c.nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (u *upgraded) Close() error {
	u.x.finish(false)
	return nil
}
