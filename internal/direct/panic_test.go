package direct_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"
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
