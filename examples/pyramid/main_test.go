package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

func TestEveryRouteFromOutside(t *testing.T) {
	top := watttest.Start(t, newPyramid("127.0.0.1:0"))
	for path, want := range map[string]string{
		"/users/7":        `{"id":"7","name":"Ada"}`,
		"/orders/?user=7": `["tea for user 7"]`,
		"/home/7":         `{"orders":["tea for user 7"],"user":{"id":"7","name":"Ada"}}`,
	} {
		resp, err := http.Get(top.URL("gateway") + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		got := strings.ReplaceAll(strings.TrimSpace(string(body)), "\n", "")
		if err != nil || resp.StatusCode != http.StatusOK || got != want {
			t.Errorf("%s: got %s %s, %v; want %s", path, resp.Status, got, err, want)
		}
	}
}

func TestHomeDoesWithoutOrdersButNotWithoutTheUser(t *testing.T) {
	top := watttest.Start(t, newPyramid("127.0.0.1:0"))
	top.Fail("gateway", "orders", watt.ErrUnavailable)
	if status, body := top.Get("http://gateway.watt.local/home/7"); status != http.StatusOK || !strings.Contains(body, `"orders":[]`) {
		t.Errorf("got %d %s, want 200 with no orders", status, body)
	}
	top.Fail("gateway", "users", watt.ErrUnavailable)
	if status, body := top.Get("http://gateway.watt.local/home/7"); status != http.StatusServiceUnavailable || !strings.Contains(body, `"app":"users"`) {
		t.Errorf("got %d %s, want 503 that names users", status, body)
	}
}
