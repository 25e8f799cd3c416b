package watttest_test

import (
	"net/http"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

func TestSmoke(t *testing.T) {
	rt := watt.New(watt.App{Name: "a", Listen: ":0", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })})
	top := watttest.Start(t, rt)
	if s, _ := top.Get("http://a.watt.local/"); s != http.StatusNoContent {
		t.Error(s)
	}
	r, err := http.Get(top.URL("a"))
	if err != nil || r.StatusCode != http.StatusNoContent {
		t.Error(r, err)
	}
	r.Body.Close()
	top.Fail("", "a", watt.ErrOverloaded)
	if s, b := top.Get("http://a.watt.local/"); s != http.StatusServiceUnavailable {
		t.Error(s, b)
	}
}
