package main

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/org/watt"
	"github.com/org/watt/tracing"
)

const (
	sendEvery = time.Second     // spans are sent; an instance of resize loses those of its last one
	sendLast  = 2 * time.Second // that sending the last ones may take
)

// trace has spans of all requests and calls be sent to the collector at addr, those of the processes of resize too. If
// addr is empty, there are none. The last ones go out with flush.
func trace(rt *watt.Runtime, addr string) (flush func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpoint(addr), otlptracehttp.WithInsecure())
	if err != nil {
		return nil, err
	}
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(exporter, sdk.WithBatchTimeout(sendEvery)),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "shop"))),
	)
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), sendLast)
		defer cancel()
		_ = provider.Shutdown(ctx) // OpenTelemetry has told on stderr what it could not send
	}, tracing.Instrument(rt, tracing.Options{Provider: provider})
}
