package tracing_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/org/watt"
	"github.com/org/watt/tracing"
)

// BenchmarkRequest is a request to a gateway that calls an app.
func BenchmarkRequest(b *testing.B) {
	for name, sampler := range map[string]sdk.Sampler{"off": nil, "unsampled": sdk.NeverSample(), "sampled": sdk.AlwaysSample()} {
		b.Run(name, func(b *testing.B) {
			rt := watt.New(
				watt.App{Name: "gateway", Calls: []string{"orders"}, New: newGateway},
				watt.App{Name: "orders", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "tea") })},
			)
			if sampler != nil {
				provider := sdk.NewTracerProvider(sdk.WithSampler(sdk.ParentBased(sampler)))
				if err := tracing.Instrument(rt, tracing.Options{Provider: provider}); err != nil {
					b.Fatal(err)
				}
			}
			ctx := context.Background()
			if err := rt.Start(ctx); err != nil {
				b.Fatal(err)
			}
			defer rt.Shutdown(ctx)
			client := rt.Env()
			b.ReportAllocs()
			for b.Loop() {
				resp, err := client.Get(ctx, "http://gateway.watt.local/home/7")
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}
