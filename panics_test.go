package watt_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/net/http2"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// unspeakable is a reason that a log cannot encode.
type unspeakable struct{}

func (unspeakable) MarshalJSON() ([]byte, error) { panic("on purpose") }

func TestAReasonThatCannotBeEncodedIsLoggedAllTheSame(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	encoding := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.ErrorLevel)
	log := zap.New(zapcore.NewTee(encoding, core))
	handling := watt.New(app("a", func(http.ResponseWriter, *http.Request) { panic(unspeakable{}) }))
	starting := watt.New(watt.App{Name: "b", New: func(context.Context, *watt.Env) (http.Handler, error) { panic(unspeakable{}) }})
	handling.Logger, starting.Logger = log, log
	watttest.Start(t, handling)
	if got := get(t.Context(), handling, "a.watt.local/"); got.status != http.StatusInternalServerError {
		t.Errorf("got %d, %v", got.status, got.err)
	}
	if err := starting.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "panic in New") {
		t.Errorf("got %v", err)
	}
	if got := logs.FilterField(zap.String("panic", "{}")).Len(); got != 2 {
		t.Errorf("%d panics were logged, want 2", got)
	}
}

// panicking is a body that cannot be read, nor be had again.
type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("on purpose") }
func (panicking) Close() error             { return nil }

// boasting is a body that says it has read more than there is room for, over which whoever copies it panics.
type boasting struct{ panicking }

func (boasting) Read(p []byte) (int, error) { return len(p) + 1, nil }

func TestABodyThatPanicsIsTheCallsErrorAndNotTheProgramsEnd(t *testing.T) {
	reads := func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }
	server := httptest.NewServer(http.HandlerFunc(reads))
	t.Cleanup(server.Close)
	rt := start(t, app("handler", reads), serving("serve", reads), watt.App{Name: "away", URL: server.URL})
	for _, name := range []string{"handler", "serve", "away"} {
		for _, content := range []string{"text/plain", "application/grpc"} {
			for _, body := range []io.Reader{panicking{}, boasting{}} {
				req := request(t.Context(), http.MethodPost, "http://"+name+".watt.local/", body)
				req.Header.Set("Content-Type", content)
				resp, err := rt.Env().Client.Do(req)
				if err == nil {
					resp.Body.Close()
				}
				if err == nil || !strings.Contains(err.Error(), "the body has panicked") && content == "text/plain" {
					t.Errorf("%s, %s, %T: got error %v", name, content, body, err)
				}
			}
		}
	}
}

// A server of HTTP/2 may have a request sent once more, with the body that GetBody returns.
func TestABodyThatPanicsWhenItIsSentAgainIsNotTheProgramsEnd(t *testing.T) {
	url, _ := resetting(t, http2.ErrCodeRefusedStream)
	rt := start(t, watt.App{Name: "away", URL: url})
	req := request(t.Context(), http.MethodPost, "http://away.watt.local/", io.MultiReader(strings.NewReader("hello")))
	req.GetBody = func() (io.ReadCloser, error) { return panicking{}, nil }
	req.Header.Set("Content-Type", "application/grpc")
	if resp, err := rt.Env().Client.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("got %v", resp)
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
