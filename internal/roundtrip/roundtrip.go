// Package roundtrip is what calls have in common, whatever carries them: what a request has, what is said of one that was not sent, how
// one is sent once more ([Again], [WhileUnread]), bodies that may panic ([Guard]) or are in memory ([InMemory]), the [Ending] of an
// answer's body, and the limits of both.
package roundtrip

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"
)

// MaxHeader bounds the status line and headers of an answer, informational ones included, in bytes.
const MaxHeader = 1 << 20

// ErrHeaderTooLong means that an answer's headers exceed MaxHeader.
var ErrHeaderTooLong = fmt.Errorf("the answer's headers exceed %d bytes", MaxHeader)

// LateBody is how long a body may still be sent after the answer was read to its end. Then the call is over:
// the server does not want the rest.
const LateBody = 50 * time.Millisecond

// ErrNotSent means that the connection had ended before anything of the request was sent on it: a new one, or a kept
// one and the request's body cannot be read again for another. Or the request's context had, before there was one.
var ErrNotSent = errors.New("nothing of the request was sent")

// NotSent returns ErrNotSent, with the reason for it.
func NotSent(err error) error { return fmt.Errorf("%w: %w", ErrNotSent, err) }

// Again returns a request that can be sent once more, or nil if its body cannot.
func Again(req *http.Request) *http.Request {
	if !HasBody(req) {
		return req
	}
	if req.GetBody == nil {
		return nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil
	}
	req = req.WithContext(req.Context())
	req.Body = body
	return req
}

// HasBody reports whether there is a body to be sent, be it empty.
func HasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

// CloseBody closes the body of req, if it has one.
func CloseBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// InMemory reports whether reading body can neither block nor fail, because it is what [http.NewRequest] makes
// of bytes in memory, and how many of them there are.
func InMemory(body io.ReadCloser) (length int64, ok bool) {
	if reflect.TypeOf(body) != reflect.TypeOf(io.NopCloser((*bytes.Reader)(nil))) {
		return 0, false
	}
	switch r := reflect.ValueOf(body).Field(0).Interface().(type) {
	case *bytes.Reader:
		return int64(r.Len()), true
	case *bytes.Buffer:
		return int64(r.Len()), true
	case *strings.Reader:
		return int64(r.Len()), true
	}
	return 0, false
}

// Host returns the host that req names.
func Host(req *http.Request) string {
	if req.Host != "" {
		return req.Host
	}
	return req.URL.Host
}

// PlainHost reports whether host is there, and has nothing that has to be escaped or checked.
func PlainHost(host string) bool {
	return host != "" && !strings.ContainsFunc(host, func(r rune) bool {
		return (r < '-' || r > '.') && (r < '0' || r > ':') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// PlainPath reports whether target is a path that looks the same to everybody: with nothing that has to be escaped, and no query.
func PlainPath(target string) bool {
	for i := range len(target) {
		c := target[i]
		if (c < '-' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return target != "" && target[0] == '/'
}
