package funnel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
	"github.com/org/watt/watttest"
)

// till is an app that counts sales, behind i.
type till struct {
	*testing.T
	rt    *watt.Runtime
	sales int
}

func newTill(t *testing.T, i *funnel.Idempotency) *till {
	t.Helper()
	x := &till{T: t}
	serve := func(_ context.Context, env *watt.Env) (http.Handler, error) {
		env.Metrics.MustRegister(i)
		return i.Handler(x), nil
	}
	x.rt = watt.New(watt.App{Name: "till", New: serve}, between("other", "till"))
	if err := x.rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.rt.Shutdown(context.Background()) })
	return x
}

// ServeHTTP sells something, in the way that the path says.
func (x *till) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		watt.WriteError(w, err)
		return
	}
	x.sales++
	w.Header().Set("Location", fmt.Sprintf("/sales/%d", x.sales))
	w.Header().Set("Set-Cookie", "secret=1")
	switch r.URL.Path {
	case "/slow":
		time.Sleep(time.Second)
	case "/panic":
		panic(http.ErrAbortHandler)
	case "/large":
		if _, err := w.Write(make([]byte, 2<<20)); err == nil {
			x.Error("got no error of an answer that is too large")
		}
	case "/silent":
		return
	case "/large-header":
		w.Header().Set("Location", strings.Repeat("x", 2<<20))
	case "/fail":
		watt.WriteError(w, errors.New("on purpose"))
		return
	case "/wrong":
		w.WriteHeader(1000)
	}
	var status int
	if n, _ := fmt.Sscanf(r.URL.Path, "/status/%d", &status); n == 0 {
		status = http.StatusCreated
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		x.Error(err)
	}
	w.WriteHeader(http.StatusEarlyHints) // which is lost
	w.WriteHeader(status)
	w.WriteHeader(http.StatusTeapot) // too late
	fmt.Fprintf(w, "sale %d of %s", x.sales, body)
	w.Header().Set("Location", "too late")
}

func post(ctx context.Context, path, key, body string) *http.Request {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://till.watt.local"+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	return req
}

// sale is an answer.
type sale struct {
	status   int
	body     string
	header   http.Header
	replayed bool
}

func (x *till) do(req *http.Request) (sale, error) {
	resp, err := x.rt.Env().Client.Do(req)
	if err != nil {
		return sale{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return sale{resp.StatusCode, string(body), resp.Header, resp.Header.Get("Idempotent-Replayed") == "true"}, err
}

func (x *till) post(path, key, body string) sale {
	x.Helper()
	s, err := x.do(post(x.Context(), path, key, body))
	if err != nil {
		x.Errorf("%s: %v", path, err)
	}
	return s
}

func TestWhatIsRepeatedIsDoneOnceAndAnsweredTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTill(t, &funnel.Idempotency{})
		first := x.post("/sell", `"k1"`, "tea")
		if first.status != http.StatusCreated || first.body != "sale 1 of tea" || first.replayed || first.header.Get("Location") != "/sales/1" {
			t.Errorf("got %+v", first)
		}
		again := x.post("/sell", `"k1"; a=b`, "tea")
		if again.status != first.status || again.body != first.body || !again.replayed || again.header.Get("Location") != "/sales/1" || again.header.Get("Set-Cookie") != "" {
			t.Errorf("got %+v again, want the same", again)
		}
		if bare := x.post("/sell", "k1", "tea"); bare.body != first.body {
			t.Errorf("got %q without quotes, want the same", bare.body)
		}
		if other := x.post("/sell", `"k2"`, "tea"); other.body != "sale 2 of tea" {
			t.Errorf("got %q for another key", other.body)
		}
		if none := x.post("/sell", "", "tea"); none.body != "sale 3 of tea" {
			t.Errorf("got %q without a key", none.body)
		}
		if silent, twice := x.post("/silent", "k", ""), x.post("/silent", "k", ""); silent.status != http.StatusOK || twice.status != http.StatusOK || x.sales != 4 {
			t.Errorf("got %d and %d, %d sales", silent.status, twice.status, x.sales)
		}
	})
}

// send sends a request with a key to a handler that is in no app.
func send(h http.Handler, path, key string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPost, path, http.NoBody)
	req.Header.Set("Idempotency-Key", key)
	h.ServeHTTP(rec, req)
	return rec
}

func TestTheFirstClientGetsCookiesAndTrailers(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "basket", Value: "1"})
		w.Header().Set("Trailer", "Checksum")
		if r.URL.Path == "/refused" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		io.WriteString(w, "done")
		w.Header().Set("Checksum", "abc")
	}
	rt := watt.New(watt.App{Name: "till", Listen: "127.0.0.1:0", Handler: (&funnel.Idempotency{}).Handler(http.HandlerFunc(serve))})
	top := watttest.Start(t, rt)
	for _, url := range []string{"http://till.watt.local/mesh", top.URL("till") + "/public", top.URL("till") + "/refused"} {
		req, err := http.NewRequest(http.MethodPost, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Idempotency-Key", "k")
		resp, err := rt.Env().Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "done" || resp.Header.Get("Set-Cookie") == "" || resp.Trailer.Get("Checksum") != "abc" {
			t.Errorf("%s: got %q with %v and trailers %v", url, body, resp.Header, resp.Trailer)
		}
	}
}

func TestHeadersOfMiddlewareInFrontAreNotRepeated(t *testing.T) {
	h := (&funnel.Idempotency{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Vary", "Accept")
		w.Header().Set("Content-Length", "0")
		w.Header().Set("Date", "then")
		w.Header().Set("Connection", "close")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("Trailer", "Checksum")
		w.Header().Set("Transfer-Encoding", "identity")
		w.Header().Del("Server")
		w.WriteHeader(http.StatusCreated)
	}))
	n := 0
	front := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		w.Header().Set("Vary", "Origin")
		w.Header().Set("Server", "front")
		w.Header().Set("X-Request-Id", strconv.Itoa(n))
		http.SetCookie(w, &http.Cookie{Name: "session", Value: strconv.Itoa(n)})
		h.ServeHTTP(w, r)
	})
	for i := range 2 {
		got := send(front, "/", "k").Header()
		if vary := strings.Join(got.Values("Vary"), ", "); vary != "Origin, Accept" || got.Get("Server") != "" || got.Get("Content-Length") != "0" {
			t.Errorf("got %v, want what the handler made of it", got)
		}
		for _, name := range []string{"Date", "Connection", "Keep-Alive", "Trailer", "Transfer-Encoding"} {
			if there := got.Get(name) != ""; there != (i == 0) {
				t.Errorf("got %v, want %s the first time alone", got, name)
			}
		}
		if id := strconv.Itoa(i + 1); got.Get("X-Request-Id") != id || got.Get("Set-Cookie") != "session="+id {
			t.Errorf("got %v, want request %s's own", got, id)
		}
	}
}

func TestAKeyBelongsToItsScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTill(t, &funnel.Idempotency{})
		x.post("/sell", "k", "tea")
		put := post(t.Context(), "/sell", "k", "tea")
		put.Method = http.MethodPut
		ada := post(t.Context(), "/sell", "k", "tea")
		ada.Header.Set("X-Watt-User", "ada")
		other := post(t.Context(), "/sell", "k", "tea")
		other.URL.Host = "other.watt.local"
		for i, req := range []*http.Request{put, ada, post(t.Context(), "/sell/more", "k", "tea"), other} {
			if got, err := x.do(req); err != nil || !strings.HasPrefix(got.body, fmt.Sprintf("sale %d ", i+2)) {
				t.Errorf("got %q, %v, want sale %d", got.body, err, i+2)
			}
		}
		get := post(t.Context(), "/sell", "k", "")
		get.Method = http.MethodGet
		for range 2 {
			if got, err := x.do(get.Clone(t.Context())); err != nil || got.replayed {
				t.Errorf("got %+v, %v of a GET", got, err)
			}
		}

		x = newTill(t, &funnel.Idempotency{Principal: func(r *http.Request) string { return r.Header.Get("Account") }})
		for i := range 2 {
			req := post(t.Context(), "/sell", "k", "tea")
			req.Header.Set("Account", strconv.Itoa(i))
			if got, err := x.do(req); err != nil || got.replayed {
				t.Errorf("got %+v, %v for account %d", got, err, i)
			}
		}

		x = newTill(t, &funnel.Idempotency{Principal: func(r *http.Request) string { return r.FormValue("account") }})
		form := post(t.Context(), "/sell", "k", "account=1")
		form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if got, err := x.do(form); err != nil || got.body != "sale 1 of account=1" {
			t.Errorf("got %+v, %v: the handler has not got the body", got, err)
		}
	})
}

func TestAKeyIsAnotherOnARouteWhosePrefixIsStripped(t *testing.T) {
	i := &funnel.Idempotency{}
	mux := http.NewServeMux()
	for _, route := range []string{"/orders", "/refunds"} {
		mux.Handle(route+"/", http.StripPrefix(route, i.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, route) }))))
	}
	for _, path := range []string{"/orders/7", "/refunds/7", "http://shop.example/orders/7", "http://shop.example:80/refunds/7"} {
		if got := send(mux, path, "k"); !strings.Contains(path, got.Body.String()) || (got.Header().Get("Idempotent-Replayed") != "") != strings.HasPrefix(path, "http") {
			t.Errorf("%s: got the answer of %s, with %v", path, got.Body, got.Header())
		}
	}
}

func TestAKeyIsAnotherInAnotherAppOfTheMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &funnel.Idempotency{}
		answer := func(name string) http.Handler {
			return i.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) }))
		}
		rt := watt.New(watt.App{Name: "orders", Handler: answer("orders")}, watt.App{Name: "payments", Handler: answer("payments")})
		watttest.Start(t, rt)
		for _, name := range []string{"orders", "payments"} {
			for i, host := range []string{name + ".watt.local", strings.ToUpper(name) + ".watt.local:80", name + ".watt.local."} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+host+"/", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Idempotency-Key", "k")
				resp, err := rt.Env().Client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				if replayed := resp.Header.Get("Idempotent-Replayed") != ""; string(body) != name || replayed != (i > 0) {
					t.Errorf("%s: got the answer of %s, replayed: %v", host, body, replayed)
				}
				resp.Body.Close()
			}
		}
	})
}

func TestSeveralCanBeRegisteredUnderTheirNames(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	for _, c := range []prometheus.Collector{
		&funnel.Idempotency{}, &funnel.Idempotency{Name: "slow"}, &funnel.Batch{}, &funnel.Batch{Name: "slow"},
	} {
		if err := r.Register(c); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Gather(); err != nil {
		t.Error(err)
	}
}

func TestKeysThatAreMissingMalformedOrUsedForAnotherRequestAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTill(t, &funnel.Idempotency{Required: true})
		longest := `"a"; b=` + strings.Repeat("c", 1024-len(`"a"; b=`))
		for _, key := range []string{
			"", `"`, `""`, `"a`, `a"`, `"a" b`, `"\a"`, `"a\`, `"é"`, "a b", "a,b", "a;b", strings.Repeat("k", 256),
			`"a";`, `"a";!!`, `"a"; b=`, `"a";b= 1`, `"a" ;b`, `"a";x, "b"`, `"a";"b"`, `"a";B`, `"a";b=1.`, `"a";b=1234567890123456`, `"a";b=?2`, `"a";b=:!:`, `"a", "b"`,
			`"a"` + strings.Repeat(`;b="c"`, 200), `"` + strings.Repeat(`\"`, 256) + `"`, longest + "x",
		} {
			if got := x.post("/sell", key, "tea"); got.status != http.StatusBadRequest || got.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(got.body, "Idempotency-Key") {
				t.Errorf("%q: got %d %v %s, want 400, and why", key, got.status, got.header, got.body)
			}
		}
		two := post(t.Context(), "/sell", "a", "tea")
		two.Header.Add("Idempotency-Key", "b")
		if got, err := x.do(two); err != nil || got.status != http.StatusBadRequest {
			t.Errorf("got %d, %v for two keys", got.status, err)
		}
		if got := send((&funnel.Idempotency{}).Handler(x), "/sell", `""`); got.Code != http.StatusBadRequest {
			t.Errorf("got %d for an empty key where none is required, want 400: whoever sends it wants one", got.Code)
		}
		if x.sales != 0 {
			t.Errorf("got %d sales", x.sales)
		}
		if got := x.post("/sell", `"with \"quotes\" and \\"`, "tea"); got.status != http.StatusCreated {
			t.Errorf("got %d %s, want 201", got.status, got.body)
		}
		for i, parameters := range []string{``, `;a`, `; *b_1.c-d=tok/en:*`, `;n=-12.125; i=999999999999999;d=@-1;b=:AQ==:;t=?1`, `;s="a;\"\\";u=%"f%c3%bc"`, strings.Repeat(`;b="c"`, 150)} {
			if got := x.post("/sell", `"with parameters"`+parameters, "tea"); got.body != "sale 2 of tea" || got.replayed != (i > 0) {
				t.Errorf("%s: got %d %s, want the same key", parameters, got.status, got.body)
			}
		}
		for _, key := range []string{strings.Repeat("k", 255), `"` + strings.Repeat(`\"`, 255) + `"`, longest} {
			if got := x.post("/sell", key, "tea"); got.status != http.StatusCreated || got.replayed {
				t.Errorf("%d bytes: got %d %s, want 201", len(key), got.status, got.body)
			}
		}
		x.sales = 1
		x.post("/sell", "k", "tea")
		for _, s := range []sale{x.post("/sell", "k", "coffee"), x.post("/sell?n=2", "k", "tea")} {
			if s.status != http.StatusUnprocessableEntity || x.sales != 2 {
				t.Errorf("got %d %s, want 422", s.status, s.body)
			}
		}
		for method, want := range map[string]int{"GET": 200, "HEAD": 200, "OPTIONS": 200, "PUT": 400, "PATCH": 400, "DELETE": 400} {
			bare := post(t.Context(), "/sell", "", "")
			bare.Method = method
			if got, err := x.do(bare); err != nil || got.status != want {
				t.Errorf("%s without a key: got %d, %v, want %d", method, got.status, err, want)
			}
			synctest.Wait() // the answer to a HEAD is complete before its handler has returned
		}
	})
}

func TestAKeyInProgressIsRefusedWith409(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTill(t, &funnel.Idempotency{})
		first := make(chan sale, 1)
		go func() { first <- x.post("/slow", "k", "tea") }()
		synctest.Wait()
		if got := x.post("/slow", "k", "tea"); got.status != http.StatusConflict || got.header.Get("Retry-After") != "1" {
			t.Errorf("got %+v, want 409 with Retry-After", got)
		}
		if got := <-first; got.status != http.StatusCreated {
			t.Errorf("got %+v", got)
		}
		if got := x.post("/slow", "k", "tea"); !got.replayed || x.sales != 1 {
			t.Errorf("got %+v, %d sales", got, x.sales)
		}
	})
}

// Whoever has just missed an answer that was about to be kept finds it there.
func TestAKeyThatComesManyTimesAtOnceIsDoneOnce(t *testing.T) {
	for range 300 {
		var runs atomic.Int64
		h := (&funnel.Idempotency{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			runs.Add(1)
			w.WriteHeader(http.StatusCreated)
		}))
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 4 {
					send(h, "/", "k")
				}
			})
		}
		all.Wait()
		if n := runs.Load(); n != 1 {
			t.Fatalf("it was done %d times", n)
		}
	}
}

// stalled is a client that has stopped reading.
type stalled struct {
	*httptest.ResponseRecorder
	release chan struct{}
}

// Write implements [http.ResponseWriter].
func (s *stalled) Write(b []byte) (int, error) {
	<-s.release
	return len(b), nil
}

func TestAClientThatStopsReadingDoesNotKeepItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := (&funnel.Idempotency{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "sale 1") }))
		release := make(chan struct{})
		var all sync.WaitGroup
		for range 3 { // the first, and some that are told the same
			all.Go(func() {
				req := httptest.NewRequest(http.MethodPost, "/", http.NoBody)
				req.Header.Set("Idempotency-Key", "k")
				h.ServeHTTP(&stalled{httptest.NewRecorder(), release}, req)
			})
			synctest.Wait()
		}
		if got := send(h, "/", "k"); got.Code != http.StatusOK || got.Header().Get("Idempotent-Replayed") != "true" {
			t.Errorf("got %d %s, want the answer that is kept", got.Code, got.Body)
		}
		close(release)
		all.Wait()
	})
}

func TestWhichAnswersAreKeptInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTill(t, &funnel.Idempotency{})
		for status, kept := range map[int]bool{
			200: true, 206: true, 400: true, 404: true, 500: true, 502: true,
			401: false, 408: false, 409: false, 422: false, 429: false, 499: false, 503: false, 504: false,
		} {
			path := fmt.Sprint("/status/", status)
			first, again := x.post(path, "k", ""), x.post(path, "k", "")
			if first.status != status || again.status != status || again.replayed != kept {
				t.Errorf("%d: got %d and %d, replayed: %v", status, first.status, again.status, again.replayed)
			}
		}
		sales := x.sales
		for _, path := range []string{"/large", "/large-header", "/fail", "/wrong"} {
			first, again := x.post(path, "k", ""), x.post(path, "k", "")
			if sales++; first.status != http.StatusInternalServerError || again.status != first.status || x.sales != sales {
				t.Errorf("%s: got %d and %d, %d sales, want 500, once", path, first.status, again.status, x.sales)
			}
		}
		for range 2 {
			if _, err := x.do(post(t.Context(), "/panic", "k", "")); !errors.Is(err, watt.ErrInstanceDied) {
				t.Errorf("got %v after a panic", err)
			}
		}
		if x.sales != sales+2 {
			t.Errorf("got %d sales, want two more", x.sales)
		}
	})
}

func TestAnAnswerWithAnErrorInItsMiddleIsA500(t *testing.T) {
	runs := 0
	h := (&funnel.Idempotency{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		runs++
		io.WriteString(w, "half")
		watt.WriteError(w, errors.New("on purpose"))
	}))
	for range 2 {
		got := send(h, "/", "k")
		if got.Code != http.StatusInternalServerError || strings.Contains(got.Body.String(), "half") || runs != 1 {
			t.Errorf("got %d %q after %d runs, want 500 after one", got.Code, got.Body, runs)
		}
	}
}

func TestAnAnswerThatIsNotAsLongAsItSaysIsA500(t *testing.T) {
	for what, test := range map[string]struct {
		length, first, second string
		status, want          int
	}{
		"broken off":      {"8", "half", "", 200, 500},
		"nothing of it":   {"8", "", "", 200, 500},
		"too long":        {"4", "twice ", "as much", 200, 500},
		"a gap":           {"4", "too long", "end.", 200, 500},
		"whole":           {"8", "half", "half", 200, 200},
		"empty":           {"0", "", "", 200, 200},
		"no length":       {"soon", "half", "", 200, 200},
		"without a body":  {"8", "", "", 204, 204},
		"where it stands": {"8", "", "", 304, 304},
	} {
		runs := 0
		h := (&funnel.Idempotency{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			runs++
			w.Header().Set("Content-Length", test.length) // of what it passes on
			w.WriteHeader(test.status)
			for _, part := range []string{test.first, test.second} {
				_, _ = io.WriteString(w, part)
			}
		}))
		for range 2 {
			got := send(h, "/", "k")
			if got.Code != test.want || (got.Body.String() == test.first+test.second) != (test.want < 500) || runs != 1 {
				t.Errorf("%s: got %d %q after %d runs, want %d after one", what, got.Code, got.Body, runs, test.want)
			}
		}
	}
}

func TestAnAnswerThatIsTooLargeIsA500HoweverLittleMayBeKept(t *testing.T) {
	runs := 0
	h := (&funnel.Idempotency{MaxBytes: 1}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		runs++
		io.WriteString(w, "more")
	}))
	for range 2 {
		if got := send(h, "/", "k"); got.Code != http.StatusInternalServerError || runs != 1 {
			t.Errorf("got %d after %d runs, want 500 after one", got.Code, runs)
		}
	}
}

func TestMaxBytesMayMeanNoLimit(t *testing.T) {
	h := (&funnel.Idempotency{MaxBytes: math.MaxInt64}).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, replayed := range []string{"", "true"} {
		for _, key := range []string{"a", "b"} {
			if got := send(h, "/", key).Header().Get("Idempotent-Replayed"); got != replayed {
				t.Errorf("%s: got replayed %q, want %q", key, got, replayed)
			}
		}
	}
}

func TestAFirstTryThatWasTooLateLeavesItsKeyFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for path, finished := range map[string]bool{"/gives-up": false, "/finishes": true} {
			rt := watt.New(watt.App{Name: "till", Handler: (&funnel.Idempotency{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-time.After(time.Second): // for a lock, or another app
				case <-r.Context().Done():
					if r.URL.Path == "/gives-up" {
						http.Error(w, "no time left", http.StatusInternalServerError)
						return
					}
				}
				w.WriteHeader(http.StatusCreated)
			}))})
			watttest.Start(t, rt)
			hasty, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if resp, err := rt.Env().Client.Do(post(hasty, path, "k", "")); err == nil {
				resp.Body.Close()
				t.Errorf("%s: got %d, want no answer", path, resp.StatusCode)
			}
			cancel()
			synctest.Wait()
			resp, err := rt.Env().Client.Do(post(t.Context(), path, "k", ""))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if replayed := resp.Header.Get("Idempotent-Replayed") != ""; resp.StatusCode != http.StatusCreated || replayed != finished {
				t.Errorf("%s: got %d, replayed: %v, want 201, replayed: %v", path, resp.StatusCode, replayed, finished)
			}
		}
	})
}

func TestMemoryIsBoundedInTimeAndSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTill(t, &funnel.Idempotency{TTL: time.Minute, MaxBytes: 1 << 10})
		x.post("/sell", "k", "tea")
		time.Sleep(59 * time.Second)
		if got := x.post("/sell", "k", "tea"); !got.replayed {
			t.Error("got it forgotten too early")
		}
		time.Sleep(time.Second)
		if got := x.post("/sell", "k", "tea"); got.replayed {
			t.Error("got it kept too long")
		}
		for i := range 100 {
			x.post("/sell", strconv.Itoa(i), "tea")
		}
		for key, kept := range map[string]bool{"99": true, "50": true, "30": false, "0": false} { // of 64 KiB, each takes a little more than one
			if got := x.post("/sell", key, "tea"); got.replayed != kept {
				t.Errorf("%s: got it kept: %v, want %v", key, got.replayed, kept)
			}
		}
		h := (&funnel.Idempotency{MaxBytes: 4 << 10}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", strings.Repeat("x", 3<<10))
		}))
		for i := range 100 { // 300 KiB, where 256 are kept
			send(h, "/", strconv.Itoa(i))
		}
		if oldest := send(h, "/", "0").Header(); oldest.Get("Idempotent-Replayed") != "" || oldest.Get("Location") == "" {
			t.Error("got the oldest kept: headers are not counted")
		}
		if got := x.post("/sell", "large", strings.Repeat("x", 1025)); got.status != http.StatusRequestEntityTooLarge {
			t.Errorf("got %d for a body that is too large, want 413", got.status)
		}
	})
}

func TestAnswersAreKeptForADayUnlessToldOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := (&funnel.Idempotency{}).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for _, replayed := range []string{"", "true", ""} {
			if got := send(h, "/", "k").Header().Get("Idempotent-Replayed"); got != replayed {
				t.Errorf("got replayed %q at %v, want %q", got, time.Now(), replayed)
			}
			time.Sleep(24*time.Hour - time.Second)
		}
	})
}

func TestAConnectionIsNotHandedOut(t *testing.T) {
	server := httptest.NewServer((&funnel.Idempotency{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if conn, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("got %v, %v", conn, err)
		}
		w.WriteHeader(http.StatusNotImplemented)
	})))
	defer server.Close()
	req, err := http.NewRequest(http.MethodPost, server.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Idempotency-Key", "k")
	if resp, err := server.Client().Do(req); err != nil || resp.StatusCode != http.StatusNotImplemented {
		t.Errorf("got %+v, %v", resp, err)
	}
}

func TestABodyThatBreaksOffIsNotWorkedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTill(t, &funnel.Idempotency{})
		body, w := io.Pipe()
		req := post(t.Context(), "/sell", "k", "")
		req.Body = body
		go func() {
			io.WriteString(w, "te")
			w.CloseWithError(errors.New("gone"))
		}()
		if got, err := x.do(req); err == nil && got.status < 400 {
			t.Errorf("got %+v", got)
		}
		if got := x.post("/sell", "k", "tea"); got.body != "sale 1 of tea" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAClientWhoseBodyDoesNotComeIsToldSo(t *testing.T) {
	for status, test := range map[string]struct {
		timeout time.Duration
		end     func(*net.TCPConn)
	}{
		"400 Bad Request":     {time.Minute, func(conn *net.TCPConn) { conn.CloseWrite() }},
		"504 Gateway Timeout": {50 * time.Millisecond, func(*net.TCPConn) {}},
	} {
		i := &funnel.Idempotency{}
		top := watttest.Start(t, watt.New(watt.App{
			Name: "till", Listen: "127.0.0.1:0", Timeout: test.timeout, Handler: i.Handler(http.NotFoundHandler()),
		}))
		conn, err := net.Dial("tcp", strings.TrimPrefix(top.URL("till"), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 10\r\n\r\ntea")
		test.end(conn.(*net.TCPConn))
		if got, _ := io.ReadAll(conn); !strings.HasPrefix(string(got), "HTTP/1.1 "+status) {
			t.Errorf("got %q, want %s", got, status)
		}
		conn.Close()
	}
}

func TestOutcomesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTill(t, &funnel.Idempotency{Required: true})
		x.post("/sell", "k", "tea")
		x.post("/sell", "k", "tea")
		x.post("/sell", "k", "coffee")
		x.post("/sell", "", "tea")
		got := make(map[string]float64)
		families, err := prometheus.Gatherers{x.rt}.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "outcome" {
						got[l.GetValue()] = m.GetCounter().GetValue()
					}
				}
			}
		}
		if got["first"] != 1 || got["replayed"] != 1 || got["refused"] != 2 {
			t.Errorf("got %v", got)
		}
	})
}
