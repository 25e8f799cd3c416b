// Package direct hands requests to a handler of the same process, without a wire in between.
//
// Caller and handler see what net/http's client and server would show them of HTTP/1.1 over a connection:
// the same statuses, headers, lengths, trailers, errors and limits, each side with copies of its own. Only
// what needs a connection is missing: there is none to hijack, to keep or to close, so Connection headers
// are dropped. Like with HTTP/2, a handler may read the request while it answers.
//
// A short answer is handed over whole when the handler has returned. A longer one, or one that was flushed,
// goes through a pipe, and so does a request's body that is not in memory.
//
// Of a [httptrace.ClientTrace] these are called, by the caller's goroutine: WroteHeaders when the handler has the
// request, WroteRequest when its body is sent too, if that is before the answer, GotFirstResponseByte, Got100Continue
// and Got1xxResponse. There is no connection to tell of.
//
// Given and Serve are for a request of another process that has come here as it was made, and not over HTTP.
package direct

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/roundtrip"
	"github.com/org/watt/internal/timers"
)

// Callee answers a request.
type Callee interface {
	// Serve serves r, writing the answer to the Exchange. It may panic with [http.ErrAbortHandler] to cut
	// the answer off; all other panics are its own to deal with.
	Serve(r *http.Request)
	// PeerClosed is told that nobody waits for the answer, or for the rest of it, any more.
	PeerClosed()
}

// Exchange is one request and its answer. It is the [http.ResponseWriter] of the handler, with what
// [http.ResponseController] knows of but Hijack, and the body of the answer for the caller.
// An Exchange is for one RoundTrip, or one Serve.
type Exchange struct {
	// Common must be set.
	*Common

	callee Callee
	caller *http.Request // as the caller made it, who may change it after an error
	toHead bool          // the caller asks for no body
	in     inbound       // its body
	out    outbound      // the answer, as the handler writes it
	body   answerBody    // its body, as the caller reads it
	link   link
	over   atomic.Bool // the handler has returned, and the answer is complete

	settled  atomic.Bool
	ready    chan struct{}               // closed when there is an answer, or never will be
	answered func(*http.Response, error) // called instead of that; nil if somebody waits
	answer   *http.Response
	err      error // why there is none

	listener *listener // nil if there is none
}

// Common is what the exchanges with one app have in common. All of it must be set.
type Common struct {
	// Buffers is where the memory of answers and pipes comes from.
	Buffers *pipe.Buffers
	// Timers is where the timers of calls are kept for the next ones.
	Timers *timers.Pool
	// ErrorLog is told of mistakes in handlers that have no other effect.
	ErrorLog roundtrip.Log

	date  atomic.Pointer[date] // of the latest answer
	heads sync.Pool            // of http.Header, empty: those of answers that were passed on
}

// RoundTrip has callee serve r, which Request has made, and returns as soon as the head of the answer is
// complete, the context of the caller's request has ended (then its cause is the error), or the time by has
// come, unless that is zero ([context.DeadlineExceeded]). Whoever leaves early has the callee told.
//
// As of an [http.RoundTripper], the answer's body must be closed, and the request's body is closed in every
// case, perhaps after RoundTrip has returned. The end of the caller's context ends the reading of the answer too.
func (x *Exchange) RoundTrip(r *http.Request, by time.Time, callee Callee) (*http.Response, error) {
	x.callee, x.ready = callee, make(chan struct{})
	if trace := httptrace.ContextClientTrace(x.caller.Context()); trace != nil {
		x.listener = &listener{trace: trace, events: make(chan func() error), gone: make(chan struct{})}
		defer close(x.listener.gone)
	}
	taken := false
	defer func() {
		if !taken { // for an error, or a panic of the caller's trace
			x.Abandon()
		}
	}()
	go x.run(r)
	x.handedOver()
	err := x.wait(by)
	if err == nil {
		err = x.err
	}
	if err != nil {
		return nil, err
	}
	x.gotFirstByte()
	taken = true
	if x.answer.Body == http.NoBody {
		x.complete()
	} else {
		x.body.watch()
	}
	return x.answer, nil
}

// Serve has callee serve r, which Request or Given has made, in this goroutine. It is for those who carry the answer
// elsewhere: answered is called once, by the goroutine that serves as soon as the head of the answer is complete, or by any
// with the reason why there is none. When answered returns, the headers are another answer's. inform, if not nil, is called
// with informational answers before that. The end of the context of the caller's request means nothing here; Abandon ends the
// exchange early.
func (x *Exchange) Serve(r *http.Request, callee Callee, answered func(*http.Response, error), inform func(int, http.Header)) {
	x.callee, x.answered = callee, answered
	if inform != nil {
		x.listener = &listener{trace: &httptrace.ClientTrace{Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
			inform(status, http.Header(h))
			return nil
		}}}
	}
	x.serve(r)
}

// Held returns the body of an answer that was handed over whole and has no trailers, and reports false for others. The bytes
// are the caller's until it closes the answer's body.
func (x *Exchange) Held() (body []byte, ok bool) {
	switch {
	case x.answer.Body == http.NoBody:
		return []byte{}, x.answer.Trailer == nil
	case x.body.pipe != nil, x.body.trailer != nil:
		return nil, false
	}
	body = x.body.held.Bytes()
	return body, x.body.left < 0 || x.body.left == int64(len(body))
}

// run is serve in a goroutine of its own.
func (x *Exchange) run(r *http.Request) {
	MakeRoom()
	x.serve(r)
}

// complete is called when the caller has all of the answer. If it is still sending its body, that may go on for a moment, as
// on a wire; then the handler reads no more of it.
func (x *Exchange) complete() {
	if !x.in.open() {
		return
	}
	time.AfterFunc(roundtrip.LateBody, func() {
		if x.in.open() {
			x.in.end(io.ErrUnexpectedEOF)
			x.link.closeNear()
		}
	})
}

// settle gives the caller its answer, or the reason why there is none. Only the first call counts.
func (x *Exchange) settle(answer *http.Response, err error) {
	if x.settled.CompareAndSwap(false, true) {
		x.answer, x.err = answer, err
		if x.answered != nil {
			x.answered(answer, err)
			if err != nil {
				x.Abandon() // as RoundTrip does then
				return
			}
			x.passed()
			return
		}
		close(x.ready)
	}
}

// wait returns nil when there is an answer or none can come.
func (x *Exchange) wait(by time.Time) error {
	var due <-chan time.Time
	if !by.IsZero() {
		timer := x.Timers.Start(time.Until(by))
		defer x.Timers.Stop(timer)
		due = timer.C
	}
	var events <-chan func() error
	if x.listener != nil {
		events = x.listener.events
	}
	ended := x.caller.Context().Done()
	for {
		select {
		case <-x.ready:
			return nil
		case event := <-events:
			if err := event(); err != nil {
				return err
			}
		case <-due:
			return context.DeadlineExceeded
		case <-ended:
			return context.Cause(x.caller.Context())
		}
	}
}

// serve runs the callee, and then completes the answer, or cuts it off.
func (x *Exchange) serve(r *http.Request) {
	whole := false
	defer func() {
		_ = recover()                         // http.ErrAbortHandler, whose meaning is what follows
		x.in.stop(http.ErrBodyReadAfterClose) // before the caller can have the answer
		x.finish(whole)
		x.in.end(http.ErrBodyReadAfterClose)
	}()
	x.callee.Serve(r)
	whole = true
}

// Abandon ends an exchange that the caller has no more use for.
func (x *Exchange) Abandon() {
	x.callee.PeerClosed()
	x.in.end(io.ErrUnexpectedEOF)
	x.link.closeNear()
}

// Cut cuts the answer off where it is, although the handler has not returned. An answer that is complete is not taken back.
func (x *Exchange) Cut() {
	if x.over.Load() {
		return
	}
	x.body.cut.Store(true)
	x.settle(nil, io.ErrUnexpectedEOF)
	x.link.closeFar()
}

// fail ends an exchange by the caller's own fault: its body cannot be read. An answer that is complete is not taken back.
func (x *Exchange) fail(err error) {
	if x.over.Load() {
		return
	}
	x.settle(nil, err)
	_ = x.body.ending.End(err)
	x.Abandon()
}

// link is the pipe between both sides, made when one of them first has use for it.
type link struct {
	mu        sync.Mutex
	near, far *pipe.Conn // the caller's end, and the handler's
	closed    bool       // near is, or would be
}

// ends returns both ends of the link.
func (x *Exchange) ends() (near, far *pipe.Conn) {
	l := &x.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.near == nil {
		l.near, l.far = pipe.New(x.Buffers, "caller", "callee")
		if l.closed {
			_ = l.near.Close()
		}
	}
	return l.near, l.far
}

func (l *link) closeNear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.near != nil {
		_ = l.near.Close()
	}
}

// closeFar lets the caller read what was written.
func (l *link) closeFar() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.far != nil {
		_ = l.far.Close()
	}
}

// SetReadDeadline bounds the reading of the request's body. A body in memory takes no time.
func (x *Exchange) SetReadDeadline(t time.Time) error {
	_, far := x.ends()
	return far.SetReadDeadline(t)
}

// SetWriteDeadline bounds the writing of an answer that does not fit into a buffer.
func (x *Exchange) SetWriteDeadline(t time.Time) error {
	_, far := x.ends()
	return far.SetWriteDeadline(t)
}

// EnableFullDuplex has nothing to do.
func (x *Exchange) EnableFullDuplex() error { return nil }
