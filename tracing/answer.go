package tracing

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"

	"github.com/felixge/httpsnoop"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/org/watt"
)

// answer is what a handler answers.
type answer struct {
	status int   // 0 until there is one
	sent   int64 // bytes of the body
	taken  bool  // the handler has taken the connection over, and answers itself
}

// wrap returns w, which tells a what is written.
func (a *answer) wrap(w http.ResponseWriter) http.ResponseWriter {
	return httpsnoop.Wrap(w, httpsnoop.Hooks{
		WriteHeader: func(next httpsnoop.WriteHeaderFunc) httpsnoop.WriteHeaderFunc {
			return func(code int) {
				if a.status == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
					a.status = code
				}
				next(code)
			}
		},
		Write: func(next httpsnoop.WriteFunc) httpsnoop.WriteFunc {
			return func(p []byte) (int, error) {
				n, err := next(p)
				a.wrote(int64(n))
				return n, err
			}
		},
		ReadFrom: func(next httpsnoop.ReadFromFunc) httpsnoop.ReadFromFunc {
			return func(from io.Reader) (int64, error) {
				n, err := next(from)
				a.wrote(n)
				return n, err
			}
		},
		Hijack: func(next httpsnoop.HijackFunc) httpsnoop.HijackFunc {
			return func() (net.Conn, *bufio.ReadWriter, error) {
				conn, rw, err := next()
				a.taken = a.taken || err == nil
				return conn, rw, err
			}
		},
	})
}

// wrote counts a part of the body, before which there is a status.
func (a *answer) wrote(n int64) {
	if a.status == 0 && n > 0 {
		a.status = http.StatusOK
	}
	a.sent += n
}

// end describes the answer, once the handler has returned or panicked; over says why the request's context has ended, if
// it has. A handler cuts an answer off with [http.ErrAbortHandler]: that is a failure, unless nobody is left to see it.
func (a *answer) end(span trace.Span, reason any, over error) {
	panicked := reason != nil && reason != http.ErrAbortHandler //nolint:errorlint // as net/http has it
	if a.status == 0 && !a.taken {
		switch {
		case panicked:
			a.status = http.StatusInternalServerError
		case reason == nil:
			a.status = silent(over)
		}
	}
	if a.status != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", a.status), attribute.Int64("http.response.body.size", a.sent))
	}
	switch {
	case panicked:
		span.SetStatus(codes.Error, "the handler has panicked")
		span.SetAttributes(attribute.String("error.type", "panic"))
	case reason != nil && silent(over) != gone:
		span.SetStatus(codes.Error, "the answer is cut off")
		span.SetAttributes(attribute.String("error.type", "aborted"))
	case a.status >= http.StatusInternalServerError:
		span.SetStatus(codes.Error, http.StatusText(a.status))
		span.SetAttributes(attribute.String("error.type", strconv.Itoa(a.status)))
	}
}

// gone is the status of an answer that nobody waits for.
const gone = 499

// silent returns the status with which the runtime answers where the handler does not.
func silent(over error) int {
	_, others := errors.AsType[*watt.CallError](over)
	switch {
	case over == nil:
		return http.StatusOK
	case others: // the error of another call, for which the caller has given up this one
		return gone
	case errors.Is(over, context.DeadlineExceeded): // or Timeout
		return http.StatusGatewayTimeout
	case errors.Is(over, watt.ErrUnavailable): // a drain has ended it
		return http.StatusServiceUnavailable
	default:
		return gone
	}
}
