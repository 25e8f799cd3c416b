//go:build !race

// Under the race detector sync.Pool drops things at random, so that what is allocated cannot be counted.

package trunk_test

import (
	"io"
	"net/http"
	"testing"
	"time"
)

func TestACallCostsFewAllocations(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		answer  func(*incoming)
		most    float64 // on both sides, with what the test itself allocates
	}{
		"a small GET":  {"", func(c *incoming) { whole(c, "hello") }, 25},
		"a small POST": {"hello", func(c *incoming) { whole(c, "hello") }, 30},
	} {
		client, _ := serve(t, pair, test.answer)
		got := testing.AllocsPerRun(500, func() {
			req := request(t, t.Context(), http.MethodGet, test.content)
			req.Header.Set("Accept", "*/*")
			resp, err := client.RoundTrip(req, time.Now().Add(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		})
		if got > test.most {
			t.Errorf("%s: got %v allocations, want at most %v", name, got, test.most)
		}
	}
}
