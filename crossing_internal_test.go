package watt

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// leaving is an instance that ends when somebody calls it, unless it stays.
type leaving struct {
	door  *door
	stays bool
}

func (l *leaving) key() any { return l }
func (l *leaving) doubt()   {}

func (l *leaving) connect(ctx context.Context, caller string) (net.Conn, error) {
	if l.stays {
		return l.door.connect(ctx, caller)
	}
	return nil, &net.OpError{Op: "dial", Net: "unix", Err: errDraining}
}

func TestACallFollowsInstancesThatEndForAsLongAsItMayWait(t *testing.T) {
	for name, test := range map[string]struct {
		leave int
		want  error
		took  time.Duration
	}{
		"none":        {0, nil, 0},
		"a few":       {2, nil, 0},
		"many":        {50, nil, 480 * time.Millisecond},
		"all of them": {1000, ErrUnavailable, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := New(App{Name: "a", QueueTimeout: time.Second, Handler: http.NotFoundHandler()})
				if err := rt.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				defer rt.Shutdown(context.Background())
				asked := 0
				pick := func(context.Context, side, time.Time) (side, error) {
					asked++
					return &leaving{rt.app("a").place.(*door), asked > test.leave}, nil
				}
				c := &call{mesh: rt.mesh, app: rt.app("a"), ctx: t.Context()}
				req, _ := http.NewRequestWithContext(c.ctx, http.MethodPost, "http://a.watt.local/", nil)
				began := time.Now()
				resp, err := c.cross(req, pick)
				if took := time.Since(began); !errors.Is(err, test.want) || took != test.took {
					t.Errorf("got %v after %v, want %v after %v", err, took, test.want, test.took)
				}
				if err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				c.cancel(context.Canceled)
			})
		})
	}
}

// broken is an instance whose connections end before they answer.
type broken struct{ doubts int }

func (b *broken) key() any { return b }
func (b *broken) doubt()   { b.doubts++ }

func (b *broken) connect(context.Context, string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		_, _ = there.Read(make([]byte, 4<<10))
		_ = there.Close()
	}()
	return here, nil
}

func TestAnInstanceWhoseConnectionBreaksIsDoubtedAndNotAskedAgain(t *testing.T) {
	rt := New(App{Name: "a", Handler: http.NotFoundHandler()})
	c, b := &call{mesh: rt.mesh, app: newApp(rt, rt.configs[0].withDefaults()), ctx: t.Context()}, new(broken)
	req, _ := http.NewRequestWithContext(c.ctx, http.MethodGet, "http://a.watt.local/", nil)
	if _, err := c.cross(req, func(context.Context, side, time.Time) (side, error) { return b, nil }); !errors.Is(err, io.ErrUnexpectedEOF) || b.doubts != 1 {
		t.Errorf("got %v, %d doubts, want one", err, b.doubts)
	}
	c.cancel(context.Canceled)
}

// refusing is an instance that drains, and says so to each call.
type refusing struct{}

func (r *refusing) key() any { return r }
func (r *refusing) doubt()   {}

func (r *refusing) connect(context.Context, string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		_, _ = there.Read(make([]byte, 4<<10))
		_, _ = io.WriteString(there, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n"+
			headerRefused+": "+refusedUnavailable+"\r\n\r\n")
		_ = there.Close()
	}()
	return here, nil
}

func TestACallThatFollowsInstancesUntilItsContextEndsSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := New(App{Name: "a", QueueTimeout: time.Minute, Handler: http.NotFoundHandler()})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second+tryPause/2) // in a pause
		defer cancel()
		c := &call{mesh: rt.mesh, app: newApp(rt, rt.configs[0].withDefaults()), ctx: ctx}
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://a.watt.local/", nil)
		_, err := c.cross(req, func(context.Context, side, time.Time) (side, error) { return new(refusing), nil })
		failed, known := errors.AsType[*CallError](c.failure(err))
		if !known || failed.Started || !failed.Timeout() || errors.Is(failed, ErrUnavailable) {
			t.Errorf("got %+v", failed)
		}
	})
}
