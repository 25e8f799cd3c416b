package main

import (
	"io"
	"net/http"
	"testing"

	"github.com/org/watt/watttest"
)

func TestQuickstart(t *testing.T) {
	top := watttest.Start(t, newQuickstart("127.0.0.1:0"))

	resp, err := http.Get(top.URL("web"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(body), "Hello, Ada!\n"; resp.StatusCode != http.StatusOK || got != want {
		t.Errorf("got %s %q, want 200 %q", resp.Status, got, want)
	}
}
