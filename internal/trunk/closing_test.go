package trunk_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestABodyThatIsClosedWhileItIsReadHasNoEnd has an answer closed while another goroutine reads it: what was dropped then must
// not look like all that there was.
func TestABodyThatIsClosedWhileItIsReadHasNoEnd(t *testing.T) {
	content := strings.Repeat("x", 600)
	client, _ := serve(t, pair, func(c *incoming) { whole(c, content) })
	for range 3_000 {
		resp, err := client.RoundTrip(request(t, t.Context(), http.MethodGet, ""), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		began := make(chan struct{})
		var closed sync.WaitGroup
		closed.Go(func() { <-began; resp.Body.Close() })
		var p [1]byte
		for n := 0; err == nil; n++ {
			if _, err = resp.Body.Read(p[:]); n == 0 {
				close(began)
			}
			if err == io.EOF && n < len(content)-1 { //nolint:errorlint // Read returns it bare
				t.Fatalf("the answer ends after %d bytes of %d, without an error", n, len(content))
			}
		}
		closed.Wait()
	}
}
