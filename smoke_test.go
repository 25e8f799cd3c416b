package watt_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/org/watt"
)

func TestSmoke(t *testing.T) {
	rt := watt.New(
		watt.App{Name: "web", Listen: "127.0.0.1:0", Calls: []string{"users"}, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				u, err := watt.JSON[struct{ Name string }](env.Get(r.Context(), "http://users.watt.local/7"))
				if err != nil {
					watt.WriteError(w, err)
					return
				}
				fmt.Fprintf(w, "Hello, %s!\n", u.Name)
			}), nil
		}},
		watt.App{Name: "users", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"name": "Ada%s"}`, watt.Caller(r.Context()))
		})},
	)
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + rt.Status()[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	t.Log(string(b), resp.Status)
	began := time.Now()
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(began))
}
