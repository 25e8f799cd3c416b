package pyramid_test

import (
	"context"
	"crypto/tls"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// origin returns the headers about where a request comes from.
func origin(h http.Header) map[string]string {
	got := make(map[string]string)
	for name, values := range h {
		switch plain := strings.ToLower(strings.ReplaceAll(name, "_", "-")); {
		case strings.HasPrefix(plain, "x-forwarded"), plain == "forwarded", plain == "x-real-ip":
			got[name] = strings.Join(values, " | ")
		}
	}
	return got
}

func wantOrigin(t *testing.T, h http.Header, chain, host, proto string) {
	t.Helper()
	want := map[string]string{"X-Forwarded-For": chain, "X-Forwarded-Host": host, "X-Forwarded-Proto": proto}
	maps.DeleteFunc(want, func(_, value string) bool { return value == "" })
	if got := origin(h); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// lies are what a client may say of where it comes from.
func lies() []string {
	return []string{
		"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https",
		"X-Forwarded-Port", "1", "X-Forwarded-Prefix", "/evil", "X-Forwarded-Server", "a",
		"Forwarded", "for=6.6.6.6", "X-Real-Ip", "6.6.6.6",
		"X_Forwarded_For", "6.6.6.6", "x_forwarded_host", "evil.example", "X-Forwarded_Proto", "https", "X_Real-Ip", "6.6.6.6",
	}
}

func TestWhatAClientSaysOfItsOriginIsDropped(t *testing.T) {
	var users recorder
	f := newFront(t, users.app("users"))
	f.do(t, "GET", "/users", nil, lies()...)
	wantOrigin(t, users.one(t).header, "127.0.0.1", f.addr, "http")
	f.raw(t, "GET /users HTTP/1.1\r\nHost: Shop.Example:99\r\nConnection: X-Forwarded-For, X-Forwarded-Host\r\n\r\n")
	wantOrigin(t, users.one(t).header, "127.0.0.1", "Shop.Example:99", "http")
}

func TestOverTLSTheSchemeIsHTTPS(t *testing.T) {
	known := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate, and a client that knows it
	defer known.Close()
	var users recorder
	f := startFront(t, watt.App{TLS: &tls.Config{Certificates: known.TLS.Certificates}}, users.app("users"))
	req := f.request(t, "GET", "/users", nil, "X-Forwarded-Proto", "http")
	req.URL.Scheme = "https"
	send(t, known.Client(), req)
	wantOrigin(t, users.one(t).header, "127.0.0.1", f.addr, "https")
}

// trusting starts a gateway that trusts prefixes, in front of an app that records.
func trusting(t *testing.T, users *recorder, prefixes ...string) *front {
	t.Helper()
	var known []netip.Prefix
	for _, p := range prefixes {
		known = append(known, netip.MustParsePrefix(p))
	}
	return startFront(t, serving(func(env *watt.Env) http.Handler {
		return pyramid.TrustProxies(known...)(pyramid.Proxy(env, "users"))
	}), users.app("users"))
}

func TestADeclaredProxyIsBelieved(t *testing.T) {
	for _, prefix := range []string{"127.0.0.0/8", "::ffff:127.0.0.0/104", "::ffff:0.0.0.0/96"} {
		var users recorder
		f := trusting(t, &users, "10.0.0.0/8", prefix)
		f.do(t, "GET", "/", nil, lies()...)
		wantOrigin(t, users.one(t).header, "6.6.6.6, 127.0.0.1", "evil.example", "https")
		f.do(t, "GET", "/", nil)
		wantOrigin(t, users.one(t).header, "127.0.0.1", f.addr, "http")
	}
}

func TestOthersThanDeclaredProxiesAreNotBelieved(t *testing.T) {
	for _, prefixes := range [][]string{nil, {"10.0.0.0/8", "::1/128", "127.0.0.2/32"}} {
		var users recorder
		f := trusting(t, &users, prefixes...)
		f.do(t, "GET", "/", nil, lies()...)
		wantOrigin(t, users.one(t).header, "127.0.0.1", f.addr, "http")
	}
}

func TestTheMalformedPartOfAChainIsDropped(t *testing.T) {
	var users recorder
	f := trusting(t, &users, "127.0.0.0/8")
	const self = "127.0.0.1"
	for _, c := range []struct {
		chain []string
		want  string
	}{
		{[]string{"203.0.113.7, 198.51.100.2"}, "203.0.113.7, 198.51.100.2, " + self},
		{[]string{"203.0.113.7", " 198.51.100.2"}, "203.0.113.7, 198.51.100.2, " + self},
		{[]string{"::ffff:203.0.113.7,2001:DB8::1"}, "203.0.113.7, 2001:db8::1, " + self},
		{[]string{"203.0.113.7:4711,[2001:db8::1]:80,[::1]"}, "203.0.113.7, 2001:db8::1, ::1, " + self},
		{[]string{"fe80::1%eth0<script>"}, "fe80::1, " + self},
		{[]string{"[fe80::1%<script>]:80,[::ffff:203.0.113.7]:80"}, "fe80::1, 203.0.113.7, " + self},
		{[]string{"6.6.6.6, unknown, 203.0.113.7"}, "203.0.113.7, " + self},
		{[]string{"6.6.6.6, , 203.0.113.7"}, "203.0.113.7, " + self},
		{[]string{"6.6.6.6;x, 203.0.113.7"}, "203.0.113.7, " + self},
		{[]string{"203.0.113.7, 203.0.113"}, self},
		{[]string{"_hidden"}, self},
		{[]string{"[6.6.6.6", "1.2.3.4]"}, self},
		{[]string{""}, self},
	} {
		var headers []string
		for _, line := range c.chain {
			headers = append(headers, "X-Forwarded-For", line)
		}
		f.do(t, "GET", "/", nil, headers...)
		if got := users.one(t).header["X-Forwarded-For"]; !slices.Equal(got, []string{c.want}) {
			t.Errorf("%q: got %q, want %q", c.chain, got, c.want)
		}
	}
}

func TestAMalformedHostOrSchemeIsReplacedByTheConnections(t *testing.T) {
	var users recorder
	f := trusting(t, &users, "127.0.0.0/8")
	longest := strings.Repeat("a", 253) + ":65535"
	for given, want := range map[string]string{
		"shop.example": "shop.example", "shop.example:8443": "shop.example:8443", "[2001:db8::1]:80": "[2001:db8::1]:80",
		"evil.example, shop.example": "shop.example", "": f.addr, "a b": f.addr, "a/b": f.addr, `"><script>`: f.addr,
		"shop.example, ": f.addr, longest: longest, longest + "a": f.addr, "a@b": f.addr,
	} {
		f.do(t, "GET", "/", nil, "X-Forwarded-Host", given)
		if got := users.one(t).header.Get("X-Forwarded-Host"); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
	for given, want := range map[string]string{
		"https": "https", "HTTPS": "https", "http": "http", "https, http": "http", "wss": "https", "https, ws": "http", "javascript": "http", "": "http",
	} {
		f.do(t, "GET", "/", nil, "X-Forwarded-Proto", given)
		if got := users.one(t).header.Get("X-Forwarded-Proto"); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}

// TestWhatIsMadeOfARequestIsKnownInFrontOfTrustProxiesToo has package tracing look for the route, and the runtime for files
// of a form that are to be removed.
func TestWhatIsMadeOfARequestIsKnownInFrontOfTrustProxiesToo(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /pictures", func(_ http.ResponseWriter, r *http.Request) { _ = r.ParseMultipartForm(0) })
	req := httptest.NewRequest(http.MethodPost, "/pictures", strings.NewReader("--x--\r\n"))
	req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	req.RemoteAddr = "10.0.0.1:1234"
	pyramid.TrustProxies(netip.MustParsePrefix("10.0.0.0/8"))(mux).ServeHTTP(httptest.NewRecorder(), req)
	if req.Pattern != "POST /pictures" || req.MultipartForm == nil {
		t.Errorf("got route %q and form %v", req.Pattern, req.MultipartForm)
	}
}

func TestAPrefixThatIsNotValidIsAMistake(t *testing.T) {
	defer func() {
		if got := recover(); got != "pyramid: TrustProxies: a prefix is not valid" {
			t.Errorf("got %v", got)
		}
	}()
	pyramid.TrustProxies(netip.Prefix{})
}

func TestTheChainOfARequestFromTheMeshIsKept(t *testing.T) {
	var users recorder
	f := startFront(t, watt.App{Calls: []string{"middle"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			req, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://middle.watt.local/", http.NoBody)
			for name, values := range r.Header {
				if name, ok := strings.CutPrefix(name, "Send-"); ok {
					req.Header[name] = values
				}
			}
			if resp, err := env.Client.Do(req); err == nil {
				resp.Body.Close()
			}
		}), nil
	}}, watt.App{Name: "middle", Calls: []string{"users"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return pyramid.Proxy(env, "users"), nil
	}}, users.app("users"))
	f.do(t, "GET", "/", nil)
	wantOrigin(t, users.one(t).header, "", "", "")
	f.do(t, "GET", "/", nil, "Send-X-Forwarded-For", "203.0.113.7, ::ffff:10.0.0.1", "Send-X-Forwarded-Host", "shop.example", "Send-X-Forwarded-Proto", "https")
	wantOrigin(t, users.one(t).header, "203.0.113.7, 10.0.0.1", "shop.example", "https")
	f.do(t, "GET", "/", nil, "Send-X-Forwarded-For", "bad, 203.0.113.7", "Send-X-Forwarded-Host", "a b", "Send-X-Forwarded-Proto", "ftp", "Send-Forwarded", "for=6.6.6.6")
	wantOrigin(t, users.one(t).header, "203.0.113.7", "", "")
}
