package watt_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
)

func TestReadinessChecksDoNotFollowRedirects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		moved := app("a", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/ready" {
				t.Errorf("%s was asked for", r.URL.Path)
			}
			if asked++; asked < 5 {
				http.Redirect(w, r, "/elsewhere", http.StatusFound)
			}
		})
		moved.ReadyPath = "/ready"
		start(t, moved)
		if asked != 5 {
			t.Errorf("it was ready after %d checks", asked)
		}
	})
}

func TestStatusHandsOutACopyOfCalls(t *testing.T) {
	rt := start(t, calling("a", func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
		resp, err := env.Get(r.Context(), "http://b.watt.local/")
		io.WriteString(w, read(t, resp, err))
	}, "b"), app("b", sayHello))
	statusOf(t, rt, "a").Calls[0] = "changed by its reader"
	if got := statusOf(t, rt, "a").Calls; !slices.Equal(got, []string{"b"}) {
		t.Errorf("got Calls %q", got)
	}
	if r := get(t.Context(), rt, "a.watt.local/"); r.body != "hello" {
		t.Errorf("got %+v", r)
	}
}

func TestWriteErrorRemovesWhatDescribesAnotherAnswer(t *testing.T) {
	removed := []string{"Etag", "Cache-Control", "Content-Length", "Content-Encoding", "Last-Modified"}
	w := httptest.NewRecorder()
	for _, name := range removed {
		w.Header().Set(name, "7")
	}
	w.Header().Set("X-Other", "stays")
	watt.WriteError(w, errors.New("on purpose"))
	resp := w.Result()
	defer resp.Body.Close()
	for _, name := range removed {
		if v := resp.Header.Get(name); v != "" {
			t.Errorf("%s is still %q", name, v)
		}
	}
	checkProblem(t, resp, http.StatusInternalServerError)
	if resp.Header.Get("X-Other") == "" {
		t.Errorf("got %v", resp.Header)
	}
}

func TestDialsThatAreShedAreSummedUpInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.WarnLevel)
		rt := watt.New(working("a", func(a *watt.App) { a.MaxConns = 1 }))
		rt.Logger = zap.New(core)
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn, err := rt.Env().Dial(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		for range 7 {
			_, err := rt.Env().Dial(t.Context(), "a")
			wantErr(t, err, watt.ErrOverloaded)
		}
		time.Sleep(time.Minute)
		conn.Close()
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		lines := logs.FilterMessage("shed requests").All()
		if len(lines) != 1 || lines[0].ContextMap()["requests"] != uint64(7) {
			t.Errorf("got %v, want one line that sums up 7", lines)
		}
	})
}

func TestWhoFindsNoSeatUnderMaxConnsIsSummedUpInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.WarnLevel)
		rt := watt.New(watt.App{Name: "a", MaxConns: -1, Handler: linger(make(chan string, 1))})
		rt.Logger = zap.New(core)
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			_, err := open(t.Context(), t, rt, "/upgrade")
			wantErr(t, err, watt.ErrOverloaded)
			if r := get(t.Context(), rt, "a.watt.local/stream"); r.status != http.StatusServiceUnavailable {
				t.Errorf("got %+v", r)
			}
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if s := rt.Status()[0]; s.ConnsShed != 6 {
			t.Errorf("%d are counted, want 6", s.ConnsShed)
		}
		lines := logs.All()
		if len(lines) != 1 || lines[0].ContextMap()["requests"] != uint64(6) || !strings.Contains(fmt.Sprint(lines[0].ContextMap()["last"]), "MaxConns") {
			t.Errorf("got %v, want one line that sums up 6 and says why", lines)
		}
	})
}

func TestAConnectionThatFindsNoSeatWhenItsRequestWasAnsweredIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app("a", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
			_, _, err := http.NewResponseController(w).Hijack()
			wantErr(t, err, watt.ErrOverloaded)
		})
		a.MaxConns = -1
		rt, dial := bubble(t, public(a))
		if resp := ask(t, dial(), "/"); resp.StatusCode != http.StatusOK {
			t.Errorf("got %v", resp)
		}
		synctest.Wait()
		if s := statusOf(t, rt, "a"); s.ConnsShed != 1 {
			t.Errorf("%d are counted, want 1", s.ConnsShed)
		}
	})
}

func TestTheConnectionOfADialThatIsShedIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		rt := start(t, watt.App{Name: "a", MaxConns: 1, Serve: func(ctx context.Context, _ *watt.Env, ln net.Listener) error {
			defer context.AfterFunc(ctx, func() { ln.Close() })()
			for n := 1; ; n++ {
				conn, err := ln.Accept()
				if err != nil {
					return nil
				}
				go func() {
					defer conn.Close()
					_, err := io.Copy(io.Discard, conn)
					if n == 2 {
						ended <- err
					}
				}()
			}
		}})
		conn, err := rt.Env().Dial(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = rt.Env().Dial(t.Context(), "a")
		wantErr(t, err, watt.ErrOverloaded)
		if err := within(t, ended, "the end of the second"); err != nil {
			t.Error(err)
		}
	})
}

func TestDialReachesAnAppElsewhereBehindTLS(t *testing.T) {
	ca := newCA(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", ca.server(tls.RequireAndVerifyClientCert))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	for name, config := range map[string]*tls.Config{
		"right": {RootCAs: ca.pool, Certificates: []tls.Certificate{ca.issue("gateway.example")}},
		"wrong": {Certificates: []tls.Certificate{ca.issue("gateway.example")}}, // it does not know the authority
	} {
		rt := start(t, watt.App{Name: "a", URL: "https://" + ln.Addr().String(), TLS: config})
		conn, err := rt.Env().Dial(t.Context(), "a")
		if name == "wrong" {
			wantErr(t, err, watt.ErrUnavailable)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, "hello")
		got := make([]byte, 5)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
			t.Errorf("got %q, %v", got, err)
		}
		conn.Close()
		if s := statusOf(t, rt, "a"); s.Conns != 0 {
			t.Errorf("%d connections are counted", s.Conns)
		}
	}
}
