package roundtrip_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/org/watt/internal/roundtrip"
)

func newRequest(t *testing.T, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://callee.watt.local/", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestOnlyWhatNetHTTPMakesOfBytesIsInMemory(t *testing.T) {
	for name, test := range map[string]struct {
		body   io.Reader
		length int64
		ok     bool
	}{
		"a Reader of bytes":          {bytes.NewReader([]byte("hello")), 5, true},
		"a Buffer":                   {bytes.NewBufferString("hello"), 5, true},
		"a Reader of a string":       {strings.NewReader("hello"), 5, true},
		"one that is more than that": {struct{ io.Reader }{strings.NewReader("hello")}, 0, false},
		"one that is closed":         {io.NopCloser(io.LimitReader(strings.NewReader("hello"), 5)), 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			if length, ok := roundtrip.InMemory(newRequest(t, test.body).Body); length != test.length || ok != test.ok {
				t.Errorf("got %d, %t, want %d, %t", length, ok, test.length, test.ok)
			}
		})
	}
}

func TestARequestIsSentOnceMoreOnlyWithItsWholeBody(t *testing.T) {
	req := newRequest(t, strings.NewReader("hello"))
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		t.Fatal(err)
	}
	again := roundtrip.Again(req)
	if again == nil || again == req {
		t.Fatalf("got %v, want another request", again)
	}
	if body, err := io.ReadAll(again.Body); string(body) != "hello" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
	req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("it has gone") }
	if again := roundtrip.Again(req); again != nil {
		t.Errorf("got %v of a body that cannot be read again", again)
	}
	req.GetBody = nil
	if again := roundtrip.Again(req); again != nil {
		t.Errorf("got %v of a body that can be read once", again)
	}
	if req := newRequest(t, nil); roundtrip.Again(req) != req {
		t.Error("a request without a body is another one")
	}
}

// body is the body of a request that does what it is told.
type body struct {
	read  func(p []byte) (int, error)
	close func() error
}

func (b body) Read(p []byte) (int, error) { return b.read(p) }
func (b body) Close() error               { return b.close() }

// logged is a log that is looked at afterwards.
type logged struct{ bytes.Buffer }

func (l *logged) Printf(format string, args ...any) { fmt.Fprintf(&l.Buffer, format, args...) }

func TestWhatAGuardedBodyHasMetIsItsOwnFault(t *testing.T) {
	reason := errors.New("the disk is gone")
	for name, test := range map[string]struct {
		body   body
		says   string
		logged string
	}{
		"Read":             {body{func([]byte) (int, error) { return 0, reason }, func() error { return reason }}, reason.Error(), ""},
		"a panic":          {body{func([]byte) (int, error) { panic("read it") }, func() error { panic("close it") }}, "the body has panicked", "roundtrip_test.go"},
		"more than it has": {body{func(p []byte) (int, error) { return len(p) + 1, nil }, func() error { return reason }}, "", "bytes read into"},
		"less than none":   {body{func([]byte) (int, error) { return -1, nil }, func() error { return reason }}, "", "-1 bytes read into"},
	} {
		t.Run(name, func(t *testing.T) {
			var lines logged
			guarded := roundtrip.Guard(test.body, &lines)
			n, err := guarded.Read(make([]byte, 8))
			if _, ok := errors.AsType[*roundtrip.BodyError](err); n != 0 || !ok || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %d, %v from Read, want a BodyError", n, err)
			}
			if err := guarded.Close(); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v from Close", err)
			} else if _, ok := errors.AsType[*roundtrip.BodyError](err); !ok {
				t.Errorf("got %T from Close, want a BodyError", err)
			}
			if got := lines.String(); !strings.Contains(got, test.logged) || (got == "") != (test.logged == "") {
				t.Errorf("the log says %q", got)
			}
		})
	}
	whole := roundtrip.Guard(io.NopCloser(strings.NewReader("hello")), nil)
	if got, err := io.ReadAll(whole); string(got) != "hello" || err != nil {
		t.Errorf("got %q, %v of a body without faults", got, err)
	}
}

func TestARequestsBodyIsGuardedWhenItIsSentAgainToo(t *testing.T) {
	fault := errors.New("a fault")
	failing := body{func([]byte) (int, error) { return 0, fault }, func() error { return nil }}
	req := newRequest(t, failing)
	req.GetBody = func() (io.ReadCloser, error) { return failing, nil }
	req.Trailer = http.Header{"Sum": nil}
	guarded := roundtrip.GuardBody(req, nil)
	again := roundtrip.Again(guarded)
	if again == nil {
		t.Fatal("it cannot be sent again")
	}
	for name, r := range map[string]*http.Request{"first": guarded, "again": again} {
		if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, fault) {
			t.Errorf("%s: got %v, want the fault", name, err)
		} else if _, ok := errors.AsType[*roundtrip.BodyError](err); !ok {
			t.Errorf("%s: got %T, want a BodyError", name, err)
		}
		if len(r.TransferEncoding) != 1 || r.TransferEncoding[0] != "chunked" {
			t.Errorf("%s: got transfer encoding %q, want that there is room for trailers", name, r.TransferEncoding)
		}
	}
	if req.TransferEncoding != nil {
		t.Error("the caller's request was changed")
	}
	if req := newRequest(t, strings.NewReader("hello")); roundtrip.GuardBody(req, nil) != req {
		t.Error("a body in memory is guarded")
	}
}

func TestNotSentKeepsTheReason(t *testing.T) {
	if err := roundtrip.NotSent(io.EOF); !errors.Is(err, roundtrip.ErrNotSent) || !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	roundtrip.CloseBody(newRequest(t, nil)) // there is none
	closed := false
	req := newRequest(t, body{nil, func() error { closed = true; return nil }})
	if roundtrip.CloseBody(req); !closed {
		t.Error("the body is not closed")
	}
}
