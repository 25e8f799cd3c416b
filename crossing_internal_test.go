package watt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt/internal/roundtrip"
)

// leaving is an instance that ends when somebody calls it, unless it stays.
type leaving struct {
	door  *door
	stays bool
	err   error // of who comes too late
}

func (l *leaving) key() any { return l }
func (l *leaving) doubt()   {}

func (l *leaving) connect(ctx context.Context, caller string, trunk bool) (net.Conn, error) {
	switch {
	case !l.stays:
		return nil, l.err
	case trunk:
		near, far := net.Pipe()
		l.door.serveTrunk(&foreign{Conn: far, what: connection{Caller: caller}, local: address(l.door.app.name)})
		return near, nil
	}
	return l.door.connect(ctx, caller)
}

func TestACallFollowsInstancesThatEndForAsLongAsItMayWait(t *testing.T) {
	refused, unsent := &net.OpError{Op: "dial", Net: "unix", Err: errDraining}, fmt.Errorf("%w: %w", roundtrip.ErrNotSent, syscall.EPIPE)
	for name, test := range map[string]struct {
		leave int
		err   error
		want  error
		took  time.Duration
	}{
		"none":                    {0, refused, nil, 0},
		"a few":                   {2, refused, nil, 0},
		"many":                    {50, refused, nil, 480 * time.Millisecond},
		"many that take nothing":  {50, unsent, nil, 480 * time.Millisecond},
		"all of them":             {1000, refused, ErrUnavailable, time.Second},
		"all, which take nothing": {1000, unsent, syscall.EPIPE, time.Second},
	} {
		for way, alone := range map[string]bool{"together": false, "alone": true} {
			t.Run(name+", "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					rt := New(App{Name: "a", QueueTimeout: time.Second, Handler: http.NotFoundHandler()})
					if err := rt.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
					defer rt.Shutdown(context.Background())
					asked := 0
					var last target
					pick := func(_ context.Context, not target, _ time.Time) (target, error) {
						if not != last {
							t.Errorf("asked for another than %v, want %v", not, last)
						}
						asked++
						last = &leaving{rt.app("a").place.(*door), asked > test.leave, test.err}
						return last, nil
					}
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					c := &call{mesh: rt.mesh, edge: new(edge), app: rt.app("a"), ctx: ctx}
					req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://a.watt.local/", nil)
					req.Close = alone
					began := time.Now()
					resp, err := c.cross(req, pick)
					if took := time.Since(began); !errors.Is(err, test.want) || took != test.took {
						t.Errorf("got %v after %v, want %v after %v", err, took, test.want, test.took)
					}
					if err == nil {
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				})
			})
		}
	}
}

// Its wait begins when it is clear that the first has not begun it: that may be after a wait in a queue there.
func TestACallThatHasWaitedAtAnInstanceWaitsAnewForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := New(App{Name: "a", QueueTimeout: time.Second, Handler: http.NotFoundHandler()})
		c := &call{mesh: rt.mesh, edge: new(edge), app: newApp(rt, rt.configs[0].withDefaults()), ctx: t.Context()}
		req, _ := http.NewRequestWithContext(c.ctx, http.MethodPost, "http://a.watt.local/", nil)
		req.Close = true // so that it takes a connection of its own
		var left []time.Duration
		_, err := c.cross(req, func(_ context.Context, not target, by time.Time) (target, error) {
			if left = append(left, time.Until(by)); not != nil {
				return nil, errNoOther
			}
			return &refusing{after: 900 * time.Millisecond, word: refusedUnavailable}, nil
		})
		if !errors.Is(err, ErrUnavailable) || len(left) != 2 || left[0] != time.Second || left[1] != time.Second {
			t.Errorf("got %v, and could wait for %v, want a second each time", err, left)
		}
		c.cancel(context.Canceled)
	})
}

func TestACallOfAnAppThatIsAwayIsNotSentOnceMoreAfterOneHasWaitedForIt(t *testing.T) {
	for way, alone := range map[string]bool{"together": false, "alone": true} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := New(App{Name: "a", QueueTimeout: time.Second, Handler: http.NotFoundHandler()})
				c := &call{mesh: rt.mesh, edge: new(edge), app: newApp(rt, rt.configs[0].withDefaults()), ctx: t.Context()}
				req, _ := http.NewRequestWithContext(c.ctx, http.MethodPost, "http://a.watt.local/", nil)
				req.Close = alone
				asked := 0
				_, err := c.cross(req, func(context.Context, target, time.Time) (target, error) {
					asked++
					return &leaving{err: &net.OpError{Op: "dial", Net: "unix", Err: errAway}}, nil
				})
				if !errors.Is(err, errAway) || asked != 1 {
					t.Errorf("got %v from %d", err, asked)
				}
				if c.cancel != nil {
					c.cancel(context.Canceled)
				}
			})
		})
	}
}

func TestACallThatOneHasNoRoomForIsOfferedToOneMore(t *testing.T) {
	for name, full := range map[string]int{"one is full": 1, "both are": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := New(App{Name: "a", Handler: http.NotFoundHandler()})
				if err := rt.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				defer rt.Shutdown(context.Background())
				c := &call{mesh: rt.mesh, edge: new(edge), app: rt.app("a"), ctx: t.Context()}
				req, _ := http.NewRequestWithContext(c.ctx, http.MethodPost, "http://a.watt.local/", nil)
				req.Close = true // so that it takes a connection of its own
				var asked []target
				resp, err := c.cross(req, func(_ context.Context, not target, by time.Time) (target, error) {
					if not != nil && (not != asked[len(asked)-1] || !by.IsZero()) {
						t.Errorf("asked for another than %v by %v, want one at once", not, by)
					}
					var to target = &leaving{door: rt.app("a").place.(*door), stays: true}
					if len(asked) < full {
						to = &refusing{word: refusedOverloaded}
					}
					asked = append(asked, to)
					return to, nil
				})
				if err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				if got, want := errors.Is(err, ErrOverloaded), full == 2; got != want || len(asked) != 2 {
					t.Errorf("got %v from %d", err, len(asked))
				}
				for _, s := range asked {
					if r, ok := s.(*refusing); ok && r.doubts > 0 {
						t.Error("it is doubted, though it has answered")
					}
				}
				c.cancel(context.Canceled)
			})
		})
	}
}

// broken is an instance whose connections end before they answer.
type broken struct{ doubts, asked int }

func (b *broken) key() any { return b }
func (b *broken) doubt()   { b.doubts++ }

func (b *broken) connect(context.Context, string, bool) (net.Conn, error) {
	b.asked++
	here, there := net.Pipe()
	go func() {
		_, _ = there.Read(make([]byte, 4<<10))
		_ = there.Close()
	}()
	return here, nil
}

func TestAnInstanceWhoseConnectionBreaksIsDoubtedAndNotAskedAgain(t *testing.T) {
	for _, alone := range []bool{true, false} {
		rt := New(App{Name: "a", Handler: http.NotFoundHandler()})
		ctx, cancel := context.WithCancel(t.Context())
		c, b := &call{mesh: rt.mesh, edge: new(edge), app: newApp(rt, rt.configs[0].withDefaults()), ctx: ctx}, new(broken)
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://a.watt.local/", nil)
		req.Close = alone
		_, err := c.cross(req, func(context.Context, target, time.Time) (target, error) { return b, nil })
		if !errors.Is(err, io.ErrUnexpectedEOF) || b.doubts != 1 || b.asked != 1 {
			t.Errorf("alone: %t: got %v, asked %d times, %d doubts, want one", alone, err, b.asked, b.doubts)
		}
		cancel()
	}
}

func TestAnInstanceWhoseCallIsGivenUpIsNotDoubted(t *testing.T) {
	for name, r := range map[string]*refusing{
		"while it is dialled":         {dialled: time.Minute},
		"while its answer is awaited": {after: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := New(App{Name: "a", Handler: http.NotFoundHandler()})
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(io.EOF) }) // as another connection has ended
				c := &call{mesh: rt.mesh, edge: new(edge), app: newApp(rt, rt.configs[0].withDefaults()), ctx: ctx}
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://a.watt.local/", nil)
				req.Close = true // so that it takes a connection of its own
				if _, err := c.cross(req, func(context.Context, target, time.Time) (target, error) { return r, nil }); !errors.Is(err, io.EOF) || r.doubts != 0 {
					t.Errorf("got %v, %d doubts, want none", err, r.doubts)
				}
				c.cancel(context.Canceled)
				time.Sleep(r.after) // then it answers nobody
			})
		})
	}
}

// refusing is an instance that refuses each call, after a while.
type refusing struct {
	dialled time.Duration // how long that takes
	after   time.Duration
	word    string
	doubts  int
}

func (r *refusing) key() any { return r }
func (r *refusing) doubt()   { r.doubts++ }

func (r *refusing) connect(ctx context.Context, _ string, _ bool) (net.Conn, error) {
	if r.dialled > 0 {
		select {
		case <-time.After(r.dialled):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	here, there := net.Pipe()
	go func() {
		_, _ = there.Read(make([]byte, 4<<10))
		time.Sleep(r.after)
		_, _ = io.WriteString(there, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n"+
			headerRefused+": "+r.word+"\r\n\r\n")
		_ = there.Close()
	}()
	return here, nil
}

func TestACallThatFollowsInstancesUntilItsContextEndsSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := New(App{Name: "a", QueueTimeout: time.Minute, Handler: http.NotFoundHandler()})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second+tryPause/2) // in a pause
		defer cancel()
		c := &call{mesh: rt.mesh, edge: new(edge), app: newApp(rt, rt.configs[0].withDefaults()), ctx: ctx}
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://a.watt.local/", nil)
		req.Close = true // so that it takes a connection of its own
		_, err := c.cross(req, func(context.Context, target, time.Time) (target, error) {
			return &refusing{word: refusedUnavailable}, nil
		})
		failed, known := errors.AsType[*CallError](c.failure(err))
		if !known || failed.Started || !failed.Timeout() || errors.Is(failed, ErrUnavailable) {
			t.Errorf("got %+v", failed)
		}
	})
}
