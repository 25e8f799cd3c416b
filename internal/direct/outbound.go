package direct

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/org/watt/internal/roundtrip"
)

// held is how much of an answer, in bytes, is held back for the rest of it: net/http's figure, so that answers
// say the same of their lengths.
const held = 2048

// maxUnseen is how many lines of informational answers a caller takes that does not look at them.
const maxUnseen = roundtrip.MaxHeader / 40

var errOver = errors.New("http: the handler has returned")

// outbound is the answer as the handler writes it.
type outbound struct {
	mu        sync.Mutex  // guards all but header
	header    http.Header // the handler's
	status    int         // 0 until it is decided
	head      http.Header // the caller's, as of WriteHeader
	err       error       // why there is none, or no more of it
	framing   framing     // what the handler's say of that
	announced []string    // trailers
	length    int64       // what was announced, or -1
	written   int64
	unseen    int     // lines of informational answers that nobody looked at
	memory    *[]byte // from Buffers, once something is held back
	buf       []byte  // what is held back
	trailing  bool    // there may be trailers
	committed bool    // the head is the caller's
}

// Header returns the headers of the answer, and later its trailers.
func (x *Exchange) Header() http.Header {
	if x.out.header == nil {
		x.out.header = make(http.Header)
	}
	return x.out.header
}

// WriteHeader decides on the status and the headers, or sends an informational answer.
func (x *Exchange) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	x.out.mu.Lock()
	defer x.out.mu.Unlock()
	switch {
	case x.out.status != 0:
		x.ErrorLog.Printf("http: superfluous response.WriteHeader call with %d", status)
	case status < 200 && status != http.StatusSwitchingProtocols:
		x.informLocked(status)
	default:
		x.out.decideLocked(status, x)
	}
}

// informLocked sends an informational answer. What nobody looks at may not go on for ever, as on a wire.
func (x *Exchange) informLocked(status int) {
	h, err := arrived(x.out.header, nil)
	if seen := x.listener != nil && x.listener.trace.Got1xxResponse != nil; !seen && err == nil {
		if x.out.unseen += 1 + len(h); x.out.unseen > maxUnseen {
			err = roundtrip.ErrHeaderTooLong
		}
	}
	if err != nil {
		x.settle(nil, err)
		return
	}
	delete(h, "Content-Length") // they are the final answer's
	delete(h, "Transfer-Encoding")
	fixPragma(h)
	x.informational(status, h, status == http.StatusContinue && x.in.asked())
}

// decideLocked takes the headers as they are now.
func (o *outbound) decideLocked(status int, x *Exchange) {
	x.in.asked() // that it is wanted has to be said before
	o.status, o.length = status, -1
	o.head, o.err = arrived(o.header, x.head())
	if o.err != nil {
		return
	}
	o.framing = framingOf(o.header)
	o.announced, o.trailing = trailerNames(o.header), len(o.header["Trailer"]) > 0 || hasMarked(o.header)
	if v := first(o.header, "Content-Length"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err == nil && n >= 0 {
			o.length = n
			return
		}
		x.ErrorLog.Printf("http: invalid Content-Length of %q", v)
	}
}

// head returns where the head of the answer is to be put: what is only passed on is put where that of another answer was.
func (x *Exchange) head() http.Header {
	if x.answered == nil {
		return nil
	}
	h, _ := x.heads.Get().(http.Header)
	return h
}

// maxHead is how many headers a head may have to be kept: to clear one takes as long as when it was largest.
const maxHead = 32

// passed takes back the head of an answer that was passed on.
func (x *Exchange) passed() {
	h := x.answer.Header
	x.answer.Header, x.out.head = nil, nil
	if len(h) <= maxHead {
		clear(h)
		x.heads.Put(h)
	}
}

// Write writes to the answer. It blocks while a long one is not read.
func (x *Exchange) Write(p []byte) (int, error) { return write(x, p) }

// WriteString is Write.
func (x *Exchange) WriteString(s string) (int, error) { return write(x, s) }

// ReadFrom writes what it reads from src until that ends.
func (x *Exchange) ReadFrom(src io.Reader) (int64, error) { return x.Buffers.Copy(x, src) }

func write[T string | []byte](x *Exchange, p T) (int, error) {
	o := &x.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := x.endedLocked(); err != nil {
		return 0, err
	}
	if o.status == 0 {
		o.decideLocked(http.StatusOK, x)
	}
	switch {
	case len(p) == 0:
		return 0, nil
	case !bodyAllowed(o.status):
		return 0, http.ErrBodyNotAllowed
	}
	if o.written += int64(len(p)); o.length >= 0 && o.written > o.length {
		return 0, http.ErrContentLength
	}
	n := 0
	if len(o.buf) > 0 && len(o.buf)+len(p) > held {
		n = min(held-len(o.buf), len(p))
		o.buf = append(o.buf, p[:n]...)
		if err := x.flushLocked(); err != nil {
			return 0, err
		}
	}
	if len(p)-n > held {
		m, err := x.sendLocked([]byte(p[n:]))
		return n + m, err
	}
	if o.memory == nil {
		o.memory = x.Buffers.Get(held)
		o.buf = (*o.memory)[:0]
	}
	o.buf = append(o.buf, p[n:]...)
	return len(p), nil
}

// endedLocked returns why nothing more can be written, or nil.
func (x *Exchange) endedLocked() error {
	switch {
	case x.over.Load():
		return errOver
	case x.out.committed:
		return x.out.err
	}
	return nil
}

// Flush sends what was written so far.
func (x *Exchange) Flush() { _ = x.FlushError() }

// FlushError is what [http.ResponseController] prefers to Flush.
func (x *Exchange) FlushError() error {
	x.out.mu.Lock()
	defer x.out.mu.Unlock()
	if err := x.endedLocked(); err != nil {
		return err
	}
	if x.out.status == 0 {
		x.out.decideLocked(http.StatusOK, x)
	}
	return x.flushLocked()
}

// flushLocked sends what was held back.
func (x *Exchange) flushLocked() error {
	_, err := x.sendLocked(x.out.buf)
	x.out.buf = x.out.buf[:0]
	return err
}

// sendLocked sends p, after the head. If some of it cannot be sent, the answer ends there, whatever the handler does.
func (x *Exchange) sendLocked(p []byte) (int, error) {
	if !x.out.committed {
		x.commitLocked(p, false)
	}
	if x.toHead || len(p) == 0 {
		return len(p), nil
	}
	_, far := x.ends()
	n, err := far.Write(p)
	if err != nil {
		x.out.err = err
		x.body.cut.Store(true)
	}
	return n, err
}

// finish completes the answer once the handler has returned, or cuts it off.
func (x *Exchange) finish(whole bool) {
	o := &x.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if whole && o.status == 0 {
		o.decideLocked(http.StatusOK, x)
	}
	switch {
	case !whole:
		x.body.cut.Store(true)
		x.settle(nil, io.ErrUnexpectedEOF)
	case !o.committed:
		x.body.trailer = o.trailers()
		x.commitLocked(o.buf, true)
	default:
		_ = x.flushLocked()
		x.body.trailer = o.trailers()
	}
	if o.memory != nil {
		x.Buffers.Put(o.memory)
		o.memory, o.buf = nil, nil
	}
	x.over.Store(true)
	x.link.closeFar()
}

// trailers returns what the caller gets after the body.
func (o *outbound) trailers() http.Header {
	if o.announced == nil && !hasMarked(o.header) {
		return nil
	}
	t, err := arrived(trailersOf(o.header, o.announced), nil)
	if err != nil {
		return nil
	}
	return t
}

// commitLocked gives the caller the head of the answer. What follows begins with p; it is all there is if final.
func (x *Exchange) commitLocked(p []byte, final bool) {
	o := &x.out
	o.committed = true
	if o.err != nil {
		x.settle(nil, o.err)
		return
	}
	length := x.measure(p, final)
	if f := &o.framing; bodyAllowed(o.status) && len(p) > 0 && f.coding == "" && !f.typed && first(o.head, "Content-Encoding") == "" {
		o.head["Content-Type"] = append(o.head["Content-Type"], http.DetectContentType(p))
	}
	chunks := x.frame(length)
	answer := &http.Response{
		Status: statusText(o.status), StatusCode: o.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: o.head, Body: http.NoBody, Request: x.caller,
	}
	if err := x.received(answer, chunks); err != nil {
		x.settle(nil, err)
		return
	}
	if answer.Body != http.NoBody {
		x.body.begin(x, answer.ContentLength, final)
	}
	x.settle(answer, nil)
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

func statusText(status int) string {
	if status == http.StatusOK {
		return "200 OK"
	}
	if text := http.StatusText(status); text != "" {
		return strconv.Itoa(status) + " " + text
	}
	return fmt.Sprintf("%03d status code %d", status, status)
}

func first(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}
