package wire_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestManyCallersWhoChangeTheirMinds gives requests of all kinds up at random points. Every answer that
// comes must be the one to its request, and no connection may be left but idle ones.
func TestManyCallersWhoChangeTheirMinds(t *testing.T) {
	pool, n := serve(t, http.HandlerFunc(unsteady))
	var callers sync.WaitGroup
	var answered, failed atomic.Int32
	for caller := range 16 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(caller), 1)) //nolint:gosec // no secret
			for i := range 150 {
				ctx, cancel := context.WithCancel(t.Context())
				req := request(t, ctx, http.MethodPost, nil)
				req.Header.Set("X-Id", fmt.Sprintf("%d/%d", caller, i))
				req.URL.RawQuery = strconv.Itoa(random.IntN(6))
				content := strings.Repeat(req.Header.Get("X-Id")+" ", random.IntN(2)*random.IntN(20_000))
				body(random, content)(req)
				if req.URL.RawQuery == "0" || req.URL.RawQuery == "2" { // net/http's server then wants the body unasked
					req.Header.Del("Expect")
				}
				if random.IntN(2) == 0 {
					time.AfterFunc(time.Duration(random.IntN(1000))*time.Microsecond, cancel)
				}
				if ask(t, random, lean{pool}, req, content) {
					answered.Add(1)
				} else {
					failed.Add(1)
				}
				if tracked, ok := req.Body.(*trackedBody); ok {
					<-tracked.done
				}
				cancel()
			}
		})
	}
	callers.Wait()
	t.Logf("%d answered, %d failed, %d connections", answered.Load(), failed.Load(), n.dials())
	if answered.Load() == 0 || failed.Load() == 0 {
		t.Errorf("%d were answered and %d failed: that tests little", answered.Load(), failed.Load())
	}
	pool.CloseIdle()
	for deadline := time.Now().Add(5 * time.Second); n.open.Load() > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are neither idle nor closed", n.open.Load())
		}
	}
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
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	default:
		content, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Write(content)
	}
}

func body(random *rand.Rand, content string) func(*http.Request) {
	switch random.IntN(4) {
	case 0:
		return memory(content)
	case 1:
		return stream(content, -1)
	case 2:
		return func(r *http.Request) {
			stream(content, int64(len(content)))(r)
			r.Header.Set("Expect", "100-continue")
		}
	default:
		return stream(content, int64(len(content)))
	}
}

// ask reports whether the answer came whole. It changes the request afterwards, as callers may.
func ask(t *testing.T, random *rand.Rand, rt http.RoundTripper, req *http.Request, content string) bool {
	t.Helper()
	id, silent := req.Header.Get("X-Id"), req.URL.RawQuery == "1"
	resp, err := rt.RoundTrip(req)
	if err != nil {
		req.Header.Set("X-Id", "another")
		req.URL.RawQuery = "another"
		return false
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("X-Id"); got != id && resp.StatusCode < 300 {
		t.Errorf("got the answer to %s instead of %s", got, id)
	}
	if random.IntN(4) == 0 {
		resp.Body.Read(make([]byte, 10))
		return false
	}
	got, err := io.ReadAll(resp.Body)
	if err == nil && string(got) != content && !silent {
		t.Errorf("got %d bytes of another answer than the %d of %s", len(got), len(content), id)
	}
	return err == nil
}
