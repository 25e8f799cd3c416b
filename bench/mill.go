package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	wattlib "github.com/org/watt"
)

// instanceHeader says which instance of a mill has answered.
const instanceHeader = "Instance"

// milling is a runtime with an app whose instances have processes of their own, and one in the first process that
// they may call. A child of this program finds itself in it, whatever the limits: see play.
func milling(mill wattlib.App) *wattlib.Runtime {
	mill.Name, mill.Listen, mill.Calls = "mill", "127.0.0.1:0", []string{"store"}
	mill.Isolation, mill.New = wattlib.OwnProcess, newMill
	return quiet(mill, wattlib.App{Name: "store", Handler: answer(document(600), "application/json")})
}

// newMill does jobs, answers with a document, and calls others again and again when it is told to.
func newMill(_ context.Context, env *wattlib.Env) (http.Handler, error) {
	mux := http.NewServeMux()
	grind := grinding()
	mux.HandleFunc("GET /grind/{turns}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(instanceHeader, strconv.Itoa(env.Instance))
		grind(w, r)
	})
	mux.Handle("GET /small", answer(document(600), "application/json"))
	mux.HandleFunc("GET /call", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.FormValue("for"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		do, end := env.Client.Do, func() {}
		if address := r.FormValue("by"); address != "" {
			do, end = overTCP(address)
		}
		defer end()
		s, err := repeatFor(r.Context(), callsTo(do, r.FormValue("to")), d)
		if err != nil {
			wattlib.WriteError(w, err)
			return
		}
		_ = json.NewEncoder(w).Encode([]float64{s.value, s.allocs}) // the caller sees it if that fails
	})
	return mux, nil
}

// grinding does a job for each request.
func grinding() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		turns, err := strconv.ParseInt(r.PathValue("turns"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		proof, err := job(turns).do(r.Context())
		if err != nil {
			return // nobody is there
		}
		_, _ = io.WriteString(w, proof) // the client sees it if that fails
	}
}

// atOnce is how many call at the same time across processes.
const atOnce = 32

// callsTo are the callers of a document.
func callsTo(s send, url string) []op {
	ops := make([]op, atOnce)
	for i := range ops {
		ops[i] = get(s, url, document(600))
	}
	return ops
}

// overTCP calls an address, whatever the URL says.
func overTCP(address string) (s send, end func()) {
	transport := newTransport(func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	})
	return (&http.Client{Transport: transport}).Do, transport.CloseIdleConnections
}
