package tracing_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/org/watt"
	"github.com/org/watt/tracing"
	"github.com/org/watt/watttest"
)

func TestMain(m *testing.M) { watttest.Main(m, elsewhere, pair) }

// receiverVariable tells the processes of a test where spans are to be sent.
const receiverVariable = "TRACING_TEST_RECEIVER"

// instrumented starts a gateway in front of orders, and returns its URL and what spans it makes.
func instrumented(t *testing.T, o tracing.Options, orders http.Handler) (url string, exporter *tracetest.InMemoryExporter) {
	t.Helper()
	exporter = tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(exporter))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	rt := watt.New(
		watt.App{Name: "gateway", Listen: "127.0.0.1:0", Calls: []string{"orders"}, New: newGateway},
		watt.App{Name: "orders", Handler: orders, Workers: 1, Queue: -1},
	)
	o.Provider = provider
	if err := tracing.Instrument(rt, o); err != nil {
		t.Fatal(err)
	}
	return watttest.Start(t, rt).URL("gateway"), exporter
}

func newGateway(_ context.Context, env *watt.Env) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /home/{id}", func(w http.ResponseWriter, r *http.Request) {
		resp, err := env.Get(r.Context(), "http://orders.watt.local/of/"+r.PathValue("id")+"?"+r.URL.RawQuery)
		if err != nil {
			watt.WriteError(w, err)
			return
		}
		defer resp.Body.Close()
		io.Copy(w, resp.Body)
	})
	return mux, nil
}

func get(t *testing.T, url, traceparent string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if traceparent != "" {
		req.Header.Set("Traceparent", traceparent)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// ended waits for so many spans, and returns all, in the order in which they began.
func ended(t *testing.T, exporter *tracetest.InMemoryExporter, n int) tracetest.SpanStubs {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if got := exporter.GetSpans(); len(got) >= n {
			slices.SortFunc(got, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
			return got
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("got %d spans, want %d", len(exporter.GetSpans()), n)
		}
	}
}

// has reports whether a span has an attribute.
func has(s *tracetest.SpanStub, key attribute.Key, value any) bool {
	return slices.ContainsFunc(s.Attributes, func(kv attribute.KeyValue) bool { return kv.Key == key && kv.Value.AsInterface() == value })
}

func TestARequestAndItsCallsAreOneTrace(t *testing.T) {
	url, exporter := instrumented(t, tracing.Options{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "tea") }))
	if status := get(t, url+"/home/7", ""); status != http.StatusOK {
		t.Fatalf("got %d", status)
	}
	all := ended(t, exporter, 3)
	gateway, call, orders := &all[0], &all[1], &all[2]
	if gateway.Name != "GET /home/{id}" || call.Name != "GET orders" || orders.Name != "GET" {
		t.Errorf("got the names %q, %q, %q", gateway.Name, call.Name, orders.Name)
	}
	if gateway.SpanKind != trace.SpanKindServer || call.SpanKind != trace.SpanKindClient || orders.SpanKind != trace.SpanKindServer {
		t.Errorf("got the kinds %v, %v, %v", gateway.SpanKind, call.SpanKind, orders.SpanKind)
	}
	if call.Parent.SpanID() != gateway.SpanContext.SpanID() || orders.Parent.SpanID() != call.SpanContext.SpanID() ||
		orders.SpanContext.TraceID() != gateway.SpanContext.TraceID() {
		t.Error("the spans do not follow from each other")
	}
	for _, want := range []struct {
		span  *tracetest.SpanStub
		key   attribute.Key
		value any
	}{
		{gateway, "watt.app", "gateway"},
		{gateway, "watt.instance", int64(0)},
		{gateway, "http.response.status_code", int64(200)},
		{gateway, "http.route", "/home/{id}"},
		{gateway, "http.request.method", "GET"},
		{call, "watt.app", "orders"},
		{call, "server.address", "orders.watt.local"},
		{orders, "watt.app", "orders"},
		{orders, "watt.caller", "gateway"},
		{orders, "url.path", "/of/7"},
	} {
		if !has(want.span, want.key, want.value) {
			t.Errorf("%s: no %s=%v in %v", want.span.Name, want.key, want.value, want.span.Attributes)
		}
	}
	for _, s := range []*tracetest.SpanStub{gateway, orders} {
		if len(s.Events) == 0 || s.Events[0].Name != "watt.queued" || s.Events[0].Attributes[0].Value.AsFloat64() <= 0 {
			t.Errorf("%s: got the events %v", s.Name, s.Events)
		}
	}
}

func TestACallIsNamedAfterItsAppHoweverThatIsWritten(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	rt := watt.New(watt.App{Name: "orders", Handler: http.NotFoundHandler()})
	if err := tracing.Instrument(rt, tracing.Options{Provider: sdk.NewTracerProvider(sdk.WithSyncer(exporter))}); err != nil {
		t.Fatal(err)
	}
	watttest.Start(t, rt)
	resp, err := rt.Env().Get(t.Context(), "http://ORDERS.watt.local.:80/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if call := &ended(t, exporter, 2)[0]; call.Name != "GET orders" || !has(call, "watt.app", "orders") {
		t.Errorf("got %q, %v", call.Name, call.Attributes)
	}
}

const strangers = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestInstrumentedTwiceNothingStarts(t *testing.T) {
	for name, app := range map[string]watt.App{
		"Handler": {Name: "app", Handler: http.NotFoundHandler()},
		"New":     {Name: "app", New: func(context.Context, *watt.Env) (http.Handler, error) { return http.NotFoundHandler(), nil }},
	} {
		rt := watt.New(app)
		for range 2 {
			if err := tracing.Instrument(rt, tracing.Options{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := rt.Start(t.Context()); err == nil || !strings.Contains(err.Error(), `app "app": start: tracing: Instrument was called twice`) {
			t.Errorf("%s: got %v", name, err)
			_ = rt.Shutdown(t.Context())
		}
	}
}

// TestClientsAreTrustedOnlyIfTheyAreToBe, nor could strangers have nothing sampled.
func TestClientsAreTrustedOnlyIfTheyAreToBe(t *testing.T) {
	for _, c := range []struct {
		sent  string
		trust bool
	}{{strangers, false}, {strangers, true}, {strings.TrimSuffix(strangers, "1") + "0", false}} {
		url, exporter := instrumented(t, tracing.Options{TrustClients: c.trust}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		get(t, url+"/home/7", c.sent)
		gateway := &ended(t, exporter, 3)[0]
		follows := gateway.SpanContext.TraceID().String() == "0af7651916cd43dd8448eb211c80319c"
		if follows != c.trust || !c.trust && len(gateway.Links) != 1 {
			t.Errorf("%s, trust %v: follows %v, links %v", c.sent, c.trust, follows, gateway.Links)
		}
	}
}

func TestWhatIsShedShows(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{}, 1)
	url, exporter := instrumented(t, tracing.Options{}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		held <- struct{}{}
		<-hold
	}))
	first := make(chan int, 1)
	go func() { first <- get(t, url+"/home/1", "") }()
	<-held
	if status := get(t, url+"/home/2", ""); status != http.StatusServiceUnavailable {
		t.Errorf("got %d, want 503", status)
	}
	all := ended(t, exporter, 2) // the gateway's and its call's; nobody served it
	call := &all[1]
	if !has(call, "watt.error", "overloaded") || call.Status.Description == "" {
		t.Errorf("got %v and %v", call.Attributes, call.Status)
	}
	if !slices.ContainsFunc(call.Events, func(e sdk.Event) bool {
		return e.Name == "watt.shed" && len(e.Attributes) == 1 && e.Attributes[0].Value.AsFloat64() > 0
	}) {
		t.Errorf("got the events %v", call.Events)
	}
	close(hold)
	<-first
}

// pairSpans has the spans of pair's first process.
var pairSpans = tracetest.NewInMemoryExporter()

// pair has two instances of orders in processes of their own, each of which takes on one request at a time.
func pair() *watt.Runtime {
	rt := watt.New(
		watt.App{Name: "gateway", Listen: "127.0.0.1:0", Calls: []string{"orders"}, New: newGateway},
		watt.App{
			Name: "orders", Isolation: watt.OwnProcess, Instances: 2, Workers: 1, Queue: -1,
			New: func(context.Context, *watt.Env) (http.Handler, error) { return http.NotFoundHandler(), nil },
		},
		watt.App{Name: "other", Handler: http.NotFoundHandler()}, // a child of elsewhere is none of pair
	)
	if err := tracing.Instrument(rt, tracing.Options{Provider: sdk.NewTracerProvider(sdk.WithSyncer(pairSpans))}); err != nil {
		panic(err)
	}
	return rt
}

func TestWhatIsSentOnceMoreShows(t *testing.T) {
	url := watttest.Start(t, pair()).URL("gateway")
	pairSpans.Reset()
	get(t, url+"/home/1", "")
	if n := retries(ended(t, pairSpans, 2)); n != 0 {
		t.Errorf("got %d retries of a single request", n)
	}
	pairSpans.Reset()
	for deadline := time.Now().Add(10 * time.Second); retries(pairSpans.GetSpans()) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("of many requests at a time, none was refused by one instance and sent to the other")
		}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() { get(t, url+"/home/1", "") })
		}
		all.Wait()
	}
}

func retries(all tracetest.SpanStubs) (n int) {
	for _, s := range all {
		for _, e := range s.Events {
			if e.Name == "watt.retry" {
				n++
			}
		}
	}
	return n
}

// TestWhatIsNotSampledStaysSo counts spans where every second trace is sampled: it has all of its spans, or none, those
// included that a handler begins itself.
func TestWhatIsNotSampledStaysSo(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(exporter), sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(0.5))))
	var behind sync.Map // the trace that each request belonged to, as the last app sees it
	rt := watt.New(
		watt.App{Name: "gateway", Listen: "127.0.0.1:0", Calls: []string{"orders"}, New: newGateway},
		watt.App{Name: "orders", Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, query := provider.Tracer("database").Start(r.Context(), "query")
			query.End()
			id := r.Header.Get("Traceparent")[3:35]
			if got := query.SpanContext().TraceID().String(); got != id {
				t.Errorf("the handler's own span belongs to %s, want %s", got, id)
			}
			behind.Store(id, true)
		})},
	)
	if err := tracing.Instrument(rt, tracing.Options{Provider: provider}); err != nil {
		t.Fatal(err)
	}
	url := watttest.Start(t, rt).URL("gateway")
	const n = 40
	for range n {
		get(t, url+"/home/7", strangers)
	}
	traces := make(map[trace.TraceID]int)
	for _, s := range exporter.GetSpans() {
		traces[s.SpanContext.TraceID()]++
	}
	if len(traces) == 0 || len(traces) == n {
		t.Errorf("%d of %d traces are sampled", len(traces), n)
	}
	for id, spans := range traces {
		if spans != 4 {
			t.Errorf("%v has %d spans", id, spans)
		}
	}
	seen := 0
	behind.Range(func(id, _ any) bool {
		if seen++; id == strangers[3:35] {
			t.Error("a stranger's trace has got to orders")
		}
		return true
	})
	if seen != n {
		t.Errorf("orders saw %d traces, want %d", seen, n)
	}
}

// stateful is a sampler that samples nothing, and says so in the state of the trace.
type stateful struct{ sdk.Sampler }

func (s stateful) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	result := s.Sampler.ShouldSample(p)
	result.Tracestate, _ = result.Tracestate.Insert("sampler", "off")
	return result
}

// TestHeadersThatArePassedOnNameTheRequestsOwnTrace has a gateway pass on the headers of a stranger, as proxies do.
func TestHeadersThatArePassedOnNameTheRequestsOwnTrace(t *testing.T) {
	begin := func(sampler sdk.Sampler) func(context.Context) context.Context {
		return func(ctx context.Context) context.Context {
			ctx, _ = sdk.NewTracerProvider(sdk.WithSampler(sampler)).Tracer("other").Start(ctx, "other", trace.WithNewRoot())
			return ctx
		}
	}
	for name, test := range map[string]struct {
		sampler               sdk.Sampler
		within                func(context.Context) context.Context // of the request's, what the call is made with
		flags, state, baggage string
	}{
		"sampled":                           {sampler: sdk.AlwaysSample(), flags: "01"},
		"not sampled":                       {sampler: sdk.NeverSample(), flags: "00"},
		"with a state":                      {sampler: stateful{sdk.NeverSample()}, flags: "00", state: "sampler=off"},
		"of another trace":                  {sampler: sdk.NeverSample(), flags: "01", within: begin(sdk.AlwaysSample())},
		"of one that is not sampled either": {sampler: sdk.NeverSample(), flags: "00", within: begin(sdk.NeverSample())},
		"of a message's": {sampler: sdk.AlwaysSample(), flags: "00", within: func(ctx context.Context) context.Context {
			return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}}))
		}},
		"with baggage": {sampler: sdk.NeverSample(), flags: "00", baggage: "a=1", within: func(ctx context.Context) context.Context {
			all, _ := baggage.Parse("a=1")
			return baggage.ContextWithBaggage(ctx, all)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var want string
			got := make(http.Header)
			rt := watt.New(
				watt.App{Name: "gateway", Listen: "127.0.0.1:0", Calls: []string{"orders"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
					return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						ctx := r.Context()
						if test.within != nil {
							ctx = test.within(ctx)
						}
						want = trace.SpanContextFromContext(ctx).TraceID().String()
						req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://orders.watt.local/", http.NoBody)
						if err != nil {
							t.Error(err)
							return
						}
						req.Header = r.Header
						before := r.Header.Clone()
						resp, err := env.Client.Transport.RoundTrip(req)
						if err != nil {
							t.Error(err)
							return
						}
						resp.Body.Close()
						if !maps.EqualFunc(before, r.Header, slices.Equal) {
							t.Errorf("the call has changed the headers %v to %v", before, r.Header)
						}
					}), nil
				}},
				watt.App{Name: "orders", Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header })},
			)
			o := tracing.Options{Provider: sdk.NewTracerProvider(sdk.WithSampler(sdk.ParentBased(test.sampler)))}
			if err := tracing.Instrument(rt, o); err != nil {
				t.Fatal(err)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, watttest.Start(t, rt).URL("gateway"), http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Traceparent", strangers)
			req.Header.Set("Tracestate", "stranger=1")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			parent := got.Get("Traceparent")
			if len(parent) != len(strangers) || parent[3:35] != want || parent[53:] != test.flags {
				t.Errorf("got the trace %q, want %s and flags %s", parent, want, test.flags)
			}
			if got.Get("Tracestate") != test.state || got.Get("Baggage") != test.baggage {
				t.Errorf("got the state %q and baggage %q, want %q and %q", got.Get("Tracestate"), got.Get("Baggage"), test.state, test.baggage)
			}
		})
	}
}

func TestACallForAMessageBelongsToItsTrace(t *testing.T) {
	message := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}})
	var got []string
	rt := watt.New(
		watt.App{Name: "gateway", Calls: []string{"orders"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				for _, ctx := range []context.Context{r.Context(), trace.ContextWithRemoteSpanContext(r.Context(), message)} {
					resp, err := env.Get(ctx, "http://orders.watt.local/")
					if err != nil {
						t.Error(err)
						return
					}
					resp.Body.Close()
				}
			}), nil
		}},
		watt.App{Name: "orders", Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = append(got, trace.SpanContextFromContext(r.Context()).TraceID().String())
		})},
	)
	if err := tracing.Instrument(rt, tracing.Options{Provider: sdk.NewTracerProvider()}); err != nil {
		t.Fatal(err)
	}
	request := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{2}, SpanID: trace.SpanID{2}}) // neither is sampled
	watttest.Start(t, rt)
	resp, err := rt.Env().Get(trace.ContextWithRemoteSpanContext(t.Context(), request), "http://gateway.watt.local/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if want := []string{request.TraceID().String(), message.TraceID().String()}; !slices.Equal(got, want) {
		t.Errorf("got the traces %v, want %v", got, want)
	}
}

// elsewhereNamed is W3C's propagator, with headers of other names.
type elsewhereNamed struct{ propagation.TraceContext }

type otherNames struct{ propagation.TextMapCarrier }

func (c otherNames) Get(name string) string { return c.TextMapCarrier.Get("other-" + name) }
func (c otherNames) Set(name, value string) { c.TextMapCarrier.Set("other-"+name, value) }

func (p elsewhereNamed) Inject(ctx context.Context, c propagation.TextMapCarrier) {
	p.TraceContext.Inject(ctx, otherNames{c})
}

func (p elsewhereNamed) Extract(ctx context.Context, c propagation.TextMapCarrier) context.Context {
	return p.TraceContext.Extract(ctx, otherNames{c})
}

func TestOtherPropagatorsTellTheTraceToo(t *testing.T) {
	for name, sampler := range map[string]sdk.Sampler{"sampled": sdk.AlwaysSample(), "not sampled": sdk.NeverSample()} {
		t.Run(name, func(t *testing.T) {
			var first, last trace.SpanContext
			var header http.Header
			rt := watt.New(
				watt.App{Name: "gateway", Calls: []string{"orders"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
					return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						first = trace.SpanContextFromContext(r.Context())
						resp, err := env.Get(r.Context(), "http://orders.watt.local/")
						if err != nil {
							t.Error(err)
							return
						}
						resp.Body.Close()
					}), nil
				}},
				watt.App{Name: "orders", Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					last, header = trace.SpanContextFromContext(r.Context()), r.Header
				})},
			)
			o := tracing.Options{Provider: sdk.NewTracerProvider(sdk.WithSampler(sdk.ParentBased(sampler))), Propagators: elsewhereNamed{}}
			if err := tracing.Instrument(rt, o); err != nil {
				t.Fatal(err)
			}
			watttest.Start(t, rt).Get("http://gateway.watt.local/")
			if !first.IsValid() || last.TraceID() != first.TraceID() || last.IsSampled() != (name == "sampled") || header["Traceparent"] != nil {
				t.Errorf("got %v in orders and %v in the gateway, headers %v", last, first, header)
			}
		})
	}
}

func TestWhereNoSpansAreMadeNoTraceIsTold(t *testing.T) {
	var got http.Header
	rt := watt.New(watt.App{Name: "orders", Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header })})
	if err := tracing.Instrument(rt, tracing.Options{Provider: noop.NewTracerProvider()}); err != nil {
		t.Fatal(err)
	}
	watttest.Start(t, rt).Get("http://orders.watt.local/")
	if got == nil || got["Traceparent"] != nil {
		t.Errorf("got the headers %v", got)
	}
}

func TestBaggageGoesAlongWhereNothingIsSampledToo(t *testing.T) {
	for name, test := range map[string]struct{ first, gateway, users, want string }{
		"of each":      {"", "gateway=1", "users=1", "gateway=1 users=1"},
		"of a client":  {"tenant=7", "gateway=1", "users=1", "gateway=1 tenant=7 users=1"},
		"of the later": {"", "", "users=1", "users=1"},
	} {
		t.Run(name, func(t *testing.T) {
			var begun, last string
			add := func(member, calls string) func(context.Context, *watt.Env) (http.Handler, error) {
				return func(_ context.Context, env *watt.Env) (http.Handler, error) {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if span := trace.SpanContextFromContext(r.Context()); begun == "" {
							begun = span.TraceID().String()
						}
						all, err := baggage.Parse(member)
						if err != nil {
							t.Error(err)
						}
						for _, m := range baggage.FromContext(r.Context()).Members() {
							if all, err = all.SetMember(m); err != nil {
								t.Error(err)
							}
						}
						resp, err := env.Get(baggage.ContextWithBaggage(r.Context(), all), calls)
						if err != nil {
							t.Error(err)
							return
						}
						defer resp.Body.Close()
						io.Copy(w, resp.Body)
					}), nil
				}
			}
			rt := watt.New(
				watt.App{Name: "gateway", Listen: "127.0.0.1:0", Calls: []string{"users"}, New: add(test.gateway, "http://users.watt.local/")},
				watt.App{Name: "users", Calls: []string{"orders"}, New: add(test.users, "http://orders.watt.local/")},
				watt.App{Name: "orders", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					last = r.Header.Get("Traceparent")
					members := strings.Split(r.Header.Get("Baggage"), ",")
					slices.Sort(members)
					io.WriteString(w, strings.Join(members, " "))
				})},
			)
			o := tracing.Options{Provider: sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample()))}
			if err := tracing.Instrument(rt, o); err != nil {
				t.Fatal(err)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, watttest.Start(t, rt).URL("gateway"), http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			if test.first != "" {
				req.Header.Set("Baggage", test.first)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
			if !strings.HasPrefix(last, "00-"+begun) {
				t.Errorf("orders saw %q, want the trace %s", last, begun)
			}
		})
	}
}

// served starts orders alone, with main's runtime, its URL, and the spans.
func served(t *testing.T, orders http.HandlerFunc) (rt *watt.Runtime, url string, provider *sdk.TracerProvider, exporter *tracetest.InMemoryExporter) {
	t.Helper()
	exporter = tracetest.NewInMemoryExporter()
	provider = sdk.NewTracerProvider(sdk.WithSyncer(exporter))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	rt = watt.New(watt.App{Name: "orders", Listen: "127.0.0.1:0", Handler: orders})
	if err := tracing.Instrument(rt, tracing.Options{Provider: provider}); err != nil {
		t.Fatal(err)
	}
	return rt, watttest.Start(t, rt).URL("orders"), provider, exporter
}

// TestAnswersAreDescribed has orders answer in many ways, and looks at what is said of them.
func TestAnswersAreDescribed(t *testing.T) {
	for _, test := range []struct {
		name    string
		answer  http.HandlerFunc
		status  any // that is recorded
		size    any
		failure any
	}{
		{"empty", func(http.ResponseWriter, *http.Request) {}, int64(200), int64(0), nil},
		{"written", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "tea") }, int64(200), int64(3), nil},
		{"copied", func(w http.ResponseWriter, _ *http.Request) {
			io.Copy(w, io.LimitReader(neverending('x'), 100_000))
		}, int64(200), int64(100_000), nil},
		{"failed", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, int64(502), int64(0), "502"},
		{"panic", func(http.ResponseWriter, *http.Request) { panic("on purpose") }, int64(500), int64(0), "panic"},
		{"late panic", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "tea")
			panic("on purpose")
		}, int64(200), int64(3), "panic"},
		{"given up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil, nil, "aborted"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "tea")
			panic(http.ErrAbortHandler)
		}, int64(200), int64(3), "aborted"},
		{"cut off where nobody is left", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "tea")
			_ = http.NewResponseController(w).Flush() // whereupon the client leaves
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}, int64(200), int64(3), nil},
		{"taken over", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "HTTP/1.1 418 I'm a teapot\r\nConnection: close\r\n\r\n")
			conn.Close()
		}, nil, nil, nil},
	} {
		_, url, _, exporter := served(t, test.answer)
		send(t, url, "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n", strings.HasSuffix(test.name, "left"))
		s := &ended(t, exporter, 1)[0]
		status, size, failure := value(s.Attributes, "http.response.status_code"), value(s.Attributes, "http.response.body.size"), value(s.Attributes, "error.type")
		if status != test.status || size != test.size || failure != test.failure || (s.Status.Code == codes.Error) != (failure != nil) {
			t.Errorf("%s: got status %v, %v bytes, error.type %v, %v", test.name, status, size, failure, s.Status)
		}
	}
}

// TestWhereAHandlerAnswersNothingTheSpanSaysWhatTheRuntimeAnswers: who looks for what has failed finds it.
func TestWhereAHandlerAnswersNothingTheSpanSaysWhatTheRuntimeAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exporter := tracetest.NewInMemoryExporter()
		provider := sdk.NewTracerProvider(sdk.WithSyncer(exporter))
		hangs := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		rt := watt.New(
			watt.App{Name: "patient", Handler: hangs, DrainTimeout: time.Second},
			watt.App{Name: "hasty", Handler: hangs, Timeout: time.Second},
		)
		if err := tracing.Instrument(rt, tracing.Options{Provider: provider}); err != nil {
			t.Fatal(err)
		}
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		late, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		left, leave := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, leave)
		group, leaveToo := context.WithCancelCause(t.Context()) // as of an errgroup
		time.AfterFunc(7*time.Second/2, func() { leaveToo(&watt.CallError{App: "other", Err: watt.ErrUnavailable}) })
		time.AfterFunc(4*time.Second, func() { _ = rt.Shutdown(context.Background()) })
		for _, test := range []struct {
			app     string
			ctx     context.Context // the caller's
			status  int64
			failure any
		}{
			{"hasty", t.Context(), 504, "504"},
			{"patient", late, 504, "504"},
			{"patient", left, 499, nil},
			{"patient", group, 499, nil},
			{"patient", t.Context(), 503, "503"}, // cut by the drain
		} {
			exporter.Reset()
			if resp, err := rt.Env().Get(test.ctx, "http://"+test.app+".watt.local/"); err == nil {
				resp.Body.Close()
			}
			synctest.Wait()
			all := exporter.GetSpans() // the call's and the request's, in either order
			s := &all[slices.IndexFunc(all, func(s tracetest.SpanStub) bool { return s.SpanKind == trace.SpanKindServer })]
			if status, failure := value(s.Attributes, "http.response.status_code"), value(s.Attributes, "error.type"); status != test.status || failure != test.failure {
				t.Errorf("got status %v, error.type %v, want %d, %v", status, failure, test.status, test.failure)
			}
		}
	})
}

// neverending is a reader of one byte.
type neverending byte

func (b neverending) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

// send sends a request as it stands, and waits for the end of the answer, or if it leaves only for its beginning.
func send(t *testing.T, url, request string, leaves bool) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, request)
	if leaves {
		conn.Read(make([]byte, 1))
		return
	}
	io.Copy(io.Discard, conn)
}

func value(all []attribute.KeyValue, key attribute.Key) any {
	for _, kv := range all {
		if kv.Key == key {
			return kv.Value.AsInterface()
		}
	}
	return nil
}

func TestTheRouteIsThatOfARouterOfChiToo(t *testing.T) {
	orders := chi.NewRouter()
	orders.Use(middleware.GetHead) // which asks the routing context for its router
	orders.Route("/of", func(r chi.Router) { r.Get("/{id}", func(http.ResponseWriter, *http.Request) {}) })
	for path, name := range map[string]string{"/home/7": "GET /of/{id}", "/home/7%2F8": "GET /of/*"} {
		url, exporter := instrumented(t, tracing.Options{}, orders)
		get(t, url+path, "")
		if got := ended(t, exporter, 3)[2]; got.Name != name {
			t.Errorf("%s: got the name %q, want %q", path, got.Name, name)
		}
	}
}

func TestQueriesOfStrangersAreNotInSpans(t *testing.T) {
	url, exporter := instrumented(t, tracing.Options{}, http.NotFoundHandler())
	get(t, url+"/home/7?key=secret", "")
	for _, s := range ended(t, exporter, 3) {
		if text := fmt.Sprint(s.Name, s.Attributes, s.Events); strings.Contains(text, "secret") {
			t.Errorf("got %s", text)
		}
	}
}

func TestTheCalleeOfACallerThatIsDrainedHasNoError(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	came := make(chan struct{})
	rt := watt.New(
		watt.App{Name: "gateway", Calls: []string{"orders"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				watt.LongLived(r.Context())
				_, err := env.Get(r.Context(), "http://orders.watt.local/")
				watt.WriteError(w, err)
			}), nil
		}},
		watt.App{Name: "orders", Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(came)
			<-r.Context().Done()
		})},
	)
	provider := sdk.NewTracerProvider(sdk.WithSyncer(exporter))
	if err := tracing.Instrument(rt, tracing.Options{Provider: provider}); err != nil {
		t.Fatal(err)
	}
	top := watttest.Start(t, rt)
	answered := make(chan int, 1)
	go func() {
		status, _ := top.Get("http://gateway.watt.local/")
		answered <- status
	}()
	<-came
	if err := rt.Restart("gateway", 0); err != nil {
		t.Fatal(err)
	}
	if status := <-answered; status != http.StatusServiceUnavailable {
		t.Errorf("got %d of the gateway", status)
	}
	for _, s := range ended(t, exporter, 3) {
		if has(&s, "watt.app", "orders") && s.SpanKind == trace.SpanKindServer &&
			(s.Status.Code == codes.Error || !has(&s, "http.response.status_code", int64(499))) {
			t.Errorf("got %v, %v", s.Status, s.Attributes)
		}
	}
}

func TestAPanicGoesOn(t *testing.T) {
	rt := watt.New(watt.App{Name: "app", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("on purpose") })})
	provider := sdk.NewTracerProvider()
	if err := tracing.Instrument(rt, tracing.Options{Provider: provider}); err != nil {
		t.Fatal(err)
	}
	if status, _ := watttest.Start(t, rt).Get("http://app.watt.local/"); status != http.StatusInternalServerError || rt.Status()[0].Panics != 1 {
		t.Errorf("got %d and %d panics, want 500 and one", status, rt.Status()[0].Panics)
	}
}

func TestUnknownMethodsMakeNoNames(t *testing.T) {
	_, url, _, exporter := served(t, func(http.ResponseWriter, *http.Request) {})
	send(t, url, "BREW /pot HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n", false)
	s := &ended(t, exporter, 1)[0]
	if s.Name != "HTTP" || !has(s, "http.request.method", "_OTHER") || !has(s, "http.request.method_original", "BREW") {
		t.Errorf("got the name %q and %v", s.Name, s.Attributes)
	}
}

func TestWhatMainCallsIsPartOfItsTrace(t *testing.T) {
	rt, _, provider, exporter := served(t, func(http.ResponseWriter, *http.Request) {})
	ctx, span := provider.Tracer("main").Start(t.Context(), "nightly")
	resp, err := rt.Env().Get(ctx, "http://orders.watt.local/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	span.End()
	for _, s := range ended(t, exporter, 3) {
		if s.SpanContext.TraceID() != span.SpanContext().TraceID() {
			t.Errorf("%v %s is in a trace of its own", s.SpanKind, s.Name)
		}
	}
}

// sampler notes what it is asked about.
type sampler chan sdk.SamplingParameters

func (s sampler) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	s <- p
	return sdk.SamplingResult{Decision: sdk.Drop}
}

func (s sampler) Description() string { return "asks" }

func TestASamplerSeesWhatItIsAskedAbout(t *testing.T) {
	asked := make(sampler, 1)
	rt := watt.New(watt.App{Name: "orders", Listen: "127.0.0.1:0", Handler: http.NotFoundHandler()})
	if err := tracing.Instrument(rt, tracing.Options{Provider: sdk.NewTracerProvider(sdk.WithSampler(asked))}); err != nil {
		t.Fatal(err)
	}
	get(t, watttest.Start(t, rt).URL("orders")+"/healthz", "")
	p := <-asked
	for key, want := range map[attribute.Key]any{
		"url.path": "/healthz", "url.scheme": "http", "http.request.method": "GET", "watt.app": "orders", "watt.instance": int64(0),
	} {
		if got := value(p.Attributes, key); got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
}

func TestAHandlerStillFlushesAndTakesConnectionsOver(t *testing.T) {
	url, _ := instrumented(t, tracing.Options{}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "first")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	}))
	if status := get(t, url+"/home/7", ""); status != http.StatusOK {
		t.Errorf("got %d", status)
	}
}

func TestTrailersOfARequestGoAlong(t *testing.T) {
	for name, sampler := range map[string]sdk.Sampler{"sampled": sdk.AlwaysSample(), "not sampled": sdk.NeverSample()} {
		t.Run(name, func(t *testing.T) {
			sum := watt.App{Name: "sum", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				fmt.Fprint(w, string(body), err, r.Trailer)
			})}
			rt := watt.New(proxying("sum"), sum)
			if err := tracing.Instrument(rt, tracing.Options{Provider: sdk.NewTracerProvider(sdk.WithSampler(sampler))}); err != nil {
				t.Fatal(err)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, watttest.Start(t, rt).URL("gateway"), io.MultiReader(strings.NewReader("body ")))
			if err != nil {
				t.Fatal(err)
			}
			req.Trailer = http.Header{"X-Sum": {"42"}}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); string(got) != "body <nil> map[X-Sum:[42]]" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestFilesOfAFormAreGoneAfterTheRequest(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	left := func() []os.DirEntry {
		found, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	parse := func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil || len(left()) == 0 {
			t.Errorf("got %v and %v, want a file", err, left())
		}
	}
	router := chi.NewRouter() // which makes a copy of its own where nobody asks for the route
	router.Post("/", parse)
	for name, sampler := range map[string]sdk.Sampler{"sampled": sdk.AlwaysSample(), "routed": sdk.AlwaysSample(), "not sampled": sdk.NeverSample()} {
		rt := watt.New(watt.App{Name: "forms", Listen: "127.0.0.1:0", Handler: http.HandlerFunc(parse)})
		if name == "routed" {
			_ = rt.Update("forms", func(a *watt.App) { a.Handler = router })
		}
		if err := tracing.Instrument(rt, tracing.Options{Provider: sdk.NewTracerProvider(sdk.WithSampler(sampler))}); err != nil {
			t.Fatal(err)
		}
		for _, url := range []string{watttest.Start(t, rt).URL("forms"), "http://forms.watt.local"} {
			var body bytes.Buffer
			form := multipart.NewWriter(&body)
			part, err := form.CreateFormFile("picture", "picture.jpg")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = part.Write(make([]byte, 1<<10))
			_ = form.Close()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, &body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", form.FormDataContentType())
			req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
			req.Header.Set("Baggage", "a=b")
			resp, err := rt.Env().Client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := left(); len(got) > 0 {
				t.Errorf("%s, %s: got %d files left", name, url, len(got))
			}
		}
	}
}

// proxying is a gateway that passes everything on to app.
func proxying(app string) watt.App {
	return watt.App{Name: "gateway", Listen: "127.0.0.1:0", Calls: []string{app}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return &httputil.ReverseProxy{Transport: env.Client.Transport, Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: app + ".watt.local"})
			r.Out.Trailer = r.In.Trailer // the very map: it fills when the body has been read
		}}, nil
	}}
}

// TestAConnectionTakenOverEndsOneDirectionAtATime has a client end its own, and the app behind a proxy answer that.
func TestAConnectionTakenOverEndsOneDirectionAtATime(t *testing.T) {
	for name, sampler := range map[string]sdk.Sampler{"sampled": sdk.AlwaysSample(), "not sampled": sdk.NeverSample()} {
		t.Run(name, func(t *testing.T) {
			chat := watt.App{Name: "chat", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Connection", "Upgrade")
				w.Header().Set("Upgrade", "websocket")
				w.WriteHeader(http.StatusSwitchingProtocols)
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				said, _ := io.ReadAll(rw)
				io.WriteString(conn, "heard "+string(said))
			})}
			rt := watt.New(proxying("chat"), chat)
			if err := tracing.Instrument(rt, tracing.Options{Provider: sdk.NewTracerProvider(sdk.WithSampler(sampler))}); err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", strings.TrimPrefix(watttest.Start(t, rt).URL("gateway"), "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			in := bufio.NewReader(conn)
			if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("got %v, %v", resp, err)
			}
			io.WriteString(conn, "all")
			conn.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(in); string(got) != "heard all" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// elsewhere is a gateway in front of orders in a process of its own, both of which send their spans to the receiver.
func elsewhere() *watt.Runtime {
	rt := watt.New(
		watt.App{Name: "gateway", Listen: "127.0.0.1:0", Calls: []string{"orders"}, New: newGateway},
		watt.App{Name: "orders", Isolation: watt.OwnProcess, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil
		}},
	)
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(os.Getenv(receiverVariable)))
	if err != nil {
		panic(err)
	}
	provider := sdk.NewTracerProvider(sdk.WithSyncer(exporter))
	if err := tracing.Instrument(rt, tracing.Options{Provider: provider}); err != nil {
		panic(err)
	}
	return rt
}

// receiver takes spans by OTLP over HTTP.
type receiver struct {
	mu  sync.Mutex
	all []*spans.Span
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var m collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(body, &m) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range m.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			r.all = append(r.all, scope.GetSpans()...)
		}
	}
}

func (r *receiver) spans() []*spans.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

func TestSpansOfAllProcessesBelongTogether(t *testing.T) {
	r := new(receiver)
	server := httptest.NewServer(r)
	defer server.Close()
	t.Setenv(receiverVariable, server.URL)
	top := watttest.Start(t, elsewhere())
	if status := get(t, top.URL("gateway")+"/home/7", ""); status != http.StatusOK {
		t.Fatalf("got %d", status)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); len(r.spans()) < 3; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("got %d spans, want 3", len(r.spans()))
		}
	}
	byKind := make(map[string]*spans.Span)
	for _, s := range r.spans() {
		for _, kv := range s.GetAttributes() {
			if kv.GetKey() == "watt.app" {
				byKind[s.GetKind().String()+" "+kv.GetValue().GetStringValue()] = s
			}
		}
	}
	gateway, call, orders := byKind["SPAN_KIND_SERVER gateway"], byKind["SPAN_KIND_CLIENT orders"], byKind["SPAN_KIND_SERVER orders"]
	if gateway == nil || call == nil || orders == nil {
		t.Fatalf("got %v", byKind)
	}
	if string(orders.GetParentSpanId()) != string(call.GetSpanId()) || string(call.GetParentSpanId()) != string(gateway.GetSpanId()) ||
		string(orders.GetTraceId()) != string(gateway.GetTraceId()) {
		t.Error("the spans do not follow from each other")
	}
}
