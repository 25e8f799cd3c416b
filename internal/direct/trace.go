package direct

import (
	"net/http"
	"net/http/httptrace"
	"net/textproto"
)

// listener is a caller's trace. It is called by the caller's goroutine, while that waits for the answer.
type listener struct {
	trace  *httptrace.ClientTrace
	events chan func() error // calls for that goroutine to make; nil if the callee's goroutine makes them
	gone   chan struct{}     // closed when the caller has ceased to listen
	began  bool              // it was told of the first byte of the answer
}

// handedOver tells the trace that the handler has the request, or all of it but a body that has to be sent.
func (x *Exchange) handedOver() {
	l := x.listener
	if l == nil {
		return
	}
	if l.trace.WroteHeaders != nil {
		l.trace.WroteHeaders()
	}
	if x.in.handedOver() {
		wrote(l.trace, nil)
	}
}

func wrote(trace *httptrace.ClientTrace, err error) {
	if trace.WroteRequest != nil {
		trace.WroteRequest(httptrace.WroteRequestInfo{Err: err})
	}
}

// tell has the caller's goroutine do something for its trace.
func (x *Exchange) tell(event func(*httptrace.ClientTrace) error) {
	l := x.listener
	switch {
	case l == nil:
		return
	case l.events == nil: // nobody waits
		_ = event(l.trace)
		return
	}
	select {
	case l.events <- func() error { return event(l.trace) }:
	case <-l.gone:
	}
}

// sentBody tells the trace that the body is sent, or why no more of it is.
func (x *Exchange) sentBody(err error) {
	x.tell(func(trace *httptrace.ClientTrace) error {
		wrote(trace, err)
		return nil
	})
}

// gotFirstByte tells the trace, once, that there is something of the answer.
func (x *Exchange) gotFirstByte() {
	l := x.listener
	if l == nil || l.began {
		return
	}
	l.began = true
	if l.trace.GotFirstResponseByte != nil {
		l.trace.GotFirstResponseByte()
	}
}

// informational tells the trace of an answer before the answer, which may be the one that its body waits for.
func (x *Exchange) informational(status int, h http.Header, proceed bool) {
	x.tell(func(trace *httptrace.ClientTrace) error {
		x.gotFirstByte()
		if proceed && trace.Got100Continue != nil {
			trace.Got100Continue()
		}
		if trace.Got1xxResponse == nil {
			return nil
		}
		return trace.Got1xxResponse(status, textproto.MIMEHeader(h))
	})
}
