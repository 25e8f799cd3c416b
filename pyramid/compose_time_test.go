package pyramid_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

// untilEnd is an app whose requests wait until their context has ended, and then send why.
func untilEnd(name string, ended chan<- error) watt.App {
	return handling(name, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		ended <- r.Context().Err()
	})
}

func TestARequiredPartThatFailsEndsTheOthersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 2)
		h := newHome(t, pyramid.Parts{
			"a": {App: "slow", Path: "/", Optional: true},
			"b": {Func: func(r *http.Request) (any, error) {
				<-r.Context().Done()
				ended <- r.Context().Err()
				return nil, r.Context().Err()
			}},
			"c": {App: "failing", Path: "/"},
			"d": {Func: func(*http.Request) (any, error) { time.Sleep(5 * time.Second); return 1, nil }},
		}, untilEnd("slow", ended), handling("failing", func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Second)
			w.WriteHeader(http.StatusInternalServerError)
		}))
		began := time.Now()
		wantProblem(t, h.get(t), 502, "failing")
		for range 2 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v, want context.Canceled", err)
			}
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v, want 1s", took)
		}
	})
}

// A middleware may go on after the answer, and so does the request's context then.
func TestPartsEndWithTheAnswerAndNotWithTheRequest(t *testing.T) {
	var ended chan error
	entry := watt.App{Name: "home", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		compose := pyramid.Compose(env, pyramid.Parts{"a": {App: "slow", Path: "/"}, "b": {App: "failing", Path: "/"}})
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			compose(w, r)
			select {
			case err := <-ended:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("got error %v, want context.Canceled", err)
				}
			case <-time.After(time.Second):
				t.Error("a part went on")
			}
		}), nil
	}}
	synctest.Test(t, func(t *testing.T) {
		ended = make(chan error, 1)
		h := startHome(t, entry, untilEnd("slow", ended), handling("failing", func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Second) // the other has begun
			w.WriteHeader(http.StatusInternalServerError)
		}))
		wantProblem(t, h.get(t), 502, "failing")
	})
}

func TestAPartThatIgnoresItsContextDoesNotHoldTheAnswerBack(t *testing.T) {
	deaf := func(*http.Request) (any, error) { time.Sleep(6 * time.Second); return 1, nil }
	for name, c := range map[string]struct {
		part    pyramid.Part
		timeout time.Duration // of the entry
		want    time.Duration
		partial string
		body    string
	}{
		"all time is up":        {pyramid.Part{Func: deaf, Optional: true}, 2 * time.Second, 1900 * time.Millisecond, "p;reason=timeout", `{"q":1}`},
		"its own time is up":    {pyramid.Part{Func: deaf, Default: 0, Timeout: time.Second}, 2 * time.Second, time.Second, "p;reason=timeout", `{"p":0,"q":1}`},
		"its time is not so up": {pyramid.Part{Func: deaf, Optional: true, Timeout: time.Hour}, 2 * time.Second, 1900 * time.Millisecond, "p;reason=timeout", `{"q":1}`},
		"it is in time":         {pyramid.Part{Func: deaf}, 10 * time.Second, 6 * time.Second, "", `{"p":1,"q":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				entry := homeApp(pyramid.Parts{"p": c.part, "q": {App: "quick", Path: "/"}})
				entry.Timeout = c.timeout
				h := startHome(t, entry, telling("quick", "1"))
				began := time.Now()
				wantAnswer(t, h.get(t), c.partial, c.body)
				if took := time.Since(began); took != c.want {
					t.Errorf("it took %v, want %v", took, c.want)
				}
			})
		})
	}
}

func TestARequiredPartThatIgnoresItsContextIsATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, pyramid.Parts{
			"p": {Timeout: time.Second, Func: func(*http.Request) (any, error) { time.Sleep(3 * time.Second); return 1, nil }},
		})
		began := time.Now()
		wantProblem(t, h.get(t), 504, "")
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v, want 1s", took)
		}
	})
}

func TestATimeoutNamesTheAppWhoseCallGoesOn(t *testing.T) {
	for _, part := range []pyramid.Part{{}, {Timeout: time.Second}, {Coalesce: true}, {Timeout: time.Second, Coalesce: true}} {
		synctest.Test(t, func(t *testing.T) {
			part.App, part.Path = "slow", "/"
			entry := homeApp(pyramid.Parts{"a": part})
			entry.Calls = []string{"slow"}
			h := &home{rt: watt.New(entry, untilEnd("slow", make(chan error, 100)))}
			h.rt.Transport = func(caller string, next http.RoundTripper) http.RoundTripper {
				if caller == "" {
					return next
				}
				return tardy{next}
			}
			h.Topology = watttest.Start(t, h.rt)
			for range 100 { // with Coalesce, two tell that time is up
				wantProblem(t, h.get(t), 504, "slow")
			}
		})
	}
}

func TestTheMarginIsATwentiethWithinLimits(t *testing.T) {
	for name, c := range map[string]struct{ timeout, deadline, want time.Duration }{
		"a twentieth of Timeout":      {timeout: 2 * time.Second, want: 1900 * time.Millisecond},
		"a twentieth of the deadline": {timeout: time.Minute, deadline: 2 * time.Second, want: 1900 * time.Millisecond},
		"at most 250 ms":              {timeout: time.Minute, want: time.Minute - 250*time.Millisecond},
		"at least 5 ms":               {timeout: 20 * time.Millisecond, want: 15 * time.Millisecond},
		"at most half":                {timeout: 5 * time.Millisecond, want: 2500 * time.Microsecond},
		"without Timeout":             {timeout: -1, deadline: time.Second, want: 950 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan error, 1)
				entry := homeApp(pyramid.Parts{"a": {App: "slow", Path: "/", Optional: true}})
				entry.Timeout = c.timeout
				slow := untilEnd("slow", ended)
				slow.Timeout = -1
				h := startHome(t, entry, slow)
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				began := time.Now()
				wantAnswer(t, h.ask(ctx, http.MethodGet, "/home/7"), "a;reason=timeout", `{}`)
				if took := time.Since(began); took != c.want {
					t.Errorf("it took %v, want %v", took, c.want)
				}
				if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got error %v, want the deadline's", err)
				}
			})
		})
	}
}

func TestNothingLimitsAnAnswerThatHasNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entry := homeApp(pyramid.Parts{"a": {Func: func(*http.Request) (any, error) { time.Sleep(time.Hour); return 1, nil }}})
		entry.Timeout = -1
		wantAnswer(t, startHome(t, entry).get(t), "", `{"a":1}`)
	})
}

func TestAClientThatLeavesEndsThePartsAndIsNotLogged(t *testing.T) {
	ended, entered := make(chan error, 2), make(chan struct{}, 2)
	wait := func(r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
		ended <- r.Context().Err()
	}
	entry := homeApp(pyramid.Parts{
		"a": {App: "slow", Path: "/", Optional: true},
		"b": {Func: func(r *http.Request) (any, error) { wait(r); return nil, r.Context().Err() }},
	})
	entry.Listen = "127.0.0.1:0"
	h := startHome(t, entry, handling("slow", func(_ http.ResponseWriter, r *http.Request) { wait(r) }))
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.URL("home"), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "GET /home/7 HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	<-entered
	conn.Close()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want context.Canceled", err)
		}
	}
	if lines := h.logs.FilterMessage("a part failed").All(); len(lines) != 0 {
		t.Errorf("got %v in the log", lines)
	}
}
