package trunk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/org/watt/internal/trunk"
)

// TestManyCallersWhoChangeTheirMinds gives calls of all kinds up at random points, while the callee leaves connections and
// the caller closes idle ones. Every answer that comes must be the one to its request, and once all have had theirs no
// connection may be left.
func TestManyCallersWhoChangeTheirMinds(t *testing.T) {
	var count atomic.Int32
	var n *network
	client, n := serve(t, pair, func(c *incoming) {
		if count.Add(1)%50 == 0 {
			n.latest().Leave()
		}
		unsteady(c)
	})
	var answered, failed atomic.Int32
	var callers sync.WaitGroup
	for id := range 16 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(id), 1)) //nolint:gosec // no secret
			for i := range 60 {
				if ask(t, random, client, fmt.Sprintf("%d/%d", id, i)) {
					answered.Add(1)
				} else {
					failed.Add(1)
				}
				if random.IntN(50) == 0 {
					client.CloseIdle()
				}
			}
		})
	}
	callers.Wait()
	t.Logf("%d answered, %d failed, %d connections", answered.Load(), failed.Load(), n.dials())
	if answered.Load() == 0 || failed.Load() == 0 || n.dials() < 2 {
		t.Errorf("%d were answered, %d failed and %d dialled: that tests little", answered.Load(), failed.Load(), n.dials())
	}
	client.Close()
	n.serves.Wait()
	for _, err := range n.ended() {
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) { // which means that the rest of some answer was not read
			t.Errorf("a connection has ended with %v", err)
		}
	}
}

// unsteady answers as the query says, with the request's body or, if it has none, with what contentOf makes of its ID.
func unsteady(c *incoming) {
	id := c.Request.Header.Get("X-Id")
	content := contentOf(id, c.Request.URL.RawQuery)
	if c.Request.Body != nil {
		b, _ := io.ReadAll(c.Request.Body)
		content = string(b)
	}
	resp := response()
	resp.Header.Set("X-Id", id)
	switch c.Request.URL.RawQuery {
	case "cut":
		c.Answer(nil, nil, false, io.ErrUnexpectedEOF)
	case "silent":
		<-gone(c)
		c.Answer(nil, nil, false, io.ErrUnexpectedEOF)
	case "whole":
		resp.ContentLength = int64(len(content))
		c.Answer(resp, []byte(content), true, nil)
	default:
		resp.ContentLength = -1
		stream(c, resp, content)
	}
}

// stream answers in parts of random sizes.
func stream(c *incoming, resp *http.Response, content string) {
	r, w := io.Pipe()
	resp.Body = r
	c.OnGone(func() { r.CloseWithError(io.ErrClosedPipe) })
	c.Answer(resp, nil, false, nil)
	for len(content) > 0 {
		part := content[:min(len(content), 1+rand.IntN(2*len(content)))]
		if c.Request.URL.RawQuery == "bit+by+bit" {
			part = content[:min(len(content), 40)]
		}
		if _, err := io.WriteString(w, part); err != nil {
			return
		}
		content = content[len(part):]
	}
	w.Close()
}

// contentOf returns what a call is answered with.
func contentOf(id, kind string) string {
	times := map[string]int{"whole": 100, "bit+by+bit": 60, "streamed": 8000, "huge": 1 << 20 / len(id)}[kind]
	return strings.Repeat(id, times)
}

// ask reports whether the answer came whole. It changes the request afterwards, as callers may.
func ask(t *testing.T, random *rand.Rand, client *trunk.Client, id string) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	kind := []string{"whole", "bit+by+bit", "streamed", "cut", "silent", "huge", "whole"}[min(random.IntN(14), 6)]
	sent := strings.Repeat(id, random.IntN(2)*random.IntN(1000))
	req := request(t, ctx, http.MethodPost, sent)
	req.Header.Set("X-Id", id)
	req.URL.RawQuery = kind
	var by time.Time
	if after := time.Duration(random.IntN(2000)) * time.Microsecond; kind == "silent" || random.IntN(4) == 0 {
		if by = time.Now().Add(after); random.IntN(2) == 0 {
			by = time.Time{}
			time.AfterFunc(after, cancel)
		}
	}
	want := contentOf(id, kind)
	if sent != "" {
		want = sent
	}
	resp, err := client.RoundTrip(req, by)
	req.Header.Set("X-Id", "another")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("X-Id"); got != id {
		t.Errorf("got the answer to %s instead of %s", got, id)
	}
	if random.IntN(4) == 0 {
		io.ReadFull(resp.Body, make([]byte, random.IntN(len(want)+1)))
		return false
	}
	got, err := io.ReadAll(resp.Body)
	if err == nil && string(got) != want {
		t.Errorf("got %d bytes of another answer than the %d of %s", len(got), len(want), id)
	}
	return err == nil
}

// TestManyCallsAreAnsweredAtOnce has one connection carry calls that are all in progress at the same time.
func TestManyCallsAreAnsweredAtOnce(t *testing.T) {
	const calls = 500
	var arrived sync.WaitGroup
	arrived.Add(calls)
	client, n := serve(t, pair, func(c *incoming) {
		arrived.Done()
		arrived.Wait()
		whole(c, c.Request.URL.RawQuery)
	})
	var callers sync.WaitGroup
	for i := range calls {
		callers.Go(func() {
			req := request(t, t.Context(), http.MethodGet, "")
			req.URL.RawQuery = strconv.Itoa(i)
			resp, err := client.RoundTrip(req, time.Now().Add(time.Minute))
			if got := readAll(t, resp, err); got != strconv.Itoa(i) {
				t.Errorf("got %q, want %d", got, i)
			}
		})
	}
	callers.Wait()
	if got := n.dials(); got != 1 {
		t.Errorf("dialled %d times, want once", got)
	}
}
