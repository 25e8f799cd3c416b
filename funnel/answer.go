package funnel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
)

// answer is what is kept of a handler's answer.
type answer struct {
	digest string // of the request
	status int
	header http.Header // what the handler has changed
	body   []byte
}

// size is how many bytes its headers and its body have.
func (a *answer) size() int64 {
	n := len(a.body)
	for name, values := range a.header {
		n += len(name)
		for _, v := range values {
			n += len(v)
		}
	}
	return int64(n)
}

// write sends the answer again.
func (a *answer) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

// recorder holds a handler's answer back.
type recorder struct {
	w      http.ResponseWriter
	header http.Header
	sent   http.Header // as it was when the status was written
	status int
	length int64 // of the body, as it says itself; -1: it does not
	tried  int64 // how much of it was written, what was refused included
	body   bytes.Buffer
	most   int64
	err    error
}

// write sends the answer as it was given.
func (r *recorder) write() {
	replace(r.w.Header(), r.sent)
	r.w.WriteHeader(r.status)
	_, _ = r.w.Write(r.body.Bytes())
	replace(r.w.Header(), r.header) // trailers
}

func replace(header, by http.Header) {
	clear(header)
	maps.Copy(header, by)
}

var (
	// errMiddle keeps half an answer from being taken for a whole one, as [watt.WriteError] does where nothing is held back.
	errMiddle = errors.New("funnel: the handler has met an error in the middle of its answer")
	errShort  = errors.New("funnel: the handler has not written as much as Content-Length says")
	errLarge  = errors.New("funnel: the answer is too large to be kept; raise MaxBytes of Idempotency")
)

// Header implements [http.ResponseWriter].
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements [http.ResponseWriter].
func (r *recorder) WriteHeader(status int) {
	if status >= http.StatusBadRequest && r.halfway() {
		r.err = errMiddle
	}
	if r.status != 0 || status >= 100 && status < 200 {
		return
	}
	if status < 100 || status > 999 {
		r.err = fmt.Errorf("funnel: the handler has answered with status %d", status)
	}
	r.status, r.sent, r.length = status, r.header.Clone(), -1
	bare := status == http.StatusNoContent || status == http.StatusNotModified
	if n, err := strconv.ParseInt(r.sent.Get("Content-Length"), 10, 64); err == nil && !bare {
		r.length = n
	}
}

// halfway reports whether the document of an error follows an answer that is none.
func (r *recorder) halfway() bool {
	const document = "application/problem+json"
	return r.status != 0 && r.status < http.StatusBadRequest &&
		r.header.Get("Content-Type") == document && r.sent.Get("Content-Type") != document
}

// Write implements [http.ResponseWriter].
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	r.tried += int64(len(b))
	switch {
	case r.length >= 0 && r.tried > r.length:
		return 0, http.ErrContentLength // as the server does
	case int64(r.body.Len()+len(b)) > r.most:
		r.err = errLarge
		return 0, r.err
	}
	return r.body.Write(b)
}

// FlushError has nothing to flush.
func (r *recorder) FlushError() error { return nil }

// Hijack refuses: what is said on the connection itself cannot be kept.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, http.ErrNotSupported
}

// Unwrap returns the writer behind, for [http.ResponseController] and [watt.WriteError].
func (r *recorder) Unwrap() http.ResponseWriter { return r.w }

// answer returns what to keep for the request with that digest.
func (r *recorder) answer(digest string) (*answer, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if int64(r.body.Len()) < r.length {
		return nil, errShort // whoever got it would take the connection to have broken, each time
	}
	a := &answer{digest, r.status, r.changed(), append([]byte{}, r.body.Bytes()...)}
	if a.size() > r.most {
		return nil, errLarge
	}
	return a, nil
}

// changed returns the headers that can be told again: what was there before the handler is for those in front to say
// anew.
func (r *recorder) changed() http.Header {
	changed := r.sent.Clone()
	for name, before := range r.w.Header() {
		switch now, still := changed[name]; {
		case !still:
			changed[name] = []string{}
		case slices.Equal(now, before):
			delete(changed, name)
		}
	}
	for _, name := range []string{"Connection", "Date", "Keep-Alive", "Set-Cookie", "Trailer", "Transfer-Encoding"} {
		delete(changed, name)
	}
	return changed
}
