package funnel_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
)

// A funnel whose instances turn text to upper case, and whose store answers a repeated request with what it said
// before. In a program, upper would have Listen, and a process per processor; here, as in all tests, it stays in this
// one.
func ExampleNew() {
	newUpper := func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
			if err != nil {
				watt.WriteError(w, err)
				return
			}
			result := strings.ToUpper(string(text)) // the expensive part
			req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://store.watt.local/", strings.NewReader(result))
			if err != nil {
				watt.WriteError(w, err)
				return
			}
			req.Header.Set("Idempotency-Key", r.Header.Get("Idempotency-Key"))
			req.Header.Set("X-Watt-User", r.Header.Get("X-Watt-User")) // each user's keys are their own
			resp, err := env.Client.Do(req)
			if err != nil {
				watt.WriteError(w, err)
				return
			}
			defer resp.Body.Close()
			w.WriteHeader(resp.StatusCode)
			io.Copy(w, resp.Body)
		}), nil
	}
	stored := 0
	store := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		stored++
		fmt.Fprintf(w, "%s is number %d", text, stored)
	})
	once := &funnel.Idempotency{Required: true} // in memory; with a Batch, in the database

	rt := watt.New(funnel.New(
		watt.App{Name: "upper", New: newUpper},
		watt.App{Name: "store", Handler: once.Handler(store), Workers: 1},
	))
	ctx := context.Background()
	if err := rt.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Shutdown(ctx)
	for _, key := range []string{`"1"`, `"2"`, `"1"`} {
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://upper.watt.local/", strings.NewReader("tea"))
		req.Header.Set("Idempotency-Key", key)
		resp, err := rt.Env().Client.Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Printf("%s\n", text)
	}
	// Output:
	// TEA is number 1
	// TEA is number 2
	// TEA is number 1
}
