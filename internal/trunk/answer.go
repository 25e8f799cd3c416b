package trunk

import (
	"encoding/binary"
	"net/http"
)

// Flags of an answer.
const (
	flagWhole   = 1 << iota // its body follows the head, in the same frame
	flagChunked             // its Transfer-Encoding is chunked
)

// appendAnswer appends the frame of the head of an answer, and of all of it if whole.
func appendAnswer(b []byte, id uint64, resp *http.Response, whole bool, body []byte) []byte {
	start := len(b)
	b = begin(b, kindAnswer, id)
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	var flags byte
	if whole {
		flags |= flagWhole
	}
	if len(resp.TransferEncoding) > 0 {
		flags |= flagChunked
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(resp.StatusCode))
	b = binary.AppendUvarint(b, uint64(resp.ContentLength+1)) // -1 is possible
	b = appendHeader(appendString(b, resp.Status), resp.Header)
	b = binary.AppendUvarint(b, uint64(len(resp.Trailer)))
	for name := range resp.Trailer {
		b = appendString(b, name)
	}
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return end(append(b, body...), start)
}

// head is that of an answer as it has come, and not empty. The caller's goroutine takes it apart, not the one that reads for all.
type head string

// readAnswer takes the content of an answer's frame apart, of which it copies the head.
func readAnswer(p []byte) (h head, body []byte, err error) {
	if len(p) < 5 {
		return "", nil, ErrMalformed
	}
	n := int(binary.BigEndian.Uint32(p))
	if p = p[4:]; n < 1 || n > len(p) {
		return "", nil, ErrMalformed
	}
	return head(p[:n]), p[n:], nil
}

// whole reports whether all of the body has come with the head.
func (h head) whole() bool { return h[0]&flagWhole != 0 }

// response returns the answer to req, without a body.
func (h head) response(req *http.Request) (*http.Response, error) {
	s := scanner{s: string(h[1:])}
	resp := &http.Response{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, Request: req}
	resp.StatusCode = int(s.number())
	resp.ContentLength = int64(s.number()) - 1
	resp.Status, resp.Header = s.string(), s.header()
	if h[0]&flagChunked != 0 {
		resp.TransferEncoding = []string{"chunked"}
	}
	for n := s.number(); n > 0 && !s.bad; n-- {
		if resp.Trailer == nil {
			resp.Trailer = make(http.Header)
		}
		resp.Trailer[s.string()] = nil
	}
	if s.bad || resp.StatusCode < http.StatusSwitchingProtocols || resp.StatusCode > 999 || resp.ContentLength < -1 {
		return nil, ErrMalformed
	}
	return resp, nil
}
