package pyramid_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

func TestIdentityPassesInwardAndCannotBeSpoofed(t *testing.T) {
	var users recorder
	f := startFront(t, serving(func(env *watt.Env) http.Handler {
		proxy := pyramid.Proxy(env, "users")
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(r.Header["Authorization"]) > 0 {
				r.Header.Set("X-Watt-User", "7")
			}
			proxy.ServeHTTP(w, r)
		})
	}), users.app("users"))
	spoofed := []string{"X-Watt-User", "1", "X_Watt_User", "1", "x-watt-user", "1", "X-Watt_user", "1", "Connection", "X-Watt-User", "Traceparent", "00-x", "Tracestate", "a=b"}
	f.do(t, "GET", "/", nil, spoofed...)
	f.do(t, "GET", "/", nil, append(spoofed, "Authorization", "yes")...)
	got := users.take()
	if len(got) != 2 {
		t.Fatalf("got %v", got)
	}
	for i, want := range []string{"", "7"} {
		for name, values := range got[i].header {
			switch plain := strings.ReplaceAll(name, "_", "-"); {
			case strings.EqualFold(plain, "X-Watt-User") && (strings.Join(values, ",") != want || name != "X-Watt-User"):
				t.Errorf("got %s: %v, want %q", name, values, want)
			case plain == "Traceparent", plain == "Tracestate":
				t.Errorf("got %s: %v", name, values)
			}
		}
		if got := got[i].header.Get("X-Watt-User"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAnAbsoluteTargetIsAHostLikeAnyOther(t *testing.T) {
	var users recorder
	f := newFront(t, users.app("users"), telling("orders", ""))
	f.raw(t, "GET http://shop.example/users/7?q HTTP/1.1\r\nHost: other.example\r\n\r\n")
	got := users.one(t)
	if got.target != "/7?q" || got.host != "users.watt.local" || got.header.Get("X-Forwarded-Host") != "shop.example" {
		t.Errorf("got %v", got)
	}
	for _, head := range []string{
		"GET http://users.watt.local/users/7 HTTP/1.1\r\nHost: a", "GET http://USERS.watt.local.:99/users/7 HTTP/1.1\r\nHost: a",
		"GET /users/7 HTTP/1.1\r\nHost: orders.watt.local", "GET /users/7 HTTP/1.1\r\nHost: Users.Watt.Local:80",
	} {
		if resp, body := f.raw(t, head+"\r\n\r\n"); resp.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s: got %s %s", head, resp.Status, body)
		}
	}
	for head, want := range map[string]int{
		"CONNECT users.watt.local:80 HTTP/1.1\r\nHost: users.watt.local:80": http.StatusMethodNotAllowed,
		"CONNECT /users/7 HTTP/1.1\r\nHost: a":                              http.StatusMethodNotAllowed,
		"OPTIONS * HTTP/1.1\r\nHost: a":                                     -1,
		"GET mailto:users HTTP/1.1\r\nHost: a":                              -1,
	} {
		resp, _ := f.raw(t, head+"\r\n\r\n")
		if want > 0 && resp.StatusCode != want {
			t.Errorf("%s: got %s, want %d", head, resp.Status, want)
		}
	}
	if got := users.take(); got != nil {
		t.Errorf("passed on: %v", got)
	}
}

// What follows the chunks is the same client's next request, and never a part of this one.
func TestARequestWithTwoLengthsIsAsLongAsItsChunks(t *testing.T) {
	var got []string
	f := newFront(t, handling("users", func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		got = append(got, fmt.Sprintf("%s %s %q %v %v", r.Method, r.URL.Path, body, r.Header["Content-Length"], err))
	}))
	for _, announced := range []string{"4", "1000"} {
		got = nil
		conn := f.dial(t)
		io.WriteString(conn, "POST /users/1 HTTP/1.1\r\nHost: a\r\nContent-Length: "+announced+"\r\nTransfer-Encoding: chunked\r\n\r\n"+
			"3\r\nabc\r\n0\r\n\r\nGET /users/2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if _, err := io.ReadAll(conn); err != nil {
			t.Error(err)
		}
		if want := []string{`POST /1 "abc" [] <nil>`, `GET /2 "" [] <nil>`}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestOnlyWebsocketsAreUpgradedFromOutside(t *testing.T) {
	var users recorder
	f := newFront(t, users.app("users"))
	for _, upgrade := range []string{"h2c", "tls/1.0", "websocket, h2c"} {
		resp, _ := f.raw(t, "GET /users HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "+upgrade+"\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n")
		got := users.one(t).header
		if resp.StatusCode != http.StatusOK || got["Upgrade"] != nil || got["Connection"] != nil || got["Http2-Settings"] != nil {
			t.Errorf("%s: got %s, %v", upgrade, resp.Status, got)
		}
	}
}
