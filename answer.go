package watt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"go.uber.org/zap"
)

// answer is the ResponseWriter that handlers get. It sees the first byte, event streams and hijacks.
type answer struct {
	http.ResponseWriter
	request  *request
	peer     *peer
	begun    bool // the status is out, or the connection hijacked
	status   int
	sent     int64    // bytes of the body
	hijacked net.Conn // nil unless it was
	refused  error    // why the handler's answer was replaced
}

// writer returns the writer for the handler: with Hijack where the protocol has it, as HTTP/1 has.
func (a *http1Answer) writer() http.ResponseWriter {
	if _, ok := a.ResponseWriter.(http.Hijacker); ok {
		return a
	}
	return &a.answer
}

// Unwrap lets [http.ResponseController] reach the server's own writer.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// log says why the request is answered with an error. The panics' lines say more.
func (a *answer) log(status int, err error) {
	if errors.Is(err, errPanicked) {
		return
	}
	a.request.gen.env.Logger.Warn("request failed", zap.String("request", a.request.what()), zap.Int("status", status), zap.Error(err))
}

// WriteHeader sends the status, or an informational answer before it.
func (a *answer) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("watt: invalid status %d", status)) // as net/http does, but with nothing begun
	}
	if status >= 200 || status == http.StatusSwitchingProtocols {
		a.begin(status)
	}
	if a.refused == nil {
		a.ResponseWriter.WriteHeader(status)
	}
}

func (a *answer) Write(p []byte) (int, error) {
	if err := a.writing(len(p)); err != nil {
		return 0, err
	}
	n, err := a.ResponseWriter.Write(p)
	a.wrote(int64(n), err)
	return n, err
}

// WriteString saves a copy of s where the server can.
func (a *answer) WriteString(s string) (int, error) {
	if err := a.writing(len(s)); err != nil {
		return 0, err
	}
	n, err := io.WriteString(a.ResponseWriter, s)
	a.wrote(int64(n), err)
	return n, err
}

// Flush sends what was written so far.
func (a *answer) Flush() {
	_ = a.FlushError()
}

// FlushError is what [http.ResponseController] prefers to Flush.
func (a *answer) FlushError() error {
	if err := a.writing(flushes); err != nil {
		return err
	}
	err := http.NewResponseController(a.ResponseWriter).Flush()
	a.wrote(0, err)
	return err
}

// EnableFullDuplex lets the answer go out while the request's body is still read.
func (a *answer) EnableFullDuplex() error {
	err := http.NewResponseController(a.ResponseWriter).EnableFullDuplex()
	if in := a.request.intake; in != nil && err == nil {
		in.duplex = true
	}
	return err
}

// flushes is more than the server holds back.
const flushes = heldBack + 1

// writing is called before so many bytes go out. It returns why they may not.
func (a *answer) writing(n int) error {
	if a.begun {
		a.peer.allowStall(a.ResponseWriter)
	} else {
		a.begin(http.StatusOK)
	}
	if a.request.intake != nil && a.sent+int64(n) > heldBack {
		a.request.intake.settle()
	}
	return a.refused
}

// wrote is called when so many bytes have gone out, or could not.
func (a *answer) wrote(n int64, err error) {
	a.sent += n
	if err != nil && a.request.intake.gone() {
		a.request.cancel(context.Canceled) // else the server would have said so
	}
	if err == nil {
		a.request.intake.wrote()
	}
}

// begin is called before the answer's first byte; only its first call counts.
func (a *answer) begin(status int) {
	if a.begun {
		return
	}
	a.begun, a.status = true, status
	a.request.answering()
	a.peer.allowStall(a.ResponseWriter)
	h := a.Header()
	if status == http.StatusRequestEntityTooLarge {
		a.request.intake.refuse()
	}
	a.request.intake.begins(h)
	withoutRefusal(h)
	if (a.peer.lameDuck() || a.request.spent.Load()) && status != http.StatusSwitchingProtocols {
		h.Set("Connection", "close")
	}
	if a.peer.handed {
		delete(h, headerLast)
		if strings.EqualFold(first(h, "Connection"), "close") { // which is said of the client's
			h.Set(headerLast, "1")
		}
	}
	if strings.HasPrefix(first(h, "Content-Type"), "text/event-stream") {
		if err := a.request.becomeLongLived(); err != nil {
			a.refused, a.status = err, http.StatusServiceUnavailable
			WriteError(a.ResponseWriter, err)
		}
	}
}

// http1Answer is the answer to an HTTP/1 request.
type http1Answer struct{ answer }

// Hijack gives the connection to the handler, and the worker back.
func (a *http1Answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := a.request.app.conns.check(); err != nil {
		return nil, nil, err // while an answer can still be given
	}
	if a.begun {
		a.request.intake.settle() // else the server reads the body, for as long as that takes, since it sends the head
	}
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	tracked, err := a.request.app.conns.track(conn)
	if err == nil {
		tracked, err = a.request.gen.conns.track(tracked)
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	a.begun, a.hijacked, a.status = true, tracked, http.StatusSwitchingProtocols
	a.request.answering()
	a.request.intake.hijacked()
	a.request.hijacked()
	return tracked, rw, nil
}

// ReadFrom copies within the mesh as the server does, and to strangers in pieces.
func (a *http1Answer) ReadFrom(r io.Reader) (int64, error) {
	if err := a.writing(0); err != nil {
		return 0, err
	}
	if a.peer.public != nil || a.request.intake.open() { // in pieces, each of which the client has time to take
		return io.Copy(struct{ io.Writer }{&a.answer}, r)
	}
	n, err := io.Copy(a.ResponseWriter, r)
	a.wrote(n, err)
	return n, err
}
