package main

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// received are the spans that a collector has got.
type received struct {
	mu  sync.Mutex
	all []*spans.Span
}

// ServeHTTP takes spans, by OTLP over HTTP.
func (r *received) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var m collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(body, &m) != nil {
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

// tree returns in order which apps have served what follows from the trace that begins with root, each behind those
// that it was called by: "gateway orders store".
func (r *received) tree(root string) (served []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.all {
		if s.GetName() == root && len(s.GetParentSpanId()) == 0 {
			served = append(served, r.belowLocked(s, "")...)
		}
	}
	slices.Sort(served)
	return served
}

func (r *received) belowLocked(s *spans.Span, way string) (served []string) {
	if s.GetKind() == spans.Span_SPAN_KIND_SERVER {
		for _, kv := range s.GetAttributes() {
			if kv.GetKey() == "watt.app" {
				way = strings.TrimSpace(way + " " + kv.GetValue().GetStringValue())
				served = append(served, way)
			}
		}
	}
	for _, child := range r.all {
		if string(child.GetParentSpanId()) == string(s.GetSpanId()) {
			served = append(served, r.belowLocked(child, way)...)
		}
	}
	return served
}

// TestTracesShowTheFanOut has a collector get what the processes of the shop have served.
func TestTracesShowTheFanOut(t *testing.T) {
	t.Parallel()
	got := new(received)
	server := httptest.NewServer(got)
	defer server.Close()
	cmd, stderr := command(t, "-addr", "127.0.0.1:0", "-data", t.TempDir(), "-trace", server.Listener.Addr().String())
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err, stderr)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	_, url, _ := strings.Cut(line, "http://")
	url, _, _ = strings.Cut("http://"+url, " ")
	paste(t, url+"/home/1")
	paste(t, "--data-binary @examples/shop/testdata/mandelbrot.jpg '"+url+"/pictures?user=1'")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for root, want := range map[string][]string{
		"GET /home/{id:[0-9]+}": {"gateway", "gateway orders", "gateway orders store", "gateway store", "gateway users", "gateway users store"},
		"POST /pictures":        {"gateway", "gateway resize", "gateway resize store"},
	} {
		for !slices.Equal(got.tree(root), want) {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("%s: got %q, want %q", root, got.tree(root), want)
			}
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("got %v and %q, want exit status 0 and silence", err, stderr)
	}
}
