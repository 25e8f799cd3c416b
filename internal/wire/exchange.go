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
	"os"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/org/watt/internal/roundtrip"
)

// inlineBody is the longest body, in bytes, that is written before the answer is read. The connection takes it
// whole even if nobody reads, so that this cannot wait for the server.
const inlineBody = 16 << 10

// exchange is one request and its answer on a connection. It is the body of the answer.
//
// The connection can be kept once the request is written (wrote) and the answer read (finish). Whichever comes
// last releases it.
type exchange struct {
	pool   *Pool
	c      *conn
	req    *http.Request
	trace  *httptrace.ClientTrace
	stop   func() bool   // ends the watch over the context; reports false if the context has ended the connection
	body   *requestBody  // written beside the reading; nil if there is none, or it was written before
	answer io.ReadCloser // the answer's body as it comes from the connection
	sized  sizedBody     // that, if its length is known
	toEnd  bool          // the answer ends where the connection does
	lost   bool          // the connection has ended without a byte of the answer
	ending roundtrip.Ending

	mu      sync.Mutex
	keep    bool        // both sides are willing to use the connection again
	written bool        // nobody writes any more
	cut     bool        // what was written is not the whole request
	fault   error       // why the request could not be sent, if it is its own fault
	late    *time.Timer // runs once the answer was read and the request is not out
	over    bool        // the connection is kept or closed; it is no longer this exchange's
}

// roundTrip sends the request and reads the head of the answer.
func (x *exchange) roundTrip(ctx context.Context) (*http.Response, error) {
	taken := false
	defer func() {
		if !taken { // for an error, or a panic of the caller's trace
			x.finish(false)
		}
	}()
	x.stop = context.AfterFunc(ctx, x.c.hangUp)
	x.gotConn()
	x.c.begin()
	x.send(ctx)
	resp, err := x.receive()
	if err == nil && ctx.Err() == nil { // a server that sees the end too may have answered because of it
		taken = true
		return resp, nil
	}
	err = x.why(ctx, err)
	if x.faultless() {
		x.c.withdraw() // what the server has not read by now, it never will
	}
	return nil, err
}

func (x *exchange) gotConn() {
	if x.trace == nil || x.trace.GotConn == nil {
		return
	}
	info := httptrace.GotConnInfo{Conn: x.c.nc, Reused: x.c.reused, WasIdle: x.c.reused}
	if x.c.reused {
		info.IdleTime = time.Since(x.c.since)
	}
	x.trace.GotConn(info)
}

// send writes the request. A body that may not be written at once is left to a goroutine, which ends
// with the body or with the connection.
func (x *exchange) send(ctx context.Context) {
	req := x.req
	_, memory := roundtrip.InMemory(req.Body)
	if !roundtrip.HasBody(req) || req.ContentLength > 0 && req.ContentLength <= inlineBody &&
		memory && !expectsContinue(req) {
		x.wrote(x.write(req))
		return
	}
	out := req.WithContext(ctx)
	roundtrip.ChunkTrailed(out)
	x.body = newRequestBody(out, x.trace, x.pool.ErrorLog)
	address := *req.URL // the caller may change req as soon as an error is returned
	out.URL, out.Header, out.Body, out.Trailer = &address, req.Header.Clone(), x.body, x.body.sent
	go x.writeAlone(out)
}

// writeAlone writes the request in a goroutine of its own, where nobody else can deal with what the body and the caller's
// trace do to that.
func (x *exchange) writeAlone(req *http.Request) {
	returned, err := false, roundtrip.ErrEnded
	defer func() { x.wrote(err) }()
	defer func() {
		if reason := recover(); reason != nil {
			err = roundtrip.Panicked("the request's trace", reason, x.pool.ErrorLog)
		}
		if !returned { // then Request.Write has not closed it
			_ = x.body.Close()
		}
	}()
	err = x.write(req)
	returned = true
}

func (x *exchange) write(req *http.Request) error {
	if !x.writePlain(req) {
		if err := req.Write(x.c.bw); err != nil {
			return err
		}
	}
	return x.c.bw.Flush()
}

// await waits for the first byte of the answer.
func (x *exchange) await() error {
	if _, err := x.c.br.Peek(1); err != nil {
		x.lost = x.c.limit == roundtrip.MaxHeader && !errors.Is(err, os.ErrDeadlineExceeded)
		if x.lost && x.c.reused {
			return fmt.Errorf("%w: %w", errStale, err)
		}
		return x.c.malformed(err)
	}
	if x.trace != nil && x.trace.GotFirstResponseByte != nil {
		x.trace.GotFirstResponseByte()
	}
	return nil
}

// receive reads the head of the answer, and of informational ones before it.
func (x *exchange) receive() (*http.Response, error) {
	if err := x.await(); err != nil {
		return nil, err
	}
	if resp := x.parsePlain(); resp != nil {
		x.answered(resp)
		return resp, nil
	}
	for {
		resp, err := http.ReadResponse(x.c.br, x.req)
		if err != nil {
			return nil, x.c.malformed(err)
		}
		if resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols {
			x.answered(resp)
			return resp, nil
		}
		if err := x.informational(resp); err != nil {
			return nil, err
		}
	}
}

func (x *exchange) informational(resp *http.Response) error {
	asked := resp.StatusCode == http.StatusContinue && x.body.proceed(true)
	if x.trace == nil {
		return nil
	}
	if asked && x.trace.Got100Continue != nil {
		x.trace.Got100Continue()
	}
	if x.trace.Got1xxResponse == nil {
		return nil
	}
	x.c.limit = roundtrip.MaxHeader // who sees each of them can tell when it is too many
	return x.trace.Got1xxResponse(resp.StatusCode, textproto.MIMEHeader(resp.Header))
}

// answered makes resp ready for the caller.
func (x *exchange) answered(resp *http.Response) {
	keep := !resp.Close && !x.req.Close && resp.StatusCode >= http.StatusOK
	x.body.proceed(!resp.Close && !x.req.Close) // a server that keeps the connection waits for the body, even if it has refused it
	x.c.limit = math.MaxInt64
	if switched(resp) {
		x.stop() // if that comes too late, roundTrip sees why
		resp.Body = &upgraded{x}
		return
	}
	x.mu.Lock()
	x.keep = keep
	x.mu.Unlock()
	if resp.Body == http.NoBody {
		x.finish(true)
		return
	}
	x.answer, x.toEnd = resp.Body, resp.ContentLength < 0 && len(resp.TransferEncoding) == 0
	resp.Body = x
}

// switched reports whether the connection speaks another protocol from now on.
func switched(resp *http.Response) bool {
	return resp.StatusCode == http.StatusSwitchingProtocols && resp.Header.Get("Upgrade") != "" &&
		httpguts.HeaderValuesContainsToken(resp.Header["Connection"], "upgrade")
}
