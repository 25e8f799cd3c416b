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
)

// answer is the ResponseWriter that handlers get. It sees the first byte, event streams and hijacks.
type answer struct {
	http.ResponseWriter
	request  *request
	stage    stage
	timely   bool // it was begun before the request's context had ended
	told     bool // WriteError has answered
	broken   bool // an error came when it had begun
	last     bool // it says that the connection ends with it
	status   int
	sent     int64     // bytes of the body
	hijacked net.Conn  // nil unless it was
	refused  error     // why the handler's answer was replaced
	gone     chan bool // what CloseNotify has returned
}

// stage is how far an answer has come.
type stage int8

const (
	unsaid stage = iota
	statusSaid
	goingOut  // some of it has gone out, or may have: Timeout is over
	takenOver // the connection is hijacked
)

// writer returns the writer for the handler: with Hijack where the protocol has it, as HTTP/1 has.
func (a *http1Answer) writer() http.ResponseWriter {
	if _, ok := a.ResponseWriter.(http.Hijacker); ok {
		return a
	}
	return &a.answer
}

// Unwrap lets [http.ResponseController] reach the server's own writer.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader sends the status, or an informational answer before it.
func (a *answer) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("watt: invalid status %d", status)) // as net/http does, but with nothing begun
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		a.inform(status)
		return
	}
	a.begin(status)
	if a.refused == nil {
		a.ResponseWriter.WriteHeader(status)
	}
}

// inform sends an informational answer. The server of HTTP/2 does so in a goroutine of its own, for which it does not wait
// when the stream is reset: then that reads the header while the handler changes it. It copies a header that has a length,
// which never goes out with such an answer.
func (a *answer) inform(status int) {
	const length = "Content-Length"
	if a.refused != nil {
		return
	}
	h := a.Header()
	if _, sized := h[length]; !sized {
		h[length] = nil
		defer delete(h, length)
	}
	a.ResponseWriter.WriteHeader(status)
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

// flushes is as how many bytes a flush counts: more than the server holds back.
const flushes = heldBack + 1

// writing is called before n bytes are written, or flushes. It returns why they may not be.
func (a *answer) writing(n int) error {
	if a.stage == unsaid {
		a.begin(http.StatusOK)
	}
	if a.refused != nil || a.sent+int64(n) <= heldBack {
		return a.refused
	}
	if a.stage < goingOut {
		a.request.stopTimer()
		if a.missed() {
			a.refused = context.DeadlineExceeded
			return a.refused
		}
		a.stage = goingOut
	}
	a.request.intake.settle()
	return nil
}

// wrote is called when so many bytes have gone out, or could not.
func (a *answer) wrote(n int64, err error) {
	a.sent += n
	if err != nil && a.request.intake.blind() {
		a.request.cancel(context.Canceled) // else the server would have said so
	}
	if err == nil {
		a.request.intake.wrote()
	}
	if errors.Is(err, http.ErrContentLength) { // then the server closes the connection, and the client had better know
		closeAfter(a.ResponseWriter)
	}
}

// missed reports whether Timeout has struck after the status was said and before any byte went out: what is held back
// may be half an answer, and is not to be taken for a whole one.
func (a *answer) missed() bool {
	return a.timely && a.stage < goingOut && a.request.timer != nil && errors.Is(a.request.reason(), context.DeadlineExceeded)
}

// cut reports whether the drain has cut the request while it was answered, so that what there is of the answer may be half
// of it, and only the end of the connection can tell that.
func (a *answer) cut() bool {
	return a.timely && !a.told && errors.Is(a.request.reason(), errCut) && !a.bounded()
}

// bounded reports whether the answer's head says where it ends, or trailers do, announced or not.
func (a *answer) bounded() bool {
	h := a.Header()
	if a.request.method == http.MethodHead || a.status == http.StatusNoContent || a.status == http.StatusNotModified ||
		h["Content-Length"] != nil || h["Trailer"] != nil {
		return true
	}
	for name := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// breaks is called for an error that comes when the answer has begun, and would have had the status. What is an error's
// answer already, the handler's own or the one that has replaced it, is whole.
func (a *answer) breaks(status int) {
	if a.told && a.status >= http.StatusBadRequest || a.replaced() {
		return
	}
	a.broken, a.status = true, status
}

// replaced reports whether another answer, which is whole, has gone out in place of the handler's.
func (a *answer) replaced() bool { return a.refused != nil && !a.missed() }

// begin is called before the status is said; only its first call counts.
func (a *answer) begin(status int) {
	if a.stage != unsaid {
		return
	}
	h := a.Header()
	var crowded error
	if status == http.StatusSwitchingProtocols { // while another status can still be said
		if crowded = a.request.takeSeat(); crowded != nil {
			status = http.StatusServiceUnavailable
			h.Del("Connection")
			h.Del("Upgrade")
		}
	}
	a.stage, a.status, a.timely = statusSaid, status, a.request.reason() == nil
	if status == http.StatusRequestEntityTooLarge {
		a.request.intake.decline()
	}
	a.request.intake.begins(h)
	withoutRefusal(h)
	a.closes(h)
	if crowded == nil && isEventStream(h) {
		a.stage = goingOut
		a.request.stopTimer() // the first event may be long in coming
		crowded = a.request.becomeLongLived()
	}
	if crowded != nil {
		a.refuse(crowded)
	}
}

// refuse answers in place of the handler, for which there is no room under MaxConns: at once, and with the end of its context,
// since few handlers of events look at what their writes return.
func (a *answer) refuse(err error) {
	a.refused, a.status, a.stage = err, http.StatusServiceUnavailable, goingOut
	a.request.app.shedConn(err)
	a.request.stopTimer()
	a.request.cancel(fmt.Errorf("%w: refused: %v", context.Canceled, err)) //nolint:errorlint // no call of the handler's is
	WriteError(a.ResponseWriter, err)
	a.request.intake.settle()
	_ = http.NewResponseController(a.ResponseWriter).Flush()
}

// closes says whether the connection is closed after the answer.
func (a *answer) closes(h http.Header) {
	p := a.request.peer
	if a.last = p.lameDuck() || a.request.spent.Load(); a.last && a.status != http.StatusSwitchingProtocols {
		h.Set("Connection", "close")
	}
	if p.handed {
		delete(h, headerLast)
		if strings.EqualFold(first(h, "Connection"), "close") { // which is said of the client's
			h.Set(headerLast, "1")
		}
	}
}

// isEventStream reports whether an answer's body may never end.
func isEventStream(h http.Header) bool {
	const kind = "text/event-stream"
	is := first(h, "Content-Type")
	return len(is) >= len(kind) && strings.EqualFold(is[:len(kind)], kind)
}

// CloseNotify implements [http.CloseNotifier], which some frameworks ask for instead of the request's context.
func (a *answer) CloseNotify() <-chan bool {
	if a.gone == nil {
		gone := make(chan bool, 1)
		context.AfterFunc(a.request, func() { gone <- true })
		a.gone = gone
	}
	return a.gone
}

// http1Answer is the answer to an HTTP/1 request.
type http1Answer struct{ answer }

// Hijack gives the connection to the handler, and the worker back.
func (a *http1Answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	begun := a.stage != unsaid
	if a.begin(http.StatusSwitchingProtocols); a.refused != nil { // there is no seat, and that was said
		return nil, nil, a.refused
	}
	if err := a.request.takeSeat(); err != nil { // where another status was said
		a.request.app.shedConn(err)
		return nil, nil, err
	}
	if begun {
		a.request.intake.settle() // else the server reads the body, for as long as that takes, since it sends the head
	}
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	tracked, err := a.request.app.conns.own(conn)
	if err != nil {
		_ = conn.Close() // so that nothing more can be said
		a.refused, a.status, a.stage = err, http.StatusServiceUnavailable, goingOut
		return nil, nil, err
	}
	a.request.hijacked()
	cut, err := a.request.gen.conns.track(tracked)
	if err != nil {
		_ = tracked.Close()
		return nil, nil, err
	}
	a.stage = takenOver
	a.request.tookOver(cut)
	a.request.stopTimer()
	a.request.intake.hijacked()
	return cut, rw, nil
}

// ReadFrom copies within the mesh as the server does, once the answer is going out. To strangers it writes in pieces,
// each of which the client has time to take.
func (a *http1Answer) ReadFrom(r io.Reader) (int64, error) {
	if a.refused != nil {
		return 0, a.refused
	}
	if a.request.peer.public != nil || a.request.intake.left() {
		return io.Copy(struct{ io.Writer }{&a.answer}, r)
	}
	var before int64
	if a.stage < goingOut { // which r may take long to begin with
		n, err := io.CopyN(struct{ io.Writer }{&a.answer}, r, flushes)
		if err == io.EOF { //nolint:errorlint // CopyN returns it bare
			return n, nil
		} else if err != nil {
			return n, err
		}
		before = n
	}
	n, err := io.Copy(a.ResponseWriter, r)
	a.wrote(n, err)
	return before + n, err
}
