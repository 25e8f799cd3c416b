package trunk

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"github.com/org/watt/internal/roundtrip"
)

// maxBody is the longest body of a request that travels with it, in bytes. A longer one would hold up the others.
const maxBody = 16 << 10

// Takes reports whether a request can go over a trunk with others, of those that need no connection of their own. It
// can if it has no body, or a short one that is in memory, and nobody waits to be asked for it.
func Takes(req *http.Request) bool {
	if !roundtrip.HasBody(req) {
		return req.ContentLength == 0
	}
	n, memory := roundtrip.InMemory(req.Body)
	return memory && n == req.ContentLength && n <= maxBody && req.Header["Expect"] == nil
}

// Flags of a request.
const (
	flagBody    = 1 << iota // it has a body, be it empty
	flagInforms             // the caller wants to hear of informational answers
	flagNoAgent             // its User-Agent has no value: it is not to get the usual one
)

// informs reports whether the caller wants to hear of informational answers.
func informs(req *http.Request) bool {
	trace := httptrace.ContextClientTrace(req.Context())
	return trace != nil && trace.Got1xxResponse != nil
}

// appendRequest appends the frame of a request, of which Takes has approved.
func appendRequest(b []byte, id uint64, req *http.Request) ([]byte, error) {
	start := len(b)
	b = begin(b, kindRequest, id)
	var flags byte
	hasBody := roundtrip.HasBody(req)
	if hasBody {
		flags |= flagBody
	}
	if informs(req) {
		flags |= flagInforms
	}
	if agent, named := req.Header["User-Agent"]; named && len(agent) == 0 {
		flags |= flagNoAgent
	}
	b = append(b, flags)
	var left uint64 // in microseconds; 0: no limit
	if deadline, limited := req.Context().Deadline(); limited {
		left = uint64(max(1, time.Until(deadline).Microseconds()))
	}
	b = binary.AppendUvarint(b, left)
	b = appendString(appendString(appendString(b, req.Method), roundtrip.Host(req)), req.URL.RequestURI())
	b = appendHeader(b, req.Header)
	if hasBody {
		at, n := len(b), int(req.ContentLength)
		b = append(b, make([]byte, n)...)
		if _, err := io.ReadFull(req.Body, b[at:]); err != nil {
			return b, &roundtrip.BodyError{Err: fmt.Errorf("reading the request's body: %w", err)}
		}
	}
	return end(b, start), nil
}

// readRequest makes a request, with the context ctx, of the content of its frame. How much time it has left, its caller has said
// when that came.
func readRequest(ctx context.Context, content string) (req *http.Request, left time.Duration, informs bool, err error) {
	if content == "" {
		return nil, 0, false, ErrMalformed
	}
	flags := content[0]
	s := scanner{s: content[1:]}
	left = time.Duration(min(s.number(), maxLeft)) * time.Microsecond
	method, host, uri := s.string(), s.string(), s.string()
	header := s.header()
	if s.bad {
		return nil, 0, false, ErrMalformed
	}
	if flags&flagNoAgent != 0 {
		header["User-Agent"] = nil
	}
	u := &url.URL{Path: uri}
	if !roundtrip.PlainPath(uri) {
		if u, err = url.ParseRequestURI(uri); err != nil {
			return nil, 0, false, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	req = new(http.Request).WithContext(ctx)
	req.Method, req.URL, req.RequestURI, req.Host, req.Header = method, u, uri, host, header
	if flags&flagBody != 0 {
		req.ContentLength = int64(len(s.s))
		req.Body = io.NopCloser(strings.NewReader(s.s))
	}
	return req, left, flags&flagInforms != 0, nil
}

// maxLeft is the longest time, in microseconds, that a caller can have left: a day.
const maxLeft = 24 * 60 * 60 * 1e6
