package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/watttest"
)

// api is somebody else's API.
type api struct {
	tried atomic.Int64
	serve func(w http.ResponseWriter, r *http.Request, n int64)
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.serve(w, r, a.tried.Add(1)) }

// outside starts the program in front of an API, and returns its URL.
func outside(t *testing.T, a *api) string {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	return watttest.Start(t, newOutside("127.0.0.1:0", server.URL)).URL("web")
}

func ask(t *testing.T, method, url, key string) (status int, body string, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader("tea"))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

func TestWhatMayBeDoneAgainIs(t *testing.T) {
	for _, test := range []struct {
		method, key string
		tries       int64
	}{
		{http.MethodGet, "", 3}, {http.MethodPut, "", 3}, {http.MethodPost, `"1"`, 3}, {http.MethodPost, "", 1},
	} {
		a := &api{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if text, err := io.ReadAll(r.Body); err != nil || string(text) != "tea" {
				http.Error(w, "not the whole body", http.StatusBadRequest)
				return
			}
			if n < 3 {
				http.Error(w, "not now", http.StatusInternalServerError)
				return
			}
			fmt.Fprint(w, "done")
		}}
		status, body, _ := ask(t, test.method, outside(t, a), test.key)
		want := http.StatusOK
		if test.tries < 3 {
			want = http.StatusInternalServerError
		}
		if tried := a.tried.Load(); status != want || tried != test.tries {
			t.Errorf("%s with key %q: got %d %q after %d tries, want %d after %d", test.method, test.key, status, body, tried, want, test.tries)
		}
	}
}

func TestRetryAfterIsTheLeastToWait(t *testing.T) {
	a := &api{serve: func(w http.ResponseWriter, _ *http.Request, n int64) {
		if n < 2 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}}
	url := outside(t, a)
	began := time.Now()
	if status, _, _ := ask(t, http.MethodGet, url, ""); status != http.StatusOK || time.Since(began) < time.Second {
		t.Errorf("got %d after %v, want 200 after a second", status, time.Since(began))
	}
}

func TestTheTimeBetweenTriesIsRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 4 // too few for the breaker
		var failed time.Time
		waits := make(map[time.Duration]bool)
		c := newClient(roundTripper(func(req *http.Request) (*http.Response, error) {
			status := http.StatusInternalServerError
			if failed.IsZero() {
				failed = time.Now()
			} else {
				status, waits[time.Since(failed)], failed = http.StatusOK, true, time.Time{}
			}
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
		}))
		for range requests {
			resp, err := c.Get("http://api")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		if len(waits) != requests {
			t.Errorf("got the waits %v, want %d different ones", waits, requests)
		}
	})
}

func TestAServiceThatWantsMorePatienceIsNotWaitedFor(t *testing.T) {
	a := &api{serve: func(w http.ResponseWriter, _ *http.Request, _ int64) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusTooManyRequests)
	}}
	status, _, header := ask(t, http.MethodGet, outside(t, a), "")
	if tried := a.tried.Load(); status != http.StatusTooManyRequests || header.Get("Retry-After") != "60" || tried != 1 {
		t.Errorf("got %d, Retry-After %q, after %d tries", status, header.Get("Retry-After"), tried)
	}
}

func TestWhenEverythingFailsFewTriesAreMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 20
		var tried atomic.Int64
		status := http.StatusOK
		c := newClient(roundTripper(func(req *http.Request) (*http.Response, error) {
			tried.Add(1)
			time.Sleep(100 * time.Millisecond)
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
		}))
		ask := func(n int) {
			var clients sync.WaitGroup
			for range n {
				clients.Go(func() {
					if resp, err := c.Get("http://api"); err == nil {
						resp.Body.Close()
					}
				})
			}
			clients.Wait()
		}
		ask(5 * requests) // so that the breaker takes no part
		tried.Store(0)
		status = http.StatusInternalServerError
		ask(requests)
		if again := tried.Load() - requests; again < 1 || again > requests/2 {
			t.Errorf("got %d tries after the first of %d requests, want a tenth at a time", again, requests)
		}
	})
}

func TestWhatNobodyHasGotIsTriedAgain(t *testing.T) {
	for op, want := range map[string]int{"dial": tries, "read": 1} {
		tried := 0
		c := newClient(roundTripper(func(*http.Request) (*http.Response, error) {
			tried++
			return nil, &net.OpError{Op: op, Err: errors.New("on purpose")}
		}))
		if resp, err := c.Post("http://api", "", strings.NewReader("tea")); err == nil {
			resp.Body.Close()
			t.Error("got an answer")
		}
		if tried != want {
			t.Errorf("%s: got %d tries, want %d", op, tried, want)
		}
	}
}

func TestTheRateOfTheAPIIsKeptTo(t *testing.T) {
	url := outside(t, &api{serve: func(http.ResponseWriter, *http.Request, int64) {}})
	var clients sync.WaitGroup
	var refused atomic.Int64
	for range 100 { // fewer than may wait
		clients.Go(func() {
			for range 100 { // many times what it allows, however slow the machine is
				if refused.Load() > 0 {
					return
				}
				if status, _, header := ask(t, http.MethodGet, url, ""); status != http.StatusOK && header.Get("Retry-After") != "" {
					refused.Add(1)
				}
			}
		})
	}
	clients.Wait()
	if refused.Load() == 0 {
		t.Error("got no request refused")
	}
}

func TestAServiceThatFailsIsLeftAlone(t *testing.T) {
	a := &api{serve: func(w http.ResponseWriter, _ *http.Request, _ int64) { w.WriteHeader(http.StatusInternalServerError) }}
	url := outside(t, a)
	var status int
	var header http.Header
	for range 30 {
		status, _, header = ask(t, http.MethodPost, url, "")
	}
	if tried := a.tried.Load(); tried > 10 || status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("got %d tries and then %d with Retry-After %q, want 10, and 503 with one", tried, status, header.Get("Retry-After"))
	}
}

func TestAServiceThatIsNotThereIs502(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	url := watttest.Start(t, newOutside("127.0.0.1:0", server.URL)).URL("web")
	if status, body, _ := ask(t, http.MethodPost, url, ""); status != http.StatusBadGateway {
		t.Errorf("got %d %s, want 502", status, body)
	}
}
