package admin_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt"
	"github.com/org/watt/admin"
	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/watttest"
)

// TestWhoDoesNotReadTheLogHoldsNobodyUp: neither those who write it, nor a goroutine for good.
func TestWhoDoesNotReadTheLogHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := new(admin.Logs)
		h := admin.Handler(watt.New(watt.App{Name: "idle", Handler: http.NotFoundHandler()}), admin.Options{Logs: logs})
		answered := make(chan struct{})
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			close(answered)
		})}
		ln := pipe.Listen(new(pipe.Buffers), "127.0.0.1:9090")
		var serving sync.WaitGroup
		defer serving.Wait()
		defer server.Close()
		serving.Go(func() { server.Serve(ln) })
		conn, err := ln.Dial(t.Context(), "127.0.0.1:1", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /logs HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began, log := time.Now(), zap.New(logs)
		for range 2000 {
			log.Info(strings.Repeat("long ", 200))
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("the log was held up for %v", took)
		}
		time.Sleep(15 * time.Second)
		select {
		case <-answered:
		default:
			t.Error("it is still waited for a reader who has read nothing for 15 s")
		}
	})
}

func TestStreamsEndWithTheRuntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := watt.New(watt.App{Name: "app", Handler: http.NotFoundHandler()})
		watttest.Start(t, rt)
		h := admin.Handler(rt, admin.Options{Logs: new(admin.Logs)})
		ctx, stop := context.WithCancel(context.WithValue(t.Context(), http.LocalAddrContextKey, net.Addr(loopback{})))
		defer stop()
		var streams sync.WaitGroup
		ended := make(chan string, 2)
		for _, path := range []string{"/events", "/logs"} {
			streams.Go(func() {
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, http.NoBody))
				ended <- path
			})
		}
		time.Sleep(5 * time.Second)
		if len(ended) > 0 {
			t.Errorf("%s has ended already", <-ended)
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		if len(ended) != 2 {
			t.Errorf("%d of 2 have ended", len(ended))
		}
		stop()
		streams.Wait()
	})
}
