package main

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/admin"
	"github.com/org/watt/watttest"
)

func TestWhoCallsWhom(t *testing.T) {
	var got []string
	for _, app := range newShop(config{}).Status() {
		got = append(got, app.Name+": "+strings.Join(app.Calls, " "))
	}
	want := []string{
		"gateway: users orders resize store support",
		"users: store",
		"orders: store",
		"resize: store",
		"store: ",
		"support: ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestHomeWithoutOrders(t *testing.T) {
	shop := watttest.Start(t, newShop(config{addr: "127.0.0.1:0", data: t.TempDir()}))

	shop.Fail("gateway", "orders", watt.ErrUnavailable)
	status, body := shop.Get("http://gateway.watt.local/home/1")
	if status != http.StatusOK || !strings.Contains(body, `"orders":[]`) {
		t.Errorf("got %d %s, want 200 with no orders", status, body)
	}

	shop.Fail("gateway", "users", watt.ErrUnavailable) // a required part
	if status, _ := shop.Get("http://gateway.watt.local/home/1"); status != http.StatusServiceUnavailable {
		t.Errorf("got %d, want 503", status)
	}
}

func TestHomeWithoutPictures(t *testing.T) {
	shop := watttest.Start(t, newShop(config{addr: "127.0.0.1:0", data: t.TempDir()}))

	if status, body := shop.Get("http://gateway.watt.local/home/1"); !strings.Contains(body, `"pictures":[]`) {
		t.Errorf("got %d %s, want 200 with no pictures", status, body)
	}
	shop.Fail("gateway", "store", watt.ErrOverloaded)
	status, body := shop.Get("http://gateway.watt.local/home/1")
	if status != http.StatusOK || strings.Contains(body, "pictures") || !strings.Contains(body, "Ada") {
		t.Errorf("got %d %s, want 200 without pictures", status, body)
	}
}

// TestThoseWhoRunItSeeTheLoad starts the program as its comment says, and waits until the slow store shows.
func TestThoseWhoRunItSeeTheLoad(t *testing.T) {
	t.Parallel()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	cmd, stderr := command(t, "-addr", "127.0.0.1:0", "-admin", addr, "-load", "-slow-store", "80ms", "-data", t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
			t.Errorf("%v: %s", err, stderr)
		}
	}()
	within(t, 50*time.Second, func() bool {
		resp, err := http.Get("http://" + addr + "/status")
		if err != nil {
			return false // not yet
		}
		defer resp.Body.Close()
		var report struct{ Advice []admin.Advice }
		if err := json.NewDecoder(resp.Body).Decode(&report); err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(report.Advice, func(a admin.Advice) bool { return a.App == "store" && a.Kind == "raise" })
	})
}

func TestOverloadReachesTheClient(t *testing.T) {
	shop := watttest.Start(t, newShop(config{addr: "127.0.0.1:0", data: t.TempDir()}))

	shop.Fail("orders", "store", watt.ErrOverloaded)
	resp, err := http.Get(shop.URL("gateway") + "/orders/?user=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %s with Retry-After %q, want 503 with one", resp.Status, resp.Header.Get("Retry-After"))
	}
}
