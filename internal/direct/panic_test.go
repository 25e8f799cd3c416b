package direct_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/org/watt/internal/roundtrip"
)

// logged is a log that is looked at afterwards.
type logged struct{ bytes.Buffer }

func (l *logged) Printf(format string, args ...any) { fmt.Fprintf(&l.Buffer, format, args...) }

// panicking is a body that cannot even be closed.
type panicking struct{ reads bool }

func (b panicking) Read([]byte) (int, error) {
	if b.reads {
		return 0, io.EOF
	}
	panic("on purpose")
}

func (panicking) Close() error { panic("on purpose") }

func TestAPanicOfTheBodyIsTheCallsErrorAndLogged(t *testing.T) {
	reads := func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }
	for name, body := range map[string]panicking{"Read": {}, "Close": {reads: true}} {
		t.Run(name, func(t *testing.T) {
			var lines logged
			req := request(t, t.Context(), http.MethodPost, body)
			c := newCallee(reads)
			c.exchange.ErrorLog = &lines
			_, err := c.roundTrip(req, time.Time{})
			if err == nil || !strings.Contains(err.Error(), "the body has panicked: on purpose") {
				t.Errorf("got error %v", err)
			}
			if got := lines.String(); !strings.Contains(got, "on purpose") || !strings.Contains(got, "panic_test.go") {
				t.Errorf("the log says %q, want the reason and where", got)
			}
			<-c.returned
		})
	}
}

// exiting is a body that ends the goroutine that reads it, or closes it, as a test's FailNow does.
type exiting struct {
	io.Reader
	onClose bool
}

func (b exiting) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF && !b.onClose {
		runtime.Goexit()
	}
	return n, err
}

func (b exiting) Close() error {
	if b.onClose {
		runtime.Goexit()
	}
	return nil
}

func TestABodyThatEndsItsGoroutineIsNotTakenForAWholeOne(t *testing.T) {
	for name, onClose := range map[string]bool{"Read": false, "Close": true} {
		for _, length := range []int64{-1, 5, 10} {
			t.Run(fmt.Sprintf("%s of %d", name, length), func(t *testing.T) {
				req := request(t, t.Context(), http.MethodPost, exiting{strings.NewReader("hello"), onClose})
				req.ContentLength = length
				var read error
				c := newCallee(func(_ http.ResponseWriter, r *http.Request) { _, read = io.ReadAll(r.Body) })
				_, err := c.roundTrip(req, time.Time{})
				if bad, ok := errors.AsType[*roundtrip.BodyError](err); !ok || !strings.Contains(bad.Error(), "goroutine") {
					t.Errorf("got error %v", err)
				}
				<-c.returned
				if !errors.Is(read, io.ErrUnexpectedEOF) {
					t.Errorf("the handler got %v, want %v", read, io.ErrUnexpectedEOF)
				}
			})
		}
	}
}

func TestAPanicOfTheCallersTraceReachesItAndTheCalleeIsTold(t *testing.T) {
	trace := &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { panic("on purpose") }}
	req := request(t, httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, nil)
	c := newCallee(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		<-r.Context().Done()
	})
	func() {
		defer func() {
			if got := recover(); got != "on purpose" {
				t.Errorf("recovered %v, want the trace's panic", got)
			}
		}()
		resp, err := c.roundTrip(req, time.Time{})
		t.Errorf("got %v, %v", resp, err)
	}()
	<-c.returned
	if c.told.Load() == 0 {
		t.Error("the callee was not told")
	}
}
