package wire_test

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
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/roundtrip"
)

// logged is a log that is looked at afterwards.
type logged struct{ bytes.Buffer }

func (l *logged) Printf(format string, args ...any) { fmt.Fprintf(&l.Buffer, format, args...) }

// panicking is a body that cannot even be read.
type panicking struct{ onClose bool }

func (b panicking) Read([]byte) (int, error) {
	if b.onClose {
		return 0, errBody
	}
	panic("on purpose")
}

func (b panicking) Close() error {
	if b.onClose {
		panic("on purpose")
	}
	return nil
}

func TestAPanicBesideTheCallerIsTheRequestsErrorAndLogged(t *testing.T) {
	post := func(body io.Reader, trace *httptrace.ClientTrace) func(*testing.T) *http.Request {
		return func(t *testing.T) *http.Request {
			t.Helper()
			ctx := t.Context()
			if trace != nil {
				ctx = httptrace.WithClientTrace(ctx, trace)
			}
			return request(t, ctx, http.MethodPost, body)
		}
	}
	for name, test := range map[string]struct {
		request func(*testing.T) *http.Request
		says    string
	}{
		"Read":         {post(panicking{}, nil), "the body has panicked"},
		"Close":        {post(panicking{onClose: true}, nil), errBody.Error()},
		"WroteHeaders": {post(track(strings.NewReader("x")), &httptrace.ClientTrace{WroteHeaders: func() { panic("on purpose") }}), "trace has panicked"},
		"Read before the headers": {func(t *testing.T) *http.Request {
			t.Helper()
			return request(t, t.Context(), http.MethodGet, panicking{})
		}, "the body has panicked"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var lines logged
				pool, n := script(t, respond(ok))
				pool.ErrorLog = &lines
				resp, err := pool.RoundTrip(test.request(t), time.Time{}, nil)
				if err == nil {
					resp.Body.Close()
				}
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got error %v, want one that says %q", err, test.says)
				}
				synctest.Wait()
				if got := lines.String(); !strings.Contains(got, "on purpose") || !strings.Contains(got, "panic_test.go") {
					t.Errorf("the log says %q, want the reason and where", got)
				}
				if got := n.open.Load(); got != 0 {
					t.Errorf("%d connections are still open", got)
				}
			})
		})
	}
}

// exiting is a body that ends the goroutine that reads it, as a test's FailNow does.
type exiting struct{ closed chan struct{} }

func (exiting) Read([]byte) (int, error) { runtime.Goexit(); return 0, nil }
func (b exiting) Close() error           { close(b.closed); return nil }

func TestABodyThatEndsItsGoroutineFailsTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, n := script(t, respond(ok))
		body := exiting{make(chan struct{})}
		_, err := pool.RoundTrip(request(t, t.Context(), http.MethodPost, body), time.Time{}, nil)
		if bad, ok := errors.AsType[*roundtrip.BodyError](err); !ok || !strings.Contains(bad.Error(), "goroutine") {
			t.Errorf("got error %v", err)
		}
		<-body.closed
		synctest.Wait()
		if got := n.open.Load(); got != 0 {
			t.Errorf("%d connections are still open", got)
		}
	})
}

func TestAPanicOfTheCallersTraceReachesItAndEndsTheExchange(t *testing.T) {
	hook := func() { panic("on purpose") }
	for name, trace := range map[string]*httptrace.ClientTrace{
		"GotConn":              {GotConn: func(httptrace.GotConnInfo) { hook() }},
		"WroteHeaders":         {WroteHeaders: hook},
		"GotFirstResponseByte": {GotFirstResponseByte: hook},
		"Got1xxResponse":       {Got1xxResponse: func(int, textproto.MIMEHeader) error { hook(); return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pool, n := script(t, respond("HTTP/1.1 103 Early Hints\r\n\r\n"+ok))
				func() {
					defer func() {
						if got := recover(); got != "on purpose" {
							t.Errorf("recovered %v, want the trace's panic", got)
						}
					}()
					resp, err := pool.RoundTrip(request(t, httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, nil), time.Time{}, nil)
					t.Errorf("got %v, %v", resp, err)
				}()
				synctest.Wait()
				if got := n.open.Load(); got != 0 {
					t.Errorf("%d connections are still open", got)
				}
			})
		})
	}
}
