package watt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"

	"github.com/org/watt/internal/roundtrip"
)

// sends watches how often an [http.Transport] sends a request. If a connection that was kept ends without an answer, as those
// do which the other side has just closed because they were idle, the transport may send it again if its method changes
// nothing (RFC 9110, 9.2.2) and it has no body. Any other goes out once: the connection on which the transport would repeat
// what it thinks harmless is closed before that, and it tries no further. With HTTP/2 it repeats only what the other side has
// refused, but for as long as that does.
type sends struct {
	ctx    context.Context //nolint:containedctx // the request's, on its way
	giveUp context.CancelCauseFunc
	once   bool // it may go out once over HTTP/1
	n      int
	firsts int // those of them that were the first on their connections
}

// mostSends is how often a request is sent to a side that refuses it, as one does that goes away. When that lets all
// connections go after their first answers, some of many requests are refused ten times and more.
const mostSends = 100

// mostFirsts is how often it is sent as the first request of a new connection. Where that is refused, another is of little
// use; and net/http takes a request for refused that was reset with PROTOCOL_ERROR, though it may have been served each time.
const mostFirsts = 5

// Why the transport would have sent a request once more.
var (
	errKept         = fmt.Errorf("it was that of an earlier call, and has ended: %w", io.ErrUnexpectedEOF)
	errRefusedAgain = fmt.Errorf("refused %d times", mostSends)
	errRefusedFirst = fmt.Errorf("refused as the first request of %d connections", mostFirsts)
)

// watchSends returns req as it is to be sent; http1 tells whether that may be over HTTP/1.
func watchSends(req *http.Request, http1 bool) (*http.Request, *sends) {
	s := &sends{once: http1 && !repeatable(req)}
	s.ctx, s.giveUp = context.WithCancelCause(req.Context())
	return req.WithContext(httptrace.WithClientTrace(s.ctx, &httptrace.ClientTrace{GotConn: s.sending})), s
}

// sending is called before the request is sent.
func (s *sends) sending(info httptrace.GotConnInfo) {
	if !info.Reused {
		s.firsts++
	}
	switch s.n++; {
	case s.n > mostSends:
		s.giveUp(errRefusedAgain)
	case s.firsts > mostFirsts:
		s.giveUp(errRefusedFirst)
	case s.n > 1 && s.once && !speaksHTTP2(info.Conn):
		_ = info.Conn.Close()
		s.giveUp(errKept) // or it would have the next that is kept, which had better be left to others
	}
}

// explain returns why the request has failed, if the transport's error is err. A request without a connection was not sent: one
// that was cut in its handshake, or waited for in vain, was none. What is wrong with a certificate had better be seen.
func (s *sends) explain(err error) error {
	switch cause := context.Cause(s.ctx); {
	case cause == errKept, cause == errRefusedAgain, cause == errRefusedFirst: //nolint:errorlint // ours, bare
		return cause
	case s.n > 0 || unseen(err):
		return err
	}
	timeout, ok := errors.AsType[net.Error](err)
	if late := ok && timeout.Timeout(); late || lost(err) || s.ctx.Err() != nil {
		return &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	return err
}

// repeatable reports whether a request's method is safe, in the words of RFC 9110, and no body says otherwise.
func repeatable(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return !roundtrip.HasBody(req)
	}
	return false
}

func speaksHTTP2(conn net.Conn) bool {
	secure, ok := conn.(*tls.Conn)
	return ok && secure.ConnectionState().NegotiatedProtocol == "h2"
}
