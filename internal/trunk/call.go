package trunk

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/roundtrip"
)

// call is one request and its answer, on the caller's side.
type call struct {
	conn *conn
	id   uint64
	req  *http.Request
	wake chan struct{} // has an element when there is something new

	began bool // the caller's trace was told of the answer's first byte

	mu      sync.Mutex
	informs []inform // of which the caller's trace has yet to be told
	size    int      // of them, in bytes
	head    head     // of the answer; empty until that is there
	err     error    // why there is none, or no more of it

	body    body         // of the answer, as the caller reads it
	held    pipe.Held    // a body that has come whole
	in      *inflow      // of a body that comes in parts
	room    atomic.Int64 // how much of it the callee has credit for, in bytes
	trailer http.Header  // what has come after it
}

// inform is an informational answer.
type inform struct {
	status int
	header http.Header
}

// roundTrip sends the request and waits for the head of the answer.
func (x *call) roundTrip(ctx context.Context, by time.Time) (*http.Response, error) {
	taken := false
	defer func() {
		if !taken {
			x.giveUp()
		}
	}()
	trace := httptrace.ContextClientTrace(ctx)
	x.got(trace)
	sent, err := x.send()
	if err != nil {
		x.conn.remove(x) // of which the callee does not know
		return nil, err
	}
	x.wrote(trace)
	if err := x.wait(ctx, by, trace); err != nil {
		if x.conn.out.lost(sent) {
			err = roundtrip.NotSent(err)
		}
		return nil, err
	}
	resp, err := x.head.response(x.req)
	if err != nil {
		_ = x.conn.nc.Close()
		return nil, err
	}
	x.gotFirstByte(trace)
	if taken = true; !x.head.whole() || len(x.held.Bytes()) > 0 {
		x.body.begin(ctx, x, resp)
		resp.Body = &x.body
	}
	return resp, nil
}

// send sends the request. It returns what writer.send does.
func (x *call) send() (sent uint64, err error) {
	x.conn.out.framed(func(b []byte) []byte {
		b, err = appendRequest(b, x.id, x.req)
		return b
	}, func(b []byte) {
		if err != nil {
			return
		}
		if sent, err = x.conn.out.send(b); err != nil {
			err = roundtrip.NotSent(err)
		}
	})
	return sent, err
}

func (x *call) got(trace *httptrace.ClientTrace) {
	if trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Conn: x.conn.nc, Reused: x.id > 1})
	}
}

func (x *call) wrote(trace *httptrace.ClientTrace) {
	if trace == nil {
		return
	}
	if trace.WroteHeaders != nil {
		trace.WroteHeaders()
	}
	if trace.WroteRequest != nil {
		trace.WroteRequest(httptrace.WroteRequestInfo{})
	}
}

// wait returns nil when there is an answer, or why there is none.
func (x *call) wait(ctx context.Context, by time.Time, trace *httptrace.ClientTrace) error {
	var due <-chan time.Time
	if !by.IsZero() {
		timer := x.conn.client.Timers.Start(time.Until(by))
		defer x.conn.client.Timers.Stop(timer)
		due = timer.C
	}
	for {
		select {
		case <-x.wake:
			if there, err := x.news(trace); there || err != nil {
				return err
			}
		case <-due:
			return context.DeadlineExceeded
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// news tells the trace what there is to tell, and reports whether there is an answer.
func (x *call) news(trace *httptrace.ClientTrace) (there bool, err error) {
	x.mu.Lock()
	informs := x.informs
	x.informs, x.size, there, err = nil, 0, x.head != "", x.err
	x.mu.Unlock()
	for _, i := range informs { // there are only some for a trace that wants them
		x.gotFirstByte(trace)
		if err := trace.Got1xxResponse(i.status, textproto.MIMEHeader(i.header)); err != nil {
			return false, err
		}
	}
	if there {
		return true, nil
	}
	return false, err
}

// gotFirstByte tells the trace, once, that there is something of the answer.
func (x *call) gotFirstByte(trace *httptrace.ClientTrace) {
	if !x.began && trace != nil && trace.GotFirstResponseByte != nil {
		trace.GotFirstResponseByte()
	}
	x.began = true
}

// giveUp ends the call early, and tells the callee.
func (x *call) giveUp() {
	if x.conn.remove(x) {
		x.conn.out.tell(short(kindGone, x.id))
	}
}

// failed returns why there is no more of the answer.
func (x *call) failed() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// What follows is called by the goroutine that reads from the connection.

// signal has the caller look for news.
func (x *call) signal() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

func (x *call) informed(p []byte) error {
	s := scanner{s: string(p)}
	i := inform{status: int(s.number()), header: s.header()}
	x.mu.Lock()
	if s.bad || x.head != "" || !informs(x.req) {
		x.mu.Unlock()
		return ErrMalformed
	}
	if x.size += len(p); x.size > roundtrip.MaxHeader {
		x.mu.Unlock()
		x.giveUp()
		x.fail(roundtrip.ErrHeaderTooLong)
		return nil
	}
	x.informs = append(x.informs, i)
	x.mu.Unlock()
	x.signal()
	return nil
}

func (x *call) answered(p []byte) error {
	h, body, err := readAnswer(p)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.head != "" {
		return ErrMalformed
	}
	if h.whole() {
		x.held.Copy(x.conn.client.Buffers, body)
		x.conn.remove(x)
	} else {
		x.in = newInflow(x.conn.client.Buffers)
		x.room.Store(window)
	}
	x.head = h
	x.signal()
	return nil
}

// take takes a part of the body. There is room for as much as the callee has credit for.
func (x *call) take(f frame, r *bufio.Reader) error {
	if x.in == nil || x.room.Add(-int64(f.length)) < 0 {
		return ErrMalformed
	}
	return x.in.add(r, f.length)
}

func (x *call) ended(p []byte) error {
	s := scanner{s: string(p)}
	trailer := s.header()
	if s.bad || x.in == nil {
		return ErrMalformed
	}
	x.conn.remove(x)
	x.mu.Lock()
	x.trailer = trailer
	x.mu.Unlock()
	x.in.end()
	return nil
}

// cut ends what the callee has cut off.
func (x *call) cut(p []byte) {
	x.conn.remove(x)
	err := io.ErrUnexpectedEOF
	if len(p) > 0 {
		err = errors.New(string(p))
	}
	x.fail(err)
}

// fail ends the call, or the body of its answer, with err.
func (x *call) fail(err error) {
	x.mu.Lock()
	if x.err == nil {
		x.err = err
	}
	x.mu.Unlock()
	if x.in != nil {
		x.in.end()
	}
	x.signal()
}
