package direct

import (
	"net/http"
	"net/http/httptrace"
	"net/textproto"
)

// What a caller's trace is told, it is told by the caller's goroutine, as long as that waits for the answer.

// handedOver tells the trace that the handler has the request, or all of it but a body that has to be sent.
func (x *Exchange) handedOver() {
	if x.trace == nil {
		return
	}
	if x.trace.WroteHeaders != nil {
		x.trace.WroteHeaders()
	}
	if x.in.handedOver() {
		wrote(x.trace, nil)
	}
}

func wrote(trace *httptrace.ClientTrace, err error) {
	if trace.WroteRequest != nil {
		trace.WroteRequest(httptrace.WroteRequestInfo{Err: err})
	}
}

// tell has the caller's goroutine do something for its trace.
func (x *Exchange) tell(event func(*httptrace.ClientTrace) error) {
	if x.events == nil {
		return
	}
	select {
	case x.events <- func() error { return event(x.trace) }:
	case <-x.gone:
	}
}

// sentBody tells the trace that the body is sent, or why no more of it is.
func (x *Exchange) sentBody(err error) {
	x.tell(func(trace *httptrace.ClientTrace) error {
		wrote(trace, err)
		return nil
	})
}

// answering tells the trace, once, that there is something of the answer.
func (x *Exchange) answering() {
	if x.trace == nil || x.heard {
		return
	}
	x.heard = true
	if x.trace.GotFirstResponseByte != nil {
		x.trace.GotFirstResponseByte()
	}
}

// informational tells the trace of an answer before the answer, which may be the one that its body waits for.
func (x *Exchange) informational(status int, h http.Header, proceed bool) {
	x.tell(func(trace *httptrace.ClientTrace) error {
		x.answering()
		if proceed && trace.Got100Continue != nil {
			trace.Got100Continue()
		}
		if trace.Got1xxResponse == nil {
			return nil
		}
		return trace.Got1xxResponse(status, textproto.MIMEHeader(h))
	})
}
