package tracing_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/org/watt"
	"github.com/org/watt/tracing"
	"github.com/org/watt/watttest"
)

// exporting returns a provider whose spans go to a receiver over OTLP, many at once.
func exporting(t *testing.T) (*receiver, *sdk.TracerProvider) {
	t.Helper()
	r := new(receiver)
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	exporter, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(server.URL))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return r, provider
}

// TestWhatIsNoTextLosesNoSpans: OTLP takes nothing else, and exporters then lose all spans that they would have sent at once.
func TestWhatIsNoTextLosesNoSpans(t *testing.T) {
	r, provider := exporting(t)
	rt := watt.New(watt.App{Name: "web", Listen: "127.0.0.1:0", Handler: http.NotFoundHandler()})
	if err := tracing.Instrument(rt, tracing.Options{Provider: provider}); err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(watttest.Start(t, rt).URL("web"), "http://")
	for _, request := range []string{"GET /well HTTP/1.1\r\nHost: shop\r\n", "GET /%ff HTTP/1.1\r\nHost: shop\r\nUser-Agent: \xff\r\n"} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, request+"Connection: close\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if err := provider.ForceFlush(t.Context()); err != nil {
		t.Error(err)
	}
	all := r.spans()
	if len(all) != 2 {
		t.Errorf("got %d spans, want 2", len(all))
	}
	for _, s := range all {
		for _, kv := range s.GetAttributes() {
			if text := kv.GetValue().GetStringValue(); !utf8.ValidString(text) {
				t.Errorf("%s is %q", kv.GetKey(), text)
			}
		}
	}
}

// TestWhatStrangersHaveFetchedLosesNoSpans: what they name may be no text.
func TestWhatStrangersHaveFetchedLosesNoSpans(t *testing.T) {
	r, provider := exporting(t)
	rt := watt.New(watt.App{Name: "fetch", Listen: "127.0.0.1:0", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			resp, err := env.Get(r.Context(), r.URL.Query().Get("from"))
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			resp.Body.Close()
		}), nil
	}})
	if err := tracing.Instrument(rt, tracing.Options{Provider: provider}); err != nil {
		t.Fatal(err)
	}
	top := watttest.Start(t, rt)
	for _, from := range []string{"http://%25ff.watt.local/", "http://%25ff.example/"} {
		if status := get(t, top.URL("fetch")+"/?from="+from, ""); status != http.StatusBadGateway {
			t.Errorf("%s: got %d", from, status)
		}
	}
	if err := provider.ForceFlush(t.Context()); err != nil {
		t.Error(err)
	}
	if all := r.spans(); len(all) != 2 { // a call to what cannot be a name has none
		t.Errorf("got %d spans, want 2", len(all))
	}
}
