package main

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

func TestWhatIsSentTwiceIsStoredOnce(t *testing.T) {
	rt := newFunnel("127.0.0.1:0", filepath.Join(t.TempDir(), "sums.db"))
	if err := rt.Update("hash", func(a *watt.App) { a.Isolation = watt.InProcess }); err != nil {
		t.Fatal(err)
	}
	url := watttest.Start(t, rt).URL("hash") + "/sums"
	for _, test := range []struct {
		key, body string
		status    int
		want      string
	}{
		{`"1"`, "tea", http.StatusCreated, "sum 1 is stored\n"},
		{`"2"`, "coffee", http.StatusCreated, "sum 2 is stored\n"},
		{`"1"`, "tea", http.StatusCreated, "sum 1 is stored\n"},
		{`"1"`, "milk", http.StatusUnprocessableEntity, ""},
		{"", "tea", http.StatusBadRequest, ""},
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
		if resp.StatusCode != test.status || test.want != "" && string(body) != test.want {
			t.Errorf("%s %s: got %d %s, want %d %s", test.key, test.body, resp.StatusCode, body, test.status, test.want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
