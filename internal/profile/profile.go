// Package profile serves the profiles of its process over HTTP, in the form that go tool pprof and go tool trace read.
// net/http/pprof does as much, and cannot be used by a library: importing it registers with the global mux.
package profile

import (
	"fmt"
	"net/http"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"time"
)

// mostSeconds bounds how long a profile may take.
const mostSeconds = 300

// Longest is how long an answer takes at most, with time to write it.
const Longest = mostSeconds*time.Second + time.Minute

// Handler serves the profile that its path names:
//
//   - "profile": where the processors' time goes, for ?seconds=30
//   - "trace": what the scheduler does, for ?seconds=1
//   - "goroutine", "heap", "allocs", "block", "mutex" and "threadcreate", as [pprof.Lookup] has them: as text with
//     ?debug=1 or more; of the heap after a collection with ?gc=1
//   - "": the names of all, as text
//
// There can be one "profile" and one "trace" at a time; a second one is answered with 409.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", index)
	mux.HandleFunc("GET /profile", func(w http.ResponseWriter, r *http.Request) {
		during(w, r, 30, func() error { return pprof.StartCPUProfile(w) }, pprof.StopCPUProfile)
	})
	mux.HandleFunc("GET /trace", func(w http.ResponseWriter, r *http.Request) {
		during(w, r, 1, func() error { return trace.Start(w) }, trace.Stop)
	})
	mux.HandleFunc("GET /{name}", lookup)
	return mux
}

func index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "profile\ntrace")
	for _, p := range pprof.Profiles() {
		fmt.Fprintln(w, p.Name())
	}
}

// during writes what is recorded while the request lasts, or its client has patience.
func during(w http.ResponseWriter, r *http.Request, seconds int, start func() error, stop func()) {
	seconds, err := number(r, "seconds", seconds)
	if err != nil || seconds < 1 || seconds > mostSeconds {
		http.Error(w, fmt.Sprintf("seconds must be 1 to %d", mostSeconds), http.StatusBadRequest)
		return
	}
	length := time.Duration(seconds) * time.Second
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(length + time.Minute)) // a server may have a shorter one
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := start(); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	defer stop()
	select {
	case <-time.After(length):
	case <-r.Context().Done():
	}
}

func lookup(w http.ResponseWriter, r *http.Request) {
	p := pprof.Lookup(r.PathValue("name"))
	if p == nil {
		http.Error(w, "there is no such profile", http.StatusNotFound)
		return
	}
	debug, err := number(r, "debug", 0)
	if err != nil || debug < 0 {
		http.Error(w, "debug must be a number", http.StatusBadRequest)
		return
	}
	if gc, err := number(r, "gc", 0); err == nil && gc > 0 && p.Name() == "heap" {
		runtime.GC()
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "application/octet-stream")
	if debug > 0 {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	_ = p.WriteTo(w, debug) // whoever asked has gone
}

// number returns what the query says.
func number(r *http.Request, name string, otherwise int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	return strconv.Atoi(text)
}
