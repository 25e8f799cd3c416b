package watt_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
)

// mortal is a Serve app whose every life is one call of live. It remembers when each began.
type mortal struct {
	live func(ctx context.Context, life int) error

	mu     sync.Mutex
	births []time.Time
}

func (m *mortal) app(change func(*watt.App)) watt.App {
	a := watt.App{Name: "mortal", Serve: func(ctx context.Context, _ *watt.Env, _ net.Listener) error {
		m.mu.Lock()
		m.births = append(m.births, time.Now())
		life := len(m.births)
		m.mu.Unlock()
		return m.live(ctx, life)
	}}
	if change != nil {
		change(&a)
	}
	return a
}

// pauses are the times between births, less how long each life took.
func (m *mortal) pauses(took time.Duration) []time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []time.Duration
	for i := 1; i < len(m.births); i++ {
		all = append(all, m.births[i].Sub(m.births[i-1])-took)
	}
	return all
}

func (m *mortal) lives() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.births)
}

func TestAServeAppThatEndsIsRestartedHoweverItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mortal{live: func(ctx context.Context, life int) error {
			switch life {
			case 1:
				return nil
			case 2:
				return errors.New("on purpose")
			case 3:
				panic("on purpose")
			}
			<-ctx.Done()
			return nil
		}}
		rt := start(t, m.app(nil))
		time.Sleep(2 * time.Second)
		s := statusOf(t, rt, "mortal")
		if m.lives() != 4 || s.State != "ready" || s.Restarts != 3 || s.PerInstance[0].Generation != 4 {
			t.Errorf("got %d lives, %s, Restarts %d, generation %d", m.lives(), s.State, s.Restarts, s.PerInstance[0].Generation)
		}
		if got := s.PerInstance[0].LastError; got != "panic in Serve: on purpose" {
			t.Errorf("got LastError %q", got)
		}
		if err := rt.Ready(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnInstanceThatEndsIsRestartedWithFullJitterBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mortal{live: func(context.Context, int) error { return errors.New("on purpose") }}
		start(t, m.app(func(a *watt.App) { a.MaxRestarts = -1 }))
		time.Sleep(3 * time.Hour)
		pauses := m.pauses(0)
		if len(pauses) < 100 {
			t.Fatalf("got %d restarts in 3 h", len(pauses))
		}
		least, most, sum := time.Hour, time.Duration(0), time.Duration(0)
		for i, p := range pauses {
			limit := min(30*time.Second, 100*time.Millisecond<<min(i, 16))
			if p <= 0 || p > limit {
				t.Errorf("pause %d is %v, want at most %v", i, p, limit)
			}
			if i >= 9 {
				least, most, sum = min(least, p), max(most, p), sum+p
			}
		}
		// Random over the whole of 0…30 s: several hundred draws, so these bounds do not fail by chance.
		mean := sum / time.Duration(len(pauses)-9)
		if least > 3*time.Second || most < 27*time.Second || mean < 11*time.Second || mean > 19*time.Second {
			t.Errorf("pauses from %v to %v, %v in the mean", least, most, mean)
		}
	})
}

func TestAStableMinuteResetsTheBackoff(t *testing.T) {
	for name, c := range map[string]struct {
		takes  time.Duration
		stable bool
	}{"61 s": {61 * time.Second, true}, "59 s": {59 * time.Second, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &mortal{live: func(ctx context.Context, _ int) error {
					select {
					case <-time.After(c.takes):
					case <-ctx.Done():
					}
					return errors.New("on purpose")
				}}
				rt := start(t, m.app(func(a *watt.App) { a.MaxRestarts = 5 }))
				time.Sleep(time.Hour)
				if c.stable {
					for _, p := range m.pauses(c.takes) {
						if p > 100*time.Millisecond {
							t.Errorf("got a pause of %v", p)
						}
					}
				}
				if s := statusOf(t, rt, "mortal"); (s.State == "failed") == c.stable || (m.lives() == 6) == c.stable {
					t.Errorf("got %s after %d lives", s.State, m.lives())
				}
			})
		})
	}
}

func TestAfterMaxRestartsAnInstanceIsFailedAndItsSiblingsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var revived atomic.Bool
		m := &mortal{live: func(ctx context.Context, _ int) error {
			if revived.Load() {
				<-ctx.Done()
				return nil
			}
			return errors.New("on purpose")
		}}
		rt := start(t, m.app(nil), working("sibling", nil))
		time.Sleep(time.Hour)
		s := statusOf(t, rt, "mortal")
		if m.lives() != 11 || s.State != "failed" || s.Restarts != 10 || s.PerInstance[0].State != "failed" {
			t.Errorf("got %d lives, %s, Restarts %d, want 11, failed, 10", m.lives(), s.State, s.Restarts)
		}
		if err := rt.Ready(); err == nil || !strings.Contains(err.Error(), `app "mortal": instance 0 has failed: on purpose`) {
			t.Errorf("got Ready %v", err)
		}
		if r := get(t.Context(), rt, "sibling.watt.local/"); r.status != http.StatusOK {
			t.Errorf("sibling: got %+v", r)
		}
		r := get(t.Context(), rt, "mortal.watt.local/")
		wantErr(t, r.err, watt.ErrUnavailable)
		wantTook(t, r.took, 0) // calls of what was given up do not wait
		wantErr(t, rt.Env().Check("mortal"), watt.ErrUnavailable)
		began := time.Now()
		_, err := rt.Env().Dial(t.Context(), "mortal")
		wantErr(t, err, watt.ErrUnavailable)
		wantTook(t, time.Since(began), 0)
		if err := rt.Restart("mortal", 0); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour) // its failures are forgotten: it may fail ten times again
		if m.lives() != 22 {
			t.Errorf("got %d lives, want 22", m.lives())
		}
		revived.Store(true)
		if err := rt.Restart("mortal", 0); err != nil || rt.Ready() != nil {
			t.Errorf("got %v, Ready %v", err, rt.Ready())
		}
		wantErr(t, rt.Env().Check("mortal"), nil)
	})
}

func TestCheckRefusesWhatWouldWaitForAnAppThatCannotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		rt := start(t, watt.App{Name: "a", MaxRestarts: -1, New: func(context.Context, *watt.Env) (http.Handler, error) {
			if broken.Load() {
				return nil, errors.New("on purpose")
			}
			time.Sleep(time.Second)
			return http.NotFoundHandler(), nil
		}})
		again := func() { _ = rt.Restart("a", 0) }
		go again()
		synctest.Wait()
		wantErr(t, rt.Env().Check("a"), nil) // it only restarts
		time.Sleep(time.Second)
		broken.Store(true)
		again()
		synctest.Wait()
		for range 20 {
			err := rt.Env().Check("a")
			wantErr(t, err, watt.ErrUnavailable)
			var call *watt.CallError
			if !errors.As(err, &call) || call.RetryAfter < time.Second || call.RetryAfter > 45*time.Second {
				t.Errorf("got %#v, want RetryAfter between 1 s and 45 s", call)
			}
			time.Sleep(time.Second)
		}
		broken.Store(false)
		time.Sleep(time.Minute)
		wantErr(t, rt.Env().Check("a"), nil)
	})
}

func TestCheckRefusesWhatWouldWaitForAnAppWhoseNextStartIsFarAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mortal{live: func(context.Context, int) error { return errors.New("on purpose") }}
		rt := start(t, m.app(func(a *watt.App) { a.QueueTimeout = 100 * time.Millisecond }))
		synctest.Wait()
		wantErr(t, rt.Env().Check("mortal"), nil) // the first pause is 100 ms at most
		refused := 0
		for range 60 {
			time.Sleep(time.Second)
			if errors.Is(rt.Env().Check("mortal"), watt.ErrUnavailable) {
				refused++
			}
		}
		if refused < 30 {
			t.Errorf("got %d of 60 refused", refused)
		}
	})
}

func TestRunReturnsACriticalAppsErrorAfterTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		onPurpose := errors.New("on purpose")
		m := &mortal{live: func(context.Context, int) error { return onPurpose }}
		rt := watt.New(m.app(func(a *watt.App) { a.Critical, a.MaxRestarts = true, 1 }), working("sibling", nil))
		ended := make(chan error, 1)
		go func() { ended <- rt.Run(t.Context()) }()
		synctest.Wait()
		inFlight := going(t.Context(), rt, "sibling.watt.local/5s")
		err := <-ended
		wantErr(t, err, onPurpose)
		if err == nil || !strings.Contains(err.Error(), `"mortal"`) {
			t.Errorf("got %v", err)
		}
		if r := <-inFlight; r.status != http.StatusOK || r.took != 5*time.Second {
			t.Errorf("what was in flight: got %+v", r)
		}
	})
}

func TestOneInstanceThatEndsLeavesTheOthersToServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := &mortal{live: func(ctx context.Context, life int) error {
			if life == 1 {
				<-time.After(time.Second)
				return errors.New("on purpose")
			}
			<-ctx.Done() // it is never ready
			return nil
		}}
		serve := first.app(nil).Serve
		rt := start(t, watt.App{Name: "a", Instances: 2, Serve: func(ctx context.Context, env *watt.Env, ln net.Listener) error {
			if env.Instance == 1 {
				return answering(ctx, env, ln)
			}
			if first.lives() == 0 {
				go ln.Accept() // ends with the listener
			}
			return serve(ctx, env, ln)
		}}, working("b", func(b *watt.App) { b.Calls = []string{"a"} }))
		time.Sleep(2 * time.Second)
		for range 10 {
			time.Sleep(time.Second)
			if s := statusOf(t, rt, "a"); s.State != "ready" || s.PerInstance[0].State != "starting" || rt.Ready() != nil {
				t.Errorf("got %s, instance 0 %s, Ready %v", s.State, s.PerInstance[0].State, rt.Ready())
			}
			if r := get(t.Context(), rt, "a.watt.local/"); r.status != http.StatusOK || r.took != 0 {
				t.Errorf("got %+v", r)
			}
		}
	})
}

func TestRequestsWaitWhileAnInstanceRestartsAsLongAsTheQueueAllows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mortal{}
		app := m.app(func(a *watt.App) {
			a.QueueTimeout = 3 * time.Second
			a.Serve = func(ctx context.Context, env *watt.Env, ln net.Listener) error {
				m.mu.Lock()
				m.births = append(m.births, time.Now())
				life := len(m.births)
				m.mu.Unlock()
				if life == 2 {
					time.Sleep(2 * time.Second) // it starts slowly
				}
				if life == 3 {
					time.Sleep(time.Minute) // and not in time
				}
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(10*time.Second, cancel)
				return answering(ctx, env, ln)
			}
		})
		rt := watt.New(app, working("caller", func(b *watt.App) { b.Calls = []string{"mortal"} }))
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Second + 100*time.Millisecond)
		r := get(t.Context(), rt, "mortal.watt.local/") // life 2 begins within 100 ms, and is ready 2 s later
		if r.status != http.StatusOK || r.took < 1900*time.Millisecond || r.took > 2100*time.Millisecond {
			t.Errorf("got %+v", r)
		}
		time.Sleep(12 * time.Second)
		if s := statusOf(t, rt, "mortal"); s.State != "starting" {
			t.Fatalf("got %s", s.State)
		}
		dialled := make(chan error, 1)
		go func() {
			_, err := rt.Env().Dial(t.Context(), "mortal")
			dialled <- err
		}()
		r = get(t.Context(), rt, "mortal.watt.local/")
		wantErr(t, r.err, watt.ErrUnavailable)
		wantTook(t, r.took, 3*time.Second)
		wantErr(t, <-dialled, watt.ErrUnavailable)
		err := rt.Shutdown(t.Context()) // a start that does not end is abandoned, and reported
		if err == nil || !strings.Contains(err.Error(), "abandoned") || statusOf(t, rt, "mortal").Abandoned != 1 {
			t.Errorf("got %v, Abandoned %d", err, statusOf(t, rt, "mortal").Abandoned)
		}
		time.Sleep(time.Hour) // for the sleeper
	})
}

func TestAServeAppThatIgnoresTheEndOfItsContextIsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		rt := watt.New(watt.App{Name: "a", DrainTimeout: 4 * time.Second, Serve: func(context.Context, *watt.Env, net.Listener) error {
			<-release
			return nil
		}})
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err := rt.Shutdown(t.Context())
		if err == nil || !strings.Contains(err.Error(), `app "a", instance 0: `) || !strings.Contains(err.Error(), "abandoned") {
			t.Errorf("got %v", err)
		}
		wantTook(t, time.Since(began), 5*time.Second) // DrainTimeout, and a second for code that has been told
		if s := statusOf(t, rt, "a"); s.Abandoned != 1 {
			t.Errorf("got Abandoned %d", s.Abandoned)
		}
		close(release)
	})
}

func TestAnAbandonedHandlerLetsItsCallerGoAndHoldsUpNoLaterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		rt := watt.New(watt.App{Name: "a", DrainTimeout: 4 * time.Second, Timeout: -1, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/stuck" {
				<-release
			}
		})})
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		stuck := going(t.Context(), rt, "a.watt.local/stuck")
		synctest.Wait()
		for i, want := range []time.Duration{5 * time.Second, 0, 0} { // DrainTimeout, and a second for code that has been told
			began := time.Now()
			if err := rt.Restart("a", 0); err != nil {
				t.Errorf("restart %d: %v", i, err)
			}
			wantTook(t, time.Since(began), want)
		}
		wantErr(t, (<-stuck).err, watt.ErrInstanceDied)
		if s := statusOf(t, rt, "a"); s.Abandoned != 1 || s.Busy != 1 || s.PerInstance[0].Generation != 4 {
			t.Errorf("got Abandoned %d, Busy %d, generation %d, want 1, 1 and 4", s.Abandoned, s.Busy, s.PerInstance[0].Generation)
		}
		close(release)
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestBeingBusyIsNoReasonToRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, watt.App{Name: "a", Workers: 1, Timeout: -1, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(24 * time.Hour)
			io.WriteString(w, "at last")
		})})
		if r := get(t.Context(), rt, "a.watt.local/"); r.body != "at last" {
			t.Errorf("got %+v", r)
		}
		if s := statusOf(t, rt, "a"); s.Restarts != 0 || s.PerInstance[0].Generation != 1 {
			t.Errorf("got Restarts %d, generation %d", s.Restarts, s.PerInstance[0].Generation)
		}
	})
}

func TestARuntimeThatWasToldToStopSaysSo(t *testing.T) {
	rt := watt.New(working("a", nil))
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, start := range map[string]func(context.Context) error{"Run": rt.Run, "Start": rt.Start} {
		if err := start(t.Context()); err == nil || err.Error() != "watt: the runtime was told to stop: it starts only once; make another one with New" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
