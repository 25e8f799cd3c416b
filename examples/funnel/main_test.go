package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// newTestFunnel is newFunnel with its data in a new directory, and all of it in the test's process.
func newTestFunnel(t *testing.T) *watt.Runtime {
	t.Helper()
	rt := newFunnel("127.0.0.1:0", filepath.Join(t.TempDir(), "sums.db"))
	if err := rt.Update("hash", func(a *watt.App) { a.Isolation = watt.InProcess }); err != nil {
		t.Fatal(err)
	}
	return rt
}

func TestWhatIsSentTwiceIsStoredOnce(t *testing.T) {
	url := watttest.Start(t, newTestFunnel(t)).URL("hash") + "/sums"
	for _, test := range []struct {
		key, body string
		status    int
		want      string
		replayed  bool
	}{
		{`"1"`, "tea", http.StatusCreated, "sum 1 is stored\n", false},
		{`"2"`, "coffee", http.StatusCreated, "sum 2 is stored\n", false},
		{`"1"`, "tea", http.StatusCreated, "sum 1 is stored\n", true},
		{`"1"`, "milk", http.StatusUnprocessableEntity, "came with another request", false},
		{"", "tea", http.StatusBadRequest, "the header Idempotency-Key is missing", false},
	} {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Idempotency-Key", test.key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if replayed := resp.Header.Get("Idempotent-Replayed") != ""; resp.StatusCode != test.status || !strings.Contains(string(body), test.want) || replayed != test.replayed {
			t.Errorf("%s %s: got %d %s, replayed: %v, want %d %s, replayed: %v", test.key, test.body, resp.StatusCode, body, replayed, test.status, test.want, test.replayed)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestTwoUsersMayHaveTheSameKey(t *testing.T) {
	rt := newTestFunnel(t)
	watttest.Start(t, rt)
	for i, user := range []string{"ada", "bob"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://hash.watt.local/sums", strings.NewReader("tea"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Idempotency-Key", `"1"`)
		req.Header.Set("X-Watt-User", user) // as a gateway in front would
		resp, err := rt.Env().Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := fmt.Sprintf("sum %d is stored\n", i+1); string(body) != want {
			t.Errorf("%s: got %q, want %q", user, body, want)
		}
	}
}
