//go:build !race

// Under the race detector sync.Pool drops things at random, so that what is allocated cannot be counted.

package direct_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/watt/internal/direct"
)

func TestACallCostsFewAllocations(t *testing.T) {
	common := sharing()
	for name, test := range map[string]struct {
		body    string
		handler http.HandlerFunc
		most    float64
	}{
		"a small GET":       {"", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }, 25},
		"a small POST":      {"hello", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }, 34},
		"a streamed answer": {"", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello"); flush(w) }, 29},
	} {
		got := testing.AllocsPerRun(200, func() {
			req := request(t, t.Context(), http.MethodGet, nil)
			if test.body != "" {
				req = request(t, t.Context(), http.MethodPost, strings.NewReader(test.body))
			}
			req.Header.Set("Accept", "*/*")
			c := &callee{handler: test.handler, returned: make(chan struct{})}
			c.exchange = &direct.Exchange{Common: common}
			c.ctx, c.cancel = context.WithCancel(t.Context())
			resp, err := c.roundTrip(req, time.Now().Add(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			<-c.returned
		})
		if got > test.most {
			t.Errorf("%s: got %v allocations, want at most %v", name, got, test.most)
		}
	}
}
