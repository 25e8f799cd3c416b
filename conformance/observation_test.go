package conformance_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// scenario is one exchange that must look the same in all worlds.
type scenario struct {
	name    string
	handler http.HandlerFunc
	request func() *http.Request
	client  bool                                  // send it with an http.Client
	blind   bool                                  // nobody looks at informational answers
	dialog  func(io.ReadWriteCloser) string       // after 101
	soften  func(world string, seen *observation) // takes away what may differ, and says why
	retry   bool                                  // http.Transport sometimes loses the answer: try again until it does not
	hijacks bool                                  // the handler does, so that there must be a connection
}

// observation is all that caller and handler see of an exchange.
type observation struct {
	Status, Proto    string
	Header, Trailer  http.Header
	ContentLength    int64
	TransferEncoding []string
	Close            bool
	Uncompressed     bool
	Body, Error      string
	ReadError        string
	Traced           []string
	Dialog           string
	Same             bool // Response.Request is the caller's
	BodyClosed       int32
	Handler          sight
}

// sight is what the handler sees of the request.
type sight struct {
	Called                  int
	Method, URI, Host, Body string
	Header, Trailer         http.Header
	ContentLength           int64
	TransferEncoding        []string
	Close                   bool
}

// exchange sends the request and notes what comes back.
func (s scenario) exchange(tb testing.TB, rt http.RoundTripper, seen *observation, blind bool) {
	tb.Helper()
	var mu sync.Mutex
	over := false // http.Transport may tell a trace something when it has returned
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			seen.Traced = append(seen.Traced, fmt.Sprintf(format, args...))
		}
	}
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
	}()
	req := s.request()
	ctx, cancel := context.WithTimeout(req.Context(), 5*time.Second)
	defer cancel()
	trace := &httptrace.ClientTrace{
		Got100Continue: func() { note("100") },
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			note("%d %v", code, h)
			return nil
		},
	}
	if s.blind {
		trace.Got1xxResponse = nil
	}
	if !blind {
		ctx = httptrace.WithClientTrace(ctx, trace)
	}
	req = req.WithContext(ctx)
	body, _ := req.Body.(*trackedBody)
	send := rt.RoundTrip
	if s.client {
		send = (&http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do
	}
	resp, err := send(req)
	seen.Error = kind(err)
	if err == nil {
		s.read(resp, seen)
		seen.Same = resp.Request == req
	}
	if body != nil {
		select {
		case <-body.done:
		case <-time.After(10 * time.Second):
			tb.Error("the request's body was not closed")
		}
		seen.BodyClosed = body.closed.Load()
	}
}

func (s scenario) read(resp *http.Response, seen *observation) {
	defer resp.Body.Close()
	seen.Status, seen.Proto = resp.Status, fmt.Sprint(resp.Proto, resp.ProtoMajor, resp.ProtoMinor, resp.StatusCode)
	seen.Header = resp.Header.Clone()
	for i := range seen.Header["Date"] {
		seen.Header["Date"][i] = "some day"
	}
	seen.ContentLength, seen.TransferEncoding = resp.ContentLength, resp.TransferEncoding
	seen.Close, seen.Uncompressed = resp.Close, resp.Uncompressed
	if rwc, ok := resp.Body.(io.ReadWriteCloser); ok && s.dialog != nil {
		seen.Dialog = s.dialog(rwc)
		return
	}
	seen.Body, seen.ReadError = digest(resp.Body)
	seen.Trailer = resp.Trailer
	if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || kind(err) != seen.ReadError && (err != io.EOF || seen.ReadError != "") {
		seen.ReadError += fmt.Sprintf(", then %d and %v", n, err)
	}
	resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil || resp.Body != http.NoBody && err == io.EOF {
		seen.ReadError += ", and after Close: " + kind(err)
	}
}

// digest reads r to its end. It returns short content as it is.
func digest(r io.Reader) (content, readError string) {
	var first bytes.Buffer
	sum := sha256.New()
	n, err := io.Copy(sum, io.TeeReader(io.LimitReader(r, 200), &first))
	if err == nil {
		var more int64
		more, err = io.Copy(sum, r)
		n += more
	}
	content = first.String()
	if n > 200 {
		content = fmt.Sprintf("%d bytes %x", n, sum.Sum(nil))
	}
	return content, kind(err)
}

var errBody = errors.New("the body cannot be read")

// kind is what an error means, in words that all worlds have in common.
func kind(err error) string {
	if err == nil {
		return ""
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "too late"
	}
	for _, cut := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, cut) {
			return "cut"
		}
	}
	text := err.Error()
	for _, common := range []string{
		errBody.Error(), "malformed HTTP", "malformed MIME", "invalid Trailer", "invalid method", "ContentLength=", "Content-Length",
		"chunk", "trailer after", "bad trailer", "transfer encoding", "control character",
	} {
		if strings.Contains(text, common) {
			return common
		}
	}
	for _, same := range []struct{ says, means string }{
		{"exceed", "too much header"},
		{"nil Body", "a length and no body"},
		{"invalid header field", "invalid field"},
		{"invalid trailer field", "invalid field"},
		{"nil Request", "incomplete request"},
		{"no Host in", "incomplete request"},
		{"no URL, host or header", "incomplete request"},
	} {
		if strings.Contains(text, same.says) {
			return same.means
		}
	}
	return strings.TrimPrefix(text, "net/http: HTTP/1.x transport connection broken: ")
}

// differences says where two observations differ, a line for each.
func (o *observation) differences(other *observation) string {
	var b strings.Builder
	one, two := reflect.ValueOf(*o), reflect.ValueOf(*other)
	for i := range one.NumField() {
		if f, g := one.Field(i).Interface(), two.Field(i).Interface(); !reflect.DeepEqual(f, g) {
			fmt.Fprintf(&b, "\n\t%s: %.1000q\n\t\tand %.1000q", one.Type().Field(i).Name, fmt.Sprintf("%+v", f), fmt.Sprintf("%+v", g))
		}
	}
	return b.String()
}
