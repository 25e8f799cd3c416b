package wire_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
)

// BenchmarkRoundTrip compares wire with http.Transport over the same pipes.
func BenchmarkRoundTrip(b *testing.B) {
	answer := bytes.Repeat([]byte("x"), 1<<20)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size, _ := strconv.Atoi(r.URL.RawQuery)
		if r.ContentLength > 0 {
			io.Copy(io.Discard, r.Body)
		}
		w.Header()["Content-Length"] = []string{strconv.Itoa(size)}
		w.Write(answer[:size])
	})
	for _, test := range []struct {
		name         string
		sent, answer int
	}{{"GET-small", 0, 600}, {"POST-small", 600, 600}, {"POST-1MiB", 1 << 20, 2}, {"GET-1MiB", 0, 1 << 20}} {
		for _, transport := range []string{"wire", "Transport"} {
			b.Run(fmt.Sprintf("%s/%s", test.name, transport), func(b *testing.B) {
				pool, n := serve(b, handler)
				var rt http.RoundTripper = lean{pool}
				if transport == "Transport" {
					ordinary := &http.Transport{
						DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return n.dial(ctx) },
						DisableCompression: true,
					}
					defer ordinary.CloseIdleConnections()
					rt = ordinary
				}
				content := bytes.Repeat([]byte("y"), test.sent)
				ctx, cancel := context.WithCancel(b.Context())
				defer cancel()
				buf := make([]byte, 32<<10)
				b.SetBytes(int64(test.sent + test.answer))
				b.ReportAllocs()
				for b.Loop() {
					method, body := http.MethodGet, io.Reader(nil)
					if test.sent > 0 {
						method, body = http.MethodPost, bytes.NewReader(content)
					}
					req, _ := http.NewRequestWithContext(ctx, method, "http://callee/?"+strconv.Itoa(test.answer), body)
					resp, err := rt.RoundTrip(req)
					if err != nil {
						b.Fatal(err)
					}
					io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf)
					resp.Body.Close()
				}
			})
		}
	}
}
