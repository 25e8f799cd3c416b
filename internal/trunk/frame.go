package trunk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// A frame is its length in four bytes, its kind in one, the number of its call in eight, and so many bytes of content.
// All numbers are big endian.
const frameHead = 4 + 1 + 8

// Kinds of frames.
const (
	// From the caller.
	kindRequest = iota + 1 // all of a request
	kindCredit             // how many bytes of the answer's body it takes beyond what it has taken so far
	kindGone               // nobody waits for the answer, or the rest of it, any more
	// From the callee.
	kindInform // an answer before the answer
	kindAnswer // the head of the answer, and if that is short all of it
	kindData   // a part of its body
	kindEnd    // the body's end, with the trailers
	kindCut    // there is no answer, or no more of it, and why
	kindLeave  // of no call: the connection takes no new ones
)

// Sizes in bytes.
const (
	maxContent = 4 << 20   // of a frame; heads are limited to a quarter of that by those who make them
	maxData    = 64 << 10  // of a part of a body
	window     = 256 << 10 // what of a body may be under way: about as much as a socket takes
)

// ErrMalformed means that the other side does not speak this protocol.
var ErrMalformed = errors.New("malformed frame")

// begin appends the head of a frame, whose length end fills in.
func begin(b []byte, kind byte, id uint64) []byte {
	b = append(b, 0, 0, 0, 0, kind)
	return binary.BigEndian.AppendUint64(b, id)
}

// end completes the frame that begins at start.
func end(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-frameHead))
	return b
}

// short returns a frame without content.
func short(kind byte, id uint64) []byte { return end(begin(make([]byte, 0, frameHead), kind, id), 0) }

// frame is one that is being read.
type frame struct {
	kind   byte
	id     uint64
	length int // of its content
}

// next reads the head of a frame.
func next(r *bufio.Reader) (f frame, err error) {
	head, err := r.Peek(frameHead)
	if err != nil {
		if err == io.EOF && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return f, err
	}
	length := binary.BigEndian.Uint32(head)
	f = frame{kind: head[4], id: binary.BigEndian.Uint64(head[5:]), length: int(length)}
	if length > maxContent {
		return f, fmt.Errorf("%w: of %d bytes", ErrMalformed, length)
	}
	_, _ = r.Discard(frameHead)
	return f, nil
}

// content calls use with the content of a frame, which is valid only until that returns, and returns its error.
func (f frame) content(r *bufio.Reader, use func([]byte) error) error {
	if f.length > r.Size() {
		p := make([]byte, f.length)
		if _, err := io.ReadFull(r, p); err != nil {
			return cutShort(err)
		}
		return use(p)
	}
	p, err := r.Peek(f.length)
	if err != nil {
		return cutShort(err)
	}
	defer r.Discard(f.length) //nolint:errcheck // it is there
	return use(p)
}

func cutShort(err error) error {
	if err == io.EOF { //nolint:errorlint // bufio returns it bare
		return io.ErrUnexpectedEOF
	}
	return err
}

// Heads of requests and answers are written as a sequence of numbers, each in as few bytes as it needs, and of strings,
// each after its length.

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendHeader(b []byte, h http.Header) []byte {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	b = binary.AppendUvarint(b, uint64(n))
	for name, values := range h {
		for _, v := range values {
			b = appendString(appendString(b, name), v)
		}
	}
	return b
}

// scanner takes a head apart. Its strings share the memory of the head's.
type scanner struct {
	s   string
	bad bool // it is not what it should be: what was taken since is nothing
}

func (s *scanner) number() uint64 {
	var n uint64
	for i := 0; i < len(s.s) && i < binary.MaxVarintLen64; i++ {
		c := s.s[i]
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			s.s = s.s[i+1:]
			return n
		}
	}
	s.bad, s.s = true, ""
	return 0
}

func (s *scanner) string() string {
	n := s.number()
	if n > uint64(len(s.s)) {
		s.bad, s.s = true, ""
		return ""
	}
	text := s.s[:n]
	s.s = s.s[n:]
	return text
}

// manyHeaders is for how many there is room at once, whatever is promised.
const manyHeaders = 100

// header takes a header. It has room for some more.
func (s *scanner) header() http.Header {
	n := s.number()
	if n > uint64(len(s.s))/2 { // each takes two bytes at least
		s.bad = true
		return nil
	}
	h, all := make(http.Header, min(n, manyHeaders)+3), make([]string, n)
	for i := range all {
		name := s.string()
		if all[i] = s.string(); s.bad {
			return nil
		}
		if have := h[name]; have != nil {
			h[name] = append(have, all[i])
		} else {
			h[name] = all[i : i+1 : i+1]
		}
	}
	return h
}
