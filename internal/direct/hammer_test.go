package direct_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/watt/internal/direct"
)

// TestManyCallersWhoChangeTheirMinds gives calls of all kinds up at random points. Every answer that comes must be
// the one to its request, although all use the same memory in turn, and every body and every handler must come to an end.
func TestManyCallersWhoChangeTheirMinds(t *testing.T) {
	var callers sync.WaitGroup
	var answered, failed atomic.Int32
	common := sharing()
	for caller := range 16 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(caller), 1)) //nolint:gosec // no secret
			for i := range 150 {
				if one(t, common, random, fmt.Sprintf("%d/%d", caller, i)) {
					answered.Add(1)
				} else {
					failed.Add(1)
				}
			}
		})
	}
	callers.Wait()
	t.Logf("%d answered, %d failed", answered.Load(), failed.Load())
	if answered.Load() == 0 || failed.Load() == 0 {
		t.Errorf("%d were answered and %d failed: that tests little", answered.Load(), failed.Load())
	}
}

// TestWhoReadsABodyThatIsClosedSeesNothingOfAnother closes bodies while they are read, and others' take their place.
func TestWhoReadsABodyThatIsClosedSeesNothingOfAnother(t *testing.T) {
	common := sharing()
	var callers sync.WaitGroup
	for _, letter := range []string{"a", "b"} {
		callers.Go(func() {
			for range 500 {
				c := newCallee(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat(letter, 2000)) })
				c.exchange.Common = common
				resp, err := c.roundTrip(request(t, t.Context(), http.MethodGet, nil), time.Time{})
				if err != nil {
					t.Error(err)
					return
				}
				var closing sync.WaitGroup
				for i, p := 0, make([]byte, 1); err == nil; i++ {
					if _, err = resp.Body.Read(p); err == nil && string(p) != letter {
						t.Errorf("got %q, want %q", p, letter)
					}
					if i == 100 {
						closing.Go(func() { resp.Body.Close() })
					}
				}
				closing.Wait()
			}
		})
	}
	callers.Wait()
}

// one makes a call, and reports whether its answer came whole.
func one(t *testing.T, common *direct.Common, random *rand.Rand, id string) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	content := strings.Repeat(id+" ", 1+random.IntN(2)*random.IntN(20_000))
	req := request(t, ctx, http.MethodPost, strings.NewReader(content))
	body := track(req.Body)
	switch random.IntN(3) {
	case 0:
		req.Body = body
	case 1:
		req.Body, req.ContentLength = body, -1
	}
	req.Header.Set("X-Id", id)
	req.URL.RawQuery = strconv.Itoa(random.IntN(7))
	var by time.Time
	if random.IntN(4) == 0 {
		by = time.Now().Add(time.Duration(random.IntN(1000)) * time.Microsecond)
	}
	if random.IntN(2) == 0 {
		time.AfterFunc(time.Duration(random.IntN(1000))*time.Microsecond, cancel)
	}
	cut := random.IntN(10) == 0
	var c *callee
	c = newCallee(func(w http.ResponseWriter, r *http.Request) {
		if cut {
			time.AfterFunc(time.Duration(len(content)%300)*time.Microsecond, c.exchange.Cut)
		}
		unsteady(w, r)
	})
	c.exchange.Common = common
	resp, err := c.roundTrip(req, by)
	whole := err == nil && whole(t, random, resp, id, content)
	if req.Body == body {
		body.closedOnce(t)
	}
	req.Header.Set("X-Id", "another")
	req.Method, req.URL.RawQuery = http.MethodHead, "another"
	<-c.returned
	return whole
}

// whole reports whether the answer can be read to its end.
func whole(t *testing.T, random *rand.Rand, resp *http.Response, id, content string) bool {
	t.Helper()
	defer resp.Body.Close()
	if got := resp.Header.Get("X-Id"); got != id {
		t.Errorf("got the answer to %s instead of %s", got, id)
	}
	if random.IntN(4) == 0 {
		resp.Body.Read(make([]byte, 10))
		return false
	}
	got, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == http.StatusOK && string(got) != content {
		t.Errorf("got %d bytes of another answer than the %d of %s", len(got), len(content), id)
	}
	return err == nil
}

// unsteady answers with the body or without reading it, or not at all.
func unsteady(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Id", r.Header.Get("X-Id"))
	switch r.URL.RawQuery {
	case "0":
		panic(http.ErrAbortHandler)
	case "1":
		w.WriteHeader(http.StatusNoContent)
	case "2":
		if _, err := io.Copy(w, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	case "3":
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusAccepted)
		r.Body.Close()
		io.WriteString(w, text(50<<10))
	case "4":
		w.WriteHeader(http.StatusAccepted)
		go io.Copy(w, r.Body) // and is of no avail
	default:
		content, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Write(content)
	}
}
