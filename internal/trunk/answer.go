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

// answer is the content of an answer's frame. The caller's goroutine takes the head apart, not the one that reads for all.
type answer struct {
	head, body string // body: if it is whole
}

// readAnswer copies the content of an answer's frame.
func readAnswer(p []byte) (answer, error) {
	if len(p) < 5 {
		return answer{}, ErrMalformed
	}
	n := int(binary.BigEndian.Uint32(p))
	if p = p[4:]; n < 1 || n > len(p) {
		return answer{}, ErrMalformed
	}
	all := string(p)
	return answer{all[:n], all[n:]}, nil
}

func (a answer) whole() bool { return a.head[0]&flagWhole != 0 }

// response returns the answer to req, without a body.
func (a answer) response(req *http.Request) (*http.Response, error) {
	s := scanner{s: a.head[1:]}
	resp := &http.Response{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, Request: req}
	resp.StatusCode = int(s.number())
	resp.ContentLength = int64(s.number()) - 1
	resp.Status, resp.Header = s.string(), s.header()
	if a.head[0]&flagChunked != 0 {
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
