package pyramid_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// nowhere is a ResponseWriter that keeps nothing.
type nowhere http.Header

func (w nowhere) Header() http.Header         { return http.Header(w) }
func (w nowhere) WriteHeader(int)             {}
func (w nowhere) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkCompose composes three parts of 600 bytes: of apps, of functions, and, to be subtracted, the
// calls to the apps alone.
func BenchmarkCompose(b *testing.B) {
	small := `{"text":"` + strings.Repeat("x", 589) + `"}`
	rt := watt.New(telling("a", small), telling("b", small), telling("c", small))
	if err := rt.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { rt.Shutdown(context.Background()) })
	computed := pyramid.Part{Func: func(*http.Request) (any, error) { return json.RawMessage(small), nil }}
	for name, handler := range map[string]http.HandlerFunc{
		"apps": pyramid.Compose(rt.Env(), pyramid.Parts{
			"a": {App: "a", Path: "/{id}"}, "b": {App: "b", Path: "/?id={id}"}, "c": {App: "c", Path: "/"},
		}),
		"coalesced": pyramid.Compose(rt.Env(), pyramid.Parts{
			"a": {App: "a", Path: "/{id}", Coalesce: true}, "b": {App: "b", Path: "/?id={id}", Coalesce: true},
			"c": {App: "c", Path: "/", Coalesce: true},
		}),
		"funcs": pyramid.Compose(rt.Env(), pyramid.Parts{"a": computed, "b": computed, "c": computed}),
		"calls": callsAlone(rt.Env()),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://gateway/home/7", http.NoBody)
				if err != nil {
					b.Error(err)
					return
				}
				req.Header = http.Header{"User-Agent": {"bench"}, "Authorization": {"Bearer x"}, "Accept": {"*/*"}}
				req.SetPathValue("id", "7")
				w := make(nowhere)
				for pb.Next() {
					clear(w)
					handler(w, req)
				}
			})
		})
	}
}

// callsAlone calls three apps at once and reads what they answer.
func callsAlone(env *watt.Env) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		var calls sync.WaitGroup
		for _, url := range [...]string{"http://a.watt.local/7", "http://b.watt.local/?id=7", "http://c.watt.local/"} {
			calls.Go(func() {
				resp, err := env.Get(r.Context(), url)
				if err != nil {
					panic(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			})
		}
		calls.Wait()
	}
}
