package watt_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
)

// callerOf returns what is known of the calls of callee that caller makes.
func callerOf(t *testing.T, rt *watt.Runtime, callee, caller string) watt.CallerStatus {
	t.Helper()
	for _, c := range statusOf(t, rt, callee).PerCaller {
		if c.Caller == caller {
			return c
		}
	}
	t.Fatalf("%s has no caller %q", callee, caller)
	return watt.CallerStatus{}
}

// silent answers without a word.
func silent(http.ResponseWriter, *http.Request) {}

// wantTimes fails the test unless got has so many durations, with that sum.
func wantTimes(t *testing.T, what string, got watt.Times, n uint64, sum time.Duration) {
	t.Helper()
	if got.Count != n || got.Sum != sum {
		t.Errorf("%s: got %d in %v, want %d in %v", what, got.Count, got.Sum, n, sum)
	}
}

func TestRequestsAreCountedByMethodAndStatusWithTheirTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, watt.App{Name: "a", Workers: 1, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(200 * time.Millisecond)
			w.WriteHeader(map[string]int{http.MethodPost: 201, "BREW": 418}[r.Method])
			io.WriteString(w, "done")
		})}, app("unused", silent))
		var all []<-chan struct{}
		for i, method := range []string{http.MethodPost, http.MethodPost, "BREW"} {
			done := make(chan struct{})
			all = append(all, done)
			go func() {
				defer close(done)
				time.Sleep(time.Duration(i) * time.Millisecond)
				resp, err := rt.Env().Client.Do(request(t.Context(), method, "http://a.watt.local/", strings.NewReader("twelve bytes")))
				read(t, resp, err)
			}()
		}
		for _, done := range all {
			<-done
		}
		s := statusOf(t, rt, "a").PerInstance[0]
		want := map[string]map[string]uint64{"POST": {"2xx": 2}, "other": {"4xx": 1}}
		if !reflect.DeepEqual(s.Requests, want) || s.SentBytes != 12 {
			t.Errorf("got %v and %d bytes, want %v and 12", s.Requests, s.SentBytes, want)
		}
		// The second waits for the first, the third for both.
		wantTimes(t, "Duration", s.Duration, 3, 200*time.Millisecond+399*time.Millisecond+598*time.Millisecond)
		wantTimes(t, "QueueWait", s.QueueWait, 3, 199*time.Millisecond+398*time.Millisecond)
		if s.Duration.P50 < 399*time.Millisecond || s.Duration.P50 > 480*time.Millisecond || s.Duration.P99 < 598*time.Millisecond {
			t.Errorf("got a median of %v and a 99th percentile of %v", s.Duration.P50, s.Duration.P99)
		}
		c := callerOf(t, rt, "a", "")
		if c.SentBytes != 36 || c.ReceivedBytes != 12 || len(c.Errors) != 0 {
			t.Errorf("got %d bytes sent and %d received, errors %v; want 36, 12 and none", c.SentBytes, c.ReceivedBytes, c.Errors)
		}
		wantTimes(t, "calls", c.Duration, 3, s.Duration.Sum)
		wantTimes(t, "calls of another", callerOf(t, rt, "unused", "").Duration, 0, 0)
	})
}

func TestOfABodyThatIsSentOnlyWhatIsReadIsCounted(t *testing.T) {
	const text = "twelve bytes"
	memory := func() io.Reader { return strings.NewReader(text) }
	stream := func() io.Reader { return io.MultiReader(memory()) }
	for name, sent := range map[string]struct {
		body   func() io.Reader
		length int64
	}{
		"in memory":                       {memory, 12},
		"of unknown length":               {stream, -1},
		"of a length that is only a word": {stream, math.MaxInt64},
	} {
		for way, header := range map[string]string{"without a wire": "X-Any", "over a wire": "Pragma"} {
			t.Run(name+" "+way, func(t *testing.T) {
				rt := start(t, app("a", func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
				req := request(t.Context(), http.MethodPost, "http://a.watt.local/", sent.body())
				req.ContentLength = sent.length
				req.Header.Set(header, "any")
				if resp, err := rt.Env().Client.Do(req); err == nil {
					resp.Body.Close()
				}
				if got := callerOf(t, rt, "a", "").SentBytes; got != uint64(len(text)) {
					t.Errorf("got %d bytes sent, want %d", got, len(text))
				}
			})
		}
	}
}

func TestTheStatusThatCountsIsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, app("a", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusTeapot)
		}))
		get(t.Context(), rt, "a.watt.local/")
		synctest.Wait()
		wantAnswers(t, rt, http.MethodGet, map[string]uint64{"4xx": 1})
	})
}

func TestCallsAreCountedByCallerAndKindOfError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t,
			calling("front", func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
				resp, err := env.Get(r.Context(), "http://back.watt.local"+r.URL.Path)
				if err != nil {
					watt.WriteError(w, err)
					return
				}
				defer resp.Body.Close()
				io.Copy(w, resp.Body)
			}, "back"),
			watt.App{Name: "back", Workers: 1, Queue: -1, Timeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/panic":
					io.WriteString(w, "half")
					http.NewResponseController(w).Flush()
					panic("on purpose")
				case "/slow":
					<-r.Context().Done()
				case "/teapot":
					w.WriteHeader(http.StatusTeapot)
				}
			})},
		)
		get(t.Context(), rt, "front.watt.local/teapot") // an answer
		slow := going(t.Context(), rt, "front.watt.local/slow")
		time.Sleep(time.Second)
		get(t.Context(), rt, "front.watt.local/") // there is no worker
		<-slow
		synctest.Wait()
		get(t.Context(), rt, "front.watt.local/panic")
		c := callerOf(t, rt, "back", "front")
		want := map[string]uint64{"timeout": 1, "overloaded": 1, "died": 1}
		if !reflect.DeepEqual(c.Errors, want) || c.ReceivedBytes != 4 {
			t.Errorf("got errors %v and %d bytes, want %v and 4", c.Errors, c.ReceivedBytes, want)
		}
		wantTimes(t, "calls", c.Duration, 4, 5*time.Second)
		wantTimes(t, "main's calls", callerOf(t, rt, "back", "").Duration, 0, 0)
		s := statusOf(t, rt, "back").PerInstance[0]
		if s.Requests["GET"]["5xx"] != 2 || s.Requests["GET"]["4xx"] != 1 || s.Panics != 1 || len(s.Requests["GET"]) != 2 {
			t.Errorf("got %v and %d panics, want two 5xx, one of them cut off by the panic", s.Requests, s.Panics)
		}
	})
}

func TestWhatOutlivesItsWorkerIsCountedWithoutItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, app("a", func(w http.ResponseWriter, r *http.Request) {
			watt.LongLived(r.Context())
			time.Sleep(20 * time.Second)
		}))
		going := going(t.Context(), rt, "a.watt.local/")
		time.Sleep(time.Second)
		if s := statusOf(t, rt, "a"); s.Streams != 1 || s.Upgraded != 0 {
			t.Errorf("got %d streams and %d upgraded connections, want one and none", s.Streams, s.Upgraded)
		}
		<-going
		s := statusOf(t, rt, "a")
		wantTimes(t, "Duration", s.PerInstance[0].Duration, 0, 0)
		if got := s.PerInstance[0].Requests["GET"]["2xx"]; got != 1 || s.Streams != 0 {
			t.Errorf("got %d requests and %d streams, want one request", got, s.Streams)
		}
	})
}

func TestRestartsAreCountedByCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := make(chan error)
		rt := start(t, watt.App{Name: "a", Serve: func(ctx context.Context, _ *watt.Env, _ net.Listener) error {
			select {
			case err := <-fail:
				return err
			case <-ctx.Done():
				return nil
			}
		}})
		fail <- errors.New("on purpose")
		time.Sleep(time.Minute)
		if err := rt.Restart("a", 0); err != nil {
			t.Fatal(err)
		}
		got := statusOf(t, rt, "a").PerInstance[0].Restarts
		if want := map[string]uint64{"ended": 1, "asked": 1}; !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestRestartsStayCountedWhenAnInstanceGoesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := start(t, watt.App{Name: "a", Instances: 2, Handler: http.NotFoundHandler()})
		if err := rt.Restart("a", 1); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 2} {
			if err := rt.Update("a", func(a *watt.App) { a.Instances = n }); err != nil {
				t.Fatal(err)
			}
		}
		if n := statusOf(t, rt, "a").PerInstance[1].Restarts["asked"]; n != 1 {
			t.Errorf("got %d, want 1", n)
		}
	})
}

func TestPublicConnectionsAreCounted(t *testing.T) {
	rt := start(t, public(app("a", silent)))
	addr := statusOf(t, rt, "a").Addr
	for range 3 {
		dialTCP(t, addr)
	}
	soon(t, "three connections", func() bool {
		s := statusOf(t, rt, "a")
		return len(s.PerListener) == 1 && s.PerListener[0].Accepted == 3 && s.PublicConns == 3 && s.PerListener[0].Chosen
	})
}
