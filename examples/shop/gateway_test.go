package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/org/watt"
)

// as is what a request with token is answered with.
func (s *shop) as(token, path string, headers ...string) answer {
	s.t.Helper()
	req := s.request(http.MethodGet, path, http.NoBody)
	req.Header.Set("Authorization", token)
	for i := 0; i < len(headers); i += 2 {
		req.Header[headers[i]] = []string{headers[i+1]}
	}
	return s.do(req)
}

func TestOrdersAreForWhoeverIsSignedIn(t *testing.T) {
	t.Parallel()
	c := config{addr: "127.0.0.1:0", data: t.TempDir(), key: []byte("a key of the shop's")}
	s := startShop(t, newShop(c))
	good := "Bearer " + tokenOf(t, s.url, "1")
	if got := s.as(good, "/orders/mine"); got.status != http.StatusOK || !strings.Contains(string(got.body), "tea") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if got := s.as(good, "/orders/mine", "X-Watt-User", "2"); !strings.Contains(string(got.body), "tea") {
		t.Errorf("another user's: got %d %s", got.status, got.body)
	}
	signed := func(method jwt.SigningMethod, key any, claims jwt.RegisteredClaims) string {
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + token
	}
	later, earlier := jwt.NewNumericDate(time.Now().Add(time.Hour)), jwt.NewNumericDate(time.Now().Add(-time.Hour))
	for name, token := range map[string]string{
		"none":             "",
		"no bearer":        "Basic MTp4",
		"nonsense":         "Bearer nonsense",
		"cut short":        good[:len(good)-2],
		"another key":      signed(jwt.SigningMethodHS256, []byte("another"), jwt.RegisteredClaims{Subject: "1", ExpiresAt: later}),
		"not signed":       signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, jwt.RegisteredClaims{Subject: "1", ExpiresAt: later}),
		"another method":   signed(jwt.SigningMethodHS512, c.key, jwt.RegisteredClaims{Subject: "1", ExpiresAt: later}),
		"expired":          signed(jwt.SigningMethodHS256, c.key, jwt.RegisteredClaims{Subject: "1", ExpiresAt: earlier}),
		"never expires":    signed(jwt.SigningMethodHS256, c.key, jwt.RegisteredClaims{Subject: "1"}),
		"nobody's":         signed(jwt.SigningMethodHS256, c.key, jwt.RegisteredClaims{ExpiresAt: later}),
		"not yet":          signed(jwt.SigningMethodHS256, c.key, jwt.RegisteredClaims{Subject: "1", ExpiresAt: later, NotBefore: later}),
		"without a Bearer": strings.TrimPrefix(good, "Bearer "),
	} {
		got := s.as(token, "/orders/mine", "X-Watt-User", "1", "X_Watt_User", "1")
		if got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
	}
	for _, path := range []string{"/orders/%6dine", "/orders//mine", "/orders/mine/", "/orders/x%2F..%2Fmine", "/orders/./mine"} { // around the gateway's route
		if got := s.as("", path, "X-Watt-User", "1"); got.status == http.StatusOK {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
	}
}

func TestPagesFromElsewhereMayUseTheShopIfItSaysSo(t *testing.T) {
	t.Parallel()
	s := startShop(t, newTestShop(t))
	for origin, want := range map[string]string{"http://localhost:3000": "http://localhost:3000", "http://evil.example": "", "": ""} {
		req := s.request(http.MethodOptions, "/orders/mine", http.NoBody)
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", http.MethodGet)
		req.Header.Set("Access-Control-Request-Headers", "authorization")
		if got := s.do(req).header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("%s: got %q, want %q", origin, got, want)
		}
	}
}

func TestAClientThatAsksTooOftenHasToWait(t *testing.T) {
	t.Parallel()
	s := startShop(t, newTestShop(t))
	var got answer
	for range 2*perMinute + 1 { // the minute may change in between
		if got = s.get("/"); got.status != http.StatusNotFound {
			break
		}
	}
	if got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
		t.Errorf("got %d with Retry-After %q", got.status, got.header.Get("Retry-After"))
	}
}

func TestAnUploadThatIsTooLargeDoesNotPassTheGateway(t *testing.T) {
	t.Parallel()
	rt := newTestShop(t)
	if err := rt.Update("resize", func(a *watt.App) {
		a.New, a.Handler = nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				watt.WriteError(w, err)
			}
		})
	}); err != nil {
		t.Fatal(err)
	}
	s := startShop(t, rt)
	for size, want := range map[int]int{maxUpload: http.StatusOK, maxUpload + 1: http.StatusRequestEntityTooLarge} {
		if got := s.post("/pictures", bytes.NewReader(make([]byte, size))); got.status != want {
			t.Errorf("%d bytes: got %d %s, want %d", size, got.status, got.body, want)
		}
	}
	for size, want := range map[int]int{maxForm: http.StatusOK, maxForm + 1: http.StatusBadRequest} {
		req := s.request(http.MethodPost, "/token", strings.NewReader("user="+strings.Repeat("1", size-len("user="))))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded") // else it is no form, and never one of a user
		if got := s.do(req); got.status != want {
			t.Errorf("a form of %d bytes: got %d, want %d", size, got.status, want)
		}
	}
}

func TestWhatIsSaidInSupportComesAsAnEvent(t *testing.T) {
	t.Parallel()
	s := startShop(t, newTestShop(t))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	feed, err := s.http.Do(s.request(http.MethodGet, "/support/feed", http.NoBody).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Body.Close()
	chat, _, err := websocket.Dial(ctx, s.url+"/support/chat", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {s.url}}})
	if err != nil {
		t.Fatal(err)
	}
	defer chat.CloseNow()
	events := bufio.NewScanner(feed.Body)
	if !events.Scan() || !strings.HasPrefix(events.Text(), ": ") || !events.Scan() {
		t.Errorf("got %q, want a comment", events.Text())
	}
	for _, what := range []string{"where is my tea?", "two\nlines"} {
		if err := chat.Write(ctx, websocket.MessageText, []byte(what)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := chat.Read(ctx); string(got) != "1 heard it" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		for line := range strings.Lines(what) {
			if want := "data: " + strings.TrimSuffix(line, "\n"); !events.Scan() || events.Text() != want {
				t.Errorf("got %q, want %q", events.Text(), want)
			}
		}
		events.Scan()
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }() // does not wait for either
	if _, _, err := chat.Read(ctx); err == nil {
		t.Error("the chat goes on")
	}
	for events.Scan() {
		t.Errorf("got %q", events.Text())
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestOnlyTheShopsOwnPagesMayChat(t *testing.T) {
	t.Parallel()
	s := startShop(t, newTestShop(t))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	chat, resp, err := websocket.Dial(ctx, s.url+"/support/chat", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"http://evil.example"}}})
	if err == nil {
		chat.CloseNow()
	}
	if resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestHomeSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	rt := newTestShop(t)
	if err := rt.Update("orders", func(a *watt.App) {
		a.New, a.Handler = nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	}); err != nil {
		t.Fatal(err)
	}
	got := startShop(t, rt).get("/home/1")
	if got.status != http.StatusOK || got.header.Get("X-Watt-Partial") != "orders;reason=status" || !strings.Contains(string(got.body), `"orders":[]`) {
		t.Errorf("got %d %v %s", got.status, got.header, got.body)
	}
}
