// Package watttest runs a topology in a test: the same [watt.Runtime] that main runs, with faults on
// the edges between its apps, and a check that nothing is left behind.
//
//	func TestHomeWithoutOrders(t *testing.T) {
//		shop := watttest.Start(t, newShop())
//		shop.Fail("gateway", "orders", watt.ErrUnavailable)
//		status, body := shop.Get("http://gateway.watt.local/home/1")
//		…
//	}
//
// [Topology.Get] is for the calls that most tests make. For other methods, headers and bodies call as main does, with
// the runtime's Env, or the public door at [Topology.URL]:
//
//	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://gateway.watt.local/orders", body)
//	req.Header.Set("Authorization", "Bearer …")
//	resp, err := rt.Env().Client.Do(req)
//
// Before [Start], [watt.Runtime.Update] replaces parts: a fake is an app like any other, and needs Isolation
// InProcess, without MemoryLimit and Nice, in place of an app with processes of its own: see [Main]. It all
// works in a testing/synctest bubble too, where time is faked; apps there must not listen, nor have processes
// of their own, since sockets cannot live in a bubble: set Listen to "" by Update.
package watttest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/internal/console"
)

// label marks the goroutines of one topology: those that it starts inherit it.
const label = "watttest"

// leakPatience is how long goroutines may take to end after the shutdown.
const leakPatience = 5 * time.Second

// Topology is a runtime that runs until its test ends. Its methods are safe for concurrent use.
type Topology struct {
	tb     testing.TB
	rt     *watt.Runtime
	faults *faults
}

// Start starts rt and shuts it down when the test ends. The test fails if the start does, if something
// had to be cut at the end, or if a goroutine is left that the topology has started. It wraps
// rt.Transport, and if rt.Logger is nil sets one that writes warnings and errors to the test's log; the
// runtime must not have started.
func Start(tb testing.TB, rt *watt.Runtime) *Topology {
	tb.Helper()
	if bubbled(tb) {
		if all := unfit(rt); all != nil {
			tb.Fatalf("watttest: in a synctest bubble %s", strings.Join(all, "; "))
		}
	}
	t := &Topology{tb: tb, rt: rt, faults: newFaults()}
	if rt.Logger == nil {
		l := &lines{tb: tb}
		tb.Cleanup(l.end)
		rt.Logger = console.New(l)
	}
	wrapped := rt.Transport
	rt.Transport = func(caller string, next http.RoundTripper) http.RoundTripper {
		if wrapped != nil {
			next = wrapped(caller, next)
		}
		return &faulty{faults: t.faults, caller: caller, next: next}
	}
	id := fmt.Sprintf("%s %p", tb.Name(), t)
	var err error
	pprof.Do(tb.Context(), pprof.Labels(label, id), func(ctx context.Context) { err = rt.Start(ctx) })
	if err != nil {
		tb.Fatalf("watttest: %v", err)
	}
	tb.Cleanup(func() {
		if err := rt.Shutdown(context.Background()); err != nil {
			tb.Errorf("watttest: shutdown: %v", err)
		}
		if left := leaked(id); left != "" {
			tb.Errorf("watttest: goroutines are left after the shutdown:\n%s", left)
		}
	})
	return t
}

// bubbled reports whether tb is a test in a bubble of testing/synctest: there, Deadline must not be called, and panics.
func bubbled(tb testing.TB) (bubbled bool) {
	tb.Helper()
	if t, ok := tb.(interface{ Deadline() (time.Time, bool) }); ok {
		defer func() { bubbled = recover() != nil }()
		t.Deadline()
	}
	return false
}

// unfit returns what of rt cannot live in a bubble: whatever waits for the outside keeps its clock from going on, and the
// test would wait without an end, and without a word.
func unfit(rt *watt.Runtime) []string {
	var all []string
	if rt.Admin != nil && rt.Listen == nil {
		all = append(all, "Admin cannot listen: leave it out")
	}
	for _, s := range rt.Status() {
		if s.Listen != "" && s.URL == "" && rt.Listen == nil {
			all = append(all, fmt.Sprintf("app %q cannot listen: set its Listen to \"\" by Update", s.Name))
		}
		if s.Isolation == watt.OwnProcess {
			all = append(all, fmt.Sprintf("app %q cannot have processes of its own: set its Isolation to InProcess by Update", s.Name))
		}
	}
	return all
}

// Get calls url as main would, past every public door, and returns the answer's status and body; it does
// not follow redirects. A call that fails gives the status that [watt.WriteError] would, and the error's text.
func (t *Topology) Get(url string) (status int, body string) {
	t.tb.Helper()
	client := *t.rt.Env().Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	req, err := http.NewRequestWithContext(t.tb.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.tb.Fatalf("watttest: %v", err)
	}
	resp, err := client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		var text []byte
		if text, err = io.ReadAll(resp.Body); err == nil {
			return resp.StatusCode, string(text)
		}
	}
	recorder := httptest.NewRecorder()
	watt.WriteError(recorder, err)
	return recorder.Code, err.Error()
}

// URL returns the public URL of app, without a slash at the end. The test fails if it does not listen.
func (t *Topology) URL(app string) string {
	t.tb.Helper()
	for _, s := range t.rt.Status() {
		if s.Name != app || s.Addr == "" {
			continue
		}
		host, port, err := net.SplitHostPort(s.Addr)
		if err != nil {
			t.tb.Fatalf("watttest: address of %q: %v", app, err)
		}
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			host = "localhost"
		}
		scheme := "http"
		if s.TLS != nil {
			scheme = "https"
		}
		return scheme + "://" + net.JoinHostPort(host, port)
	}
	t.tb.Fatalf("watttest: there is no app %q that listens", app)
	return ""
}

// Delay makes every call from caller ("" for main) to callee wait for d before it starts, or until its
// context ends. 0 ends that. Connections of Env.Dial are not affected. The test fails if there can be no such call, or
// if caller lives in processes of its own, which this one cannot reach.
func (t *Topology) Delay(caller, callee string, d time.Duration) {
	t.tb.Helper()
	t.mustCall(caller, callee)
	t.faults.set(caller, callee, func(f *fault) { f.delay = d })
}

// Fail makes every call from caller ("" for main) to callee fail with err, wrapped in a
// [watt.CallError], before it starts. Nil ends that. Connections of Env.Dial are not affected. The test fails as with
// [Topology.Delay].
func (t *Topology) Fail(caller, callee string, err error) {
	t.tb.Helper()
	t.mustCall(caller, callee)
	t.faults.set(caller, callee, func(f *fault) { f.err = err })
}

// mustCall fails the test if there can be no calls from caller to callee: a fault there would prove nothing.
func (t *Topology) mustCall(caller, callee string) {
	t.tb.Helper()
	known, calls := false, caller == ""
	for _, s := range t.rt.Status() {
		switch {
		case s.Name != caller:
		case !slices.Contains(s.Calls, callee):
			t.tb.Fatalf("watttest: Calls of app %q does not name %q", caller, callee)
		case s.Isolation == watt.OwnProcess:
			t.tb.Fatalf("watttest: app %q calls from processes of its own, which faults do not reach; set Isolation to InProcess by Update", caller)
		}
		known, calls = known || s.Name == callee, calls || s.Name == caller
	}
	if !known {
		t.tb.Fatalf("watttest: there is no app %q", callee)
	}
	if !calls {
		t.tb.Fatalf("watttest: there is no app %q that could call", caller)
	}
}

// leaked returns the stacks of goroutines with the label id that do not end, or "".
func leaked(id string) string {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		left := labelled(id)
		if left == "" || time.Since(began) > leakPatience {
			return left
		}
	}
}

// labelled returns the stacks of goroutines with the label id.
func labelled(id string) string {
	var profile strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return err.Error()
	}
	want := fmt.Sprintf("%q:%q", label, id)
	var found []string
	for stack := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(stack, want) {
			found = append(found, stack)
		}
	}
	return strings.Join(found, "\n\n")
}
