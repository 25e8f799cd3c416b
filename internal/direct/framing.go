package direct

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// framing is what a handler's headers say of how its answer is framed, and what they leave unsaid on purpose. As with
// net/http's server only names in canonical form count. Others are headers like any, until the caller reads them.
type framing struct {
	coding              string
	sized, typed, dated bool // Content-Length, Content-Type and Date are named, be it without a value
	// How many values of that name are in canonical form. They come before the others.
	lengths, codings, types int
}

func framingOf(h http.Header) (f framing) {
	lengths, sized := h["Content-Length"]
	types, typed := h["Content-Type"]
	_, f.dated = h["Date"]
	codings := h["Transfer-Encoding"]
	f.sized, f.typed = sized, typed
	f.lengths, f.codings, f.types = len(lengths), len(codings), len(types)
	if len(codings) > 0 {
		f.coding = codings[0]
	}
	return f
}

// drop removes the first n values of a header.
func drop(h http.Header, name string, n int) {
	if rest := h[name][n:]; len(rest) > 0 {
		h[name] = rest
	} else {
		delete(h, name)
	}
}

// measure returns the length of the answer as far as it is known, or -1.
func (x *Exchange) measure(p []byte, final bool) int64 {
	o := &x.out
	coding := o.framing.coding
	switch {
	case o.length >= 0 && coding != "" && coding != "identity":
		x.ErrorLog.Printf("http: WriteHeader called with both Transfer-Encoding of %q and a Content-Length of %d", coding, o.length)
		drop(o.head, "Content-Length", o.framing.lengths)
		o.framing.lengths = 0
		return -1
	case o.length >= 0:
		return o.length
	case !final || o.trailing || coding != "" || o.framing.sized || !bodyAllowed(o.status) || x.toHead && len(p) == 0:
		return -1
	}
	o.head["Content-Length"] = append(o.head["Content-Length"], strconv.Itoa(len(p)))
	return int64(len(p))
}

// frame says in the head how long the body is, if there is one, as a server does. It reports whether the server would
// send the body in chunks.
func (x *Exchange) frame(length int64) (chunks bool) {
	o := &x.out
	h, f := o.head, &o.framing
	delete(h, "Connection")
	if !f.dated {
		h["Date"] = append(h["Date"], x.today())
	}
	allowed := bodyAllowed(o.status)
	if !allowed {
		drop(h, "Content-Length", f.lengths)
		if o.status == http.StatusNotModified {
			drop(h, "Content-Type", f.types)
		}
	}
	switch {
	case x.toHead, !allowed, length >= 0, f.coding == "identity":
		drop(h, "Transfer-Encoding", f.codings)
		return false
	case f.coding == "chunked":
		drop(h, "Transfer-Encoding", f.codings)
	}
	drop(h, "Content-Length", f.lengths)
	return true
}

// date is a second, and what HTTP calls it.
type date struct {
	second int64 // since 1970
	text   string
}

// today returns the date of an answer. It is made once a second, since to do so costs more than to look at the clock.
func (c *Common) today() string {
	now := time.Now()
	d := c.date.Load()
	if d == nil || d.second != now.Unix() {
		d = &date{now.Unix(), now.UTC().Format(http.TimeFormat)}
		c.date.Store(d)
	}
	return d.text
}

// received makes of the head what a client makes of one that it has read from a wire.
func (x *Exchange) received(answer *http.Response, chunks bool) error {
	h, bodiless := answer.Header, x.toHead || !bodyAllowed(answer.StatusCode)
	fixPragma(h)
	chunked, err := chunkedBy(h, chunks)
	if err != nil {
		return err
	}
	announced, err := lengthIn(h)
	if err != nil {
		return err
	}
	switch {
	case x.toHead:
		answer.ContentLength = announced
	case bodiless:
	case chunked:
		if !chunks {
			return errors.New("malformed chunked encoding") // a client would wait for chunks in vain
		}
		delete(h, "Content-Length")
		answer.ContentLength = -1
	default:
		answer.ContentLength = announced
	}
	if !bodiless && answer.ContentLength != 0 {
		answer.Body = &x.body
	}
	if !chunked {
		return nil
	}
	answer.TransferEncoding = []string{"chunked"}
	return announce(answer)
}

// chunkedBy reports whether a client takes a body with such headers to be in chunks, and removes what says so. If there
// are chunks, the server has said that too.
func chunkedBy(h http.Header, chunks bool) (bool, error) {
	codings, ok := h["Transfer-Encoding"]
	if !ok {
		return chunks, nil
	}
	delete(h, "Transfer-Encoding")
	if chunks {
		codings = append(codings, "chunked")
	}
	if len(codings) != 1 {
		return false, fmt.Errorf("too many transfer encodings: %q", codings)
	}
	if !strings.EqualFold(codings[0], "chunked") {
		return false, fmt.Errorf("unsupported transfer encoding: %q", codings[0])
	}
	return true, nil
}

// lengthIn returns the length that h announces, or -1.
func lengthIn(h http.Header) (int64, error) {
	lengths := h["Content-Length"]
	if len(lengths) == 0 {
		return -1, nil
	}
	for _, v := range lengths[1:] {
		if v != lengths[0] {
			return -1, fmt.Errorf("http: message cannot contain multiple Content-Length headers; got %q", lengths)
		}
	}
	h["Content-Length"] = lengths[:1]
	n, err := strconv.ParseUint(lengths[0], 10, 63)
	if err != nil {
		return -1, fmt.Errorf("bad Content-Length %q", lengths[0])
	}
	return int64(n), nil
}

// fixPragma says in the language of HTTP/1.1 what was said in that of 1.0, as clients do.
func fixPragma(h http.Header) {
	if first(h, "Pragma") == "no-cache" && h["Cache-Control"] == nil {
		h["Cache-Control"] = []string{"no-cache"}
	}
}

// announce moves the names of the trailers to where callers look for them.
func announce(answer *http.Response) error {
	for name := range strings.SplitSeq(strings.Join(answer.Header["Trailer"], ","), ",") {
		switch name = http.CanonicalHeaderKey(textproto.TrimString(name)); name {
		case "":
			continue
		case "Content-Length", "Transfer-Encoding", "Trailer":
			return fmt.Errorf("bad trailer key %q", name)
		}
		if answer.Trailer == nil {
			answer.Trailer = make(http.Header)
		}
		answer.Trailer[name] = nil
	}
	delete(answer.Header, "Trailer")
	return nil
}
