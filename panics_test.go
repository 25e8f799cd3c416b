package watt_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/org/watt"
)

// panicking is a body that cannot be read, nor be had again.
type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("on purpose") }
func (panicking) Close() error             { return nil }

func TestABodyThatPanicsIsTheCallsErrorAndNotTheProgramsEnd(t *testing.T) {
	reads := func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }
	server := httptest.NewServer(http.HandlerFunc(reads))
	t.Cleanup(server.Close)
	rt := start(t, app("handler", reads), serving("serve", reads), watt.App{Name: "away", URL: server.URL})
	for _, name := range []string{"handler", "serve", "away"} {
		for _, content := range []string{"text/plain", "application/grpc"} {
			req := request(t.Context(), http.MethodPost, "http://"+name+".watt.local/", panicking{})
			req.Header.Set("Content-Type", content)
			resp, err := rt.Env().Client.Do(req)
			if err == nil {
				resp.Body.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "the body has panicked") && content == "text/plain" {
				t.Errorf("%s, %s: got error %v", name, content, err)
			}
		}
	}
}

func TestACallerThatPanicsHoldsNoWorker(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	answers := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, long)
	}
	rt := start(t, app("handler", answers), serving("serve", answers))
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { panic("on purpose") },
	})
	for _, name := range []string{"handler", "serve"} {
		func() {
			defer func() {
				if got := recover(); got != "on purpose" {
					t.Errorf("%s: recovered %v, want the trace's panic", name, got)
				}
			}()
			resp, err := rt.Env().Client.Do(request(ctx, http.MethodGet, "http://"+name+".watt.local/", nil))
			t.Errorf("%s: got %v, %v", name, resp, err)
		}()
		soon(t, "the worker", func() bool { return statusOf(t, rt, name).Busy == 0 })
	}
}
