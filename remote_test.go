package watt_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/watt"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newCA(t *testing.T) *authority {
	t.Helper()
	ca := &authority{t: t, pool: x509.NewCertPool()}
	ca.cert = &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	signed := ca.issue("ca")
	ca.key, ca.cert = signed.PrivateKey.(*ecdsa.PrivateKey), signed.Leaf
	ca.pool.AddCert(ca.cert)
	return ca
}

// issue signs a certificate for name and the loopback address; the first is the authority's own.
func (ca *authority) issue(name string) tls.Certificate {
	ca.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	template, signer := &x509.Certificate{
		Subject: pkix.Name{CommonName: "not the caller"}, DNSNames: []string{name, "second.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca.key
	if signer == nil {
		template, signer = ca.cert, key
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), signer)
	if err != nil {
		ca.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// client trusts the authority and shows certs.
func (ca *authority) client(http2 bool, certs ...tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{RootCAs: ca.pool, Certificates: certs},
	}}
}

// server is a configuration that treats clients' certificates as auth says.
func (ca *authority) server(auth tls.ClientAuthType) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{ca.issue("server.example")}, ClientCAs: ca.pool, ClientAuth: auth}
}

func TestAListenThatDemandsClientCertificatesTrustsItsPeers(t *testing.T) {
	ca := newCA(t)
	demands, asks, neither := public(app("demands", show)), public(app("asks", show)), public(app("neither", show))
	demands.TLS, asks.TLS, neither.TLS = ca.server(tls.RequireAndVerifyClientCert), ca.server(tls.VerifyClientCertIfGiven), ca.server(tls.NoClientCert)
	rt := start(t, demands, asks, neither)
	for _, http2 := range []bool{true, false} {
		client := ca.client(http2, ca.issue("gateway.example"))
		for name, trusted := range map[string]bool{"demands": true, "asks": false, "neither": false} {
			req := request(t.Context(), http.MethodGet, "https://"+publicAddr(t, rt, name)+"/", nil)
			req.Header.Set("X-Watt-User", "7")
			req.Header.Set("X-Watt-Timeout", "60000")
			resp, err := client.Do(req)
			got := read(t, resp, err)
			if trusted != strings.Contains(got, "X-Watt-User: 7") || trusted != strings.Contains(got, `caller="gateway.example" deadline=true`) {
				t.Errorf("%s, HTTP/2 %t: got %q", name, http2, got)
			}
		}
		client.CloseIdleConnections()
	}
	stranger := ca.client(true)
	defer stranger.CloseIdleConnections()
	if resp, err := stranger.Get("https://" + publicAddr(t, rt, "demands") + "/"); err == nil {
		resp.Body.Close()
		t.Error("a client without a certificate came in")
	}
}

func TestAnAppMayRunElsewhereBehindAURL(t *testing.T) {
	ca := newCA(t)
	orders := public(app("orders", show))
	orders.TLS = ca.server(tls.RequireAndVerifyClientCert)
	elsewhere := start(t, orders)
	here := start(t, calling("web", func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
		resp, err := env.Get(r.Context(), "http://orders.watt.local/7?a=b")
		io.WriteString(w, read(t, resp, err))
	}, "orders"), watt.App{
		Name: "orders", URL: "https://" + publicAddr(t, elsewhere, "orders"),
		TLS: &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{ca.issue("web.shop.example")}},
	})
	client := *here.Env().Client
	client.Timeout = time.Minute
	req := request(t.Context(), http.MethodGet, "http://web.watt.local/", nil)
	for _, name := range travelling {
		req.Header.Set(name, name)
	}
	resp, err := client.Do(req)
	got := read(t, resp, err)
	for _, want := range append(travelling, `HTTP/2.0 caller="web.shop.example" deadline=true`) {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	if strings.Contains(got, "X-Watt-Timeout") {
		t.Error("the handler sees X-Watt-Timeout")
	}
	if err := here.Restart("orders", 0); err == nil || !strings.Contains(err.Error(), "runs elsewhere") {
		t.Errorf("got %v, want it to say that there is nothing to restart here", err)
	}
}

func TestTheDeadlineTravelsAsRemainingTime(t *testing.T) {
	type seen struct{ method, url, body, timeout, host string }
	got := make(chan seen, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- seen{r.Method, r.URL.String(), string(body), r.Header.Get("X-Watt-Timeout"), r.Host}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	rt := start(t, watt.App{Name: "orders", URL: server.URL + "/base/"})
	client := *rt.Env().Client
	client.Timeout = 10 * time.Second
	req := request(t.Context(), http.MethodPut, "http://orders.watt.local:9/a%2Fb?c=d", strings.NewReader("body"))
	req.Header.Set("X-Watt-Timeout", "99999999")
	resp, err := client.Do(req)
	read(t, resp, err)
	s := <-got
	if left, err := strconv.Atoi(s.timeout); err != nil || left < 1 || left > 10000 {
		t.Errorf("got %q of ten seconds", s.timeout)
	}
	s.timeout = ""
	if want := (seen{"PUT", "/base/a%2Fb?c=d", "body", "", server.Listener.Addr().String()}); s != want {
		t.Errorf("got %v, want %v", s, want)
	}
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("got %d", resp.StatusCode)
	}
}

func TestAPathStaysAsItIsBelowTheBaseURL(t *testing.T) {
	got := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.RequestURI }))
	defer server.Close()
	rt := start(t, watt.App{Name: "bare", URL: server.URL}, watt.App{Name: "slash", URL: server.URL + "/"},
		watt.App{Name: "tenant", URL: server.URL + "/tenant%2F1"}, watt.App{Name: "deep", URL: server.URL + "/tenant/1/"})
	for name, base := range map[string]string{"bare": "", "slash": "", "tenant": "/tenant%2F1", "deep": "/tenant/1"} {
		for _, path := range []string{"/", "/a//b", "//a", "/./a/", "/a/./b", "/a%2Fb/%41", "/x?", "/x?a=%zz;b", "/..a/b..", "/a b"} {
			resp, err := rt.Env().Get(t.Context(), "http://"+name+".watt.local"+path)
			read(t, resp, err)
			if got, want := <-got, base+strings.ReplaceAll(path, " ", "%20"); got != want {
				t.Errorf("%s: %s arrived as %s, want %s", name, path, got, want)
			}
		}
	}
}

func TestAPathThatMayLeaveTheBaseURLIsRefused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(show))
	defer server.Close()
	rt := start(t, watt.App{Name: "bare", URL: server.URL}, watt.App{Name: "tenant", URL: server.URL + "/tenant1"})
	for _, path := range []string{"/../tenant2", "/a/..", "/%2e%2E/tenant2", "/a%2F..%2f..", `/..\tenant2`, "/a//../../tenant2"} {
		_, err := rt.Env().Get(t.Context(), "http://tenant.watt.local"+path)
		if call, ok := errors.AsType[*watt.CallError](err); !ok || call.Started || call.App != "tenant" {
			t.Errorf("%s: got %v", path, err)
		}
		resp, err := rt.Env().Get(t.Context(), "http://bare.watt.local"+path) // which there is nothing to leave of
		read(t, resp, err)
	}
}

func TestAnOpaqueTargetReachesAnAppElsewhereAsItIs(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) })
	server := httptest.NewServer(echo)
	defer server.Close()
	rt := start(t, app("here", echo), watt.App{Name: "there", URL: server.URL}, watt.App{Name: "tenant", URL: server.URL + "/tenant1"})
	ask := func(name, target string) (*http.Response, error) {
		req := request(t.Context(), http.MethodGet, "http://"+name+".watt.local/?a=b", nil)
		req.URL.Opaque = target
		return rt.Env().Client.Do(req)
	}
	for _, name := range []string{"here", "there"} {
		resp, err := ask(name, "/a%2Fb/../c")
		if got := read(t, resp, err); got != "/a%2Fb/../c?a=b" {
			t.Errorf("%s: got %s", name, got)
		}
	}
	for _, past := range [][2]string{{"tenant", "/a"}, {"there", "//elsewhere.example/a"}, {"there", "http://elsewhere.example/a"}} {
		_, err := ask(past[0], past[1])
		if call, ok := errors.AsType[*watt.CallError](err); !ok || call.Started || call.App != past[0] {
			t.Errorf("%s: got %v", past, err)
		}
	}
}

func TestErrorsAreTheSameForAnAppElsewhere(t *testing.T) {
	ca := newCA(t)
	a, busy := full()
	a = public(a)
	a.TLS = ca.server(tls.RequireAndVerifyClientCert)
	own := public(app("cut", cut))
	elsewhere := start(t, a, own)
	occupy(t, elsewhere, busy)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	var env *watt.Env
	start(t, caller(&env, "full", "cut", "gone"),
		watt.App{Name: "full", URL: "https://" + publicAddr(t, elsewhere, "full"), TLS: &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{ca.issue("web")}}},
		watt.App{Name: "cut", URL: "http://" + publicAddr(t, elsewhere, "cut")},
		watt.App{Name: "gone", URL: "http://" + gone.Addr().String()})
	_, err = env.Get(t.Context(), "http://full.watt.local/") // its door says so, and that nothing was started
	if call := wantCall(t, err, "full", watt.ErrOverloaded, false); call.RetryAfter < time.Second {
		t.Errorf("RetryAfter is %v", call.RetryAfter)
	}
	_, err = env.Client.Do(request(t.Context(), http.MethodPost, "http://cut.watt.local/abort", nil))
	wantCall(t, err, "cut", watt.ErrInstanceDied, true)
	_, err = env.Get(t.Context(), "http://gone.watt.local/")
	wantCall(t, err, "gone", watt.ErrUnavailable, false)
}

func TestAnUpgradeReachesAnAppElsewhere(t *testing.T) {
	elsewhere := start(t, public(app("chat", shout)), public(watt.App{Name: "raw", Serve: shoutTCP}))
	rt := start(t, watt.App{Name: "chat", URL: "http://" + publicAddr(t, elsewhere, "chat")}, watt.App{Name: "raw", URL: "http://" + publicAddr(t, elsewhere, "raw")})
	resp, err := rt.Env().Client.Do(upgrading(t.Context(), "http://chat.watt.local/"))
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	conn := resp.Body.(io.ReadWriteCloser)
	defer conn.Close()
	io.WriteString(conn, "hello\n")
	got := make([]byte, 6)
	if _, err := io.ReadFull(conn, got); string(got) != "HELLO\n" {
		t.Errorf("got %q, %v", got, err)
	}
	direct, err := rt.Env().Dial(t.Context(), "raw")
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	io.WriteString(direct, "hello")
	direct.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(direct); string(got) != "HELLO" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestTheTLSOfAnAppElsewhereStaysAsItIs when its calls speak HTTP/2: it may be another app's too, and a raw connection speaks
// what its caller does.
func TestTheTLSOfAnAppElsewhereStaysAsItIs(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(show))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	shared := &tls.Config{RootCAs: roots}
	rt := start(t, watt.App{Name: "one", URL: server.URL, TLS: shared}, watt.App{Name: "two", URL: server.URL, TLS: shared})
	var calls sync.WaitGroup
	for _, name := range []string{"one", "two"} {
		calls.Go(func() {
			resp, err := rt.Env().Get(t.Context(), "http://"+name+".watt.local/")
			if got := read(t, resp, err); !strings.HasPrefix(got, "HTTP/2.0 ") {
				t.Errorf("got %q", got)
			}
		})
	}
	calls.Wait()
	conn, err := rt.Env().Dial(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: one\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if got := read(t, resp, err); !strings.HasPrefix(got, "HTTP/1.1 ") {
		t.Errorf("got %q", got)
	}
	if shared.NextProtos != nil {
		t.Errorf("its protocols are %q", shared.NextProtos)
	}
}
