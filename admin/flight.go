package admin

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime/trace"
	"sync"
	"time"
)

const (
	flightAge  = 10 * time.Second // that is kept at least
	flightMost = 16 << 20         // bytes, about
	stalled    = 5 * time.Second  // that a queue has not been empty
	stallEvery = 10 * time.Minute // a stall is written down, at most
)

// flight is the flight recorder of this process. There can be one.
type flight struct {
	dir string // where stalls are written; "" for nowhere

	mu       sync.Mutex
	recorder *trace.FlightRecorder // nil if it does not run
	since    map[string]time.Time  // by app, that its queue is not empty
	written  time.Time
}

func (f *flight) start() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	recorder := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: flightAge, MaxBytes: flightMost})
	if err := recorder.Start(); err != nil {
		return err
	}
	f.recorder = recorder
	return nil
}

func (f *flight) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.recorder != nil {
		f.recorder.Stop()
		f.recorder = nil
	}
}

// ServeHTTP dumps what there is.
func (f *flight) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	dump := f.dump()
	if dump == nil {
		plain(w, http.StatusNotFound, "the flight recorder does not run: set admin.Options.FlightRecorder, or see the log")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="watt.trace"`)
	_, _ = w.Write(dump) // who asked has gone
}

// dump returns what is recorded, or nil if nothing is.
func (f *flight) dump() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out bytes.Buffer
	if f.recorder == nil {
		return nil
	}
	if _, err := f.recorder.WriteTo(&out); err != nil {
		return nil
	}
	return out.Bytes()
}

// note writes what led to it down, once the queue of an app has not been empty for a while. Overloaded are those that
// have such queues now. It returns the file, "" if there is none.
func (f *flight) note(now time.Time, overloaded []string) (file string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.stalledLocked(now, overloaded) || f.recorder == nil || f.dir == "" || !f.written.IsZero() && now.Sub(f.written) < stallEvery {
		return "", nil
	}
	f.written = now
	file = filepath.Join(f.dir, fmt.Sprintf("watt-%s.trace", now.UTC().Format("20060102T150405Z")))
	out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.recorder.WriteTo(out)
	if closing := out.Close(); err == nil {
		err = closing
	}
	return file, err
}

// stalledLocked reports whether one of the queues has not been empty for a while.
func (f *flight) stalledLocked(now time.Time, overloaded []string) bool {
	before, first := f.since, now
	f.since = make(map[string]time.Time)
	for _, app := range overloaded {
		since, ok := before[app]
		if !ok {
			since = now
		}
		f.since[app] = since
		if since.Before(first) {
			first = since
		}
	}
	return now.Sub(first) >= stalled
}
