package watttest

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/org/watt"
)

// faults are what goes wrong on the edges, by caller and callee.
type faults struct {
	mu    sync.Mutex
	edges map[[2]string]fault
}

type fault struct {
	delay time.Duration
	err   error
}

func newFaults() *faults { return &faults{edges: make(map[[2]string]fault)} }

func (f *faults) set(caller, callee string, change func(*fault)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	edge := f.edges[[2]string{caller, callee}]
	change(&edge)
	f.edges[[2]string{caller, callee}] = edge
}

func (f *faults) get(caller, callee string) fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.edges[[2]string{caller, callee}]
}

// faulty is the transport of one caller's client.
type faulty struct {
	faults *faults
	caller string
	next   http.RoundTripper
}

// RoundTrip delays or fails the call as the fault on its edge says.
func (t *faulty) RoundTrip(req *http.Request) (*http.Response, error) {
	callee, mesh := watt.AppOf(req.URL.Host)
	if !mesh {
		return t.next.RoundTrip(req)
	}
	fault := t.faults.get(t.caller, callee)
	err := wait(req.Context(), fault.delay)
	if err == nil {
		err = fault.err
	}
	if err == nil {
		return t.next.RoundTrip(req)
	}
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return nil, &watt.CallError{Caller: t.caller, App: callee, Err: err}
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
