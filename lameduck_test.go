package watt_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/watt"
)

// accepted is a listener that remembers which clients it let in: those whose connections were still in
// the system's queue when it closed were never the runtime's.
type accepted struct {
	net.Listener
	clients sync.Map
}

func (l *accepted) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.clients.Store(conn.RemoteAddr().String(), true)
	}
	return conn, err
}

// hammer is many clients that send requests until they are told to go away and nobody lets them in.
type hammer struct {
	t        *testing.T
	listener *accepted
	warm     chan struct{} // closed when they are at it
	stopping atomic.Bool   // somebody was told to close: the doors are lame ducks
	answered atomic.Int32
	told     atomic.Int32 // to close
	untold   atomic.Int32 // requests that began after the doors were lame ducks, and were not told
}

// client connects again and again; keep says whether it uses a connection more than once.
func (h *hammer) client(keep bool) {
	for {
		conn, err := net.Dial("tcp", h.listener.Addr().String())
		if err != nil {
			return // refused: nobody is there any more
		}
		conn.SetDeadline(time.Now().Add(patience))
		h.use(conn, keep)
		conn.Close()
	}
}

func (h *hammer) use(conn net.Conn, keep bool) {
	br := bufio.NewReader(conn)
	for n := 0; ; n++ {
		stopping := h.stopping.Load()
		_, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
		var resp *http.Response
		if err == nil {
			resp, err = http.ReadResponse(br, nil)
		}
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		if err != nil {
			if _, in := h.listener.clients.Load(conn.LocalAddr().String()); in {
				h.t.Errorf("request %d of a connection (keep %t, stopping %t): %v", n, keep, stopping, err)
			}
			return
		}
		if h.answered.Add(1) == 500 {
			close(h.warm)
		}
		if resp.StatusCode != http.StatusOK {
			h.t.Errorf("got %s", resp.Status)
		}
		if resp.Close {
			h.told.Add(1)
			h.stopping.Store(true)
			return
		}
		if stopping {
			h.untold.Add(1)
		}
		if !keep {
			return
		}
	}
}

func TestWithinTheLimitNothingThatWasAcceptedGoesUnanswered(t *testing.T) {
	h := &hammer{t: t, warm: make(chan struct{})}
	front := public(calling("front", func(env *watt.Env, w http.ResponseWriter, r *http.Request) {
		resp, err := env.Client.Do(request(r.Context(), http.MethodPost, "http://back.watt.local/1ms", r.Body))
		if err != nil {
			watt.WriteError(w, err)
			return
		}
		defer resp.Body.Close()
		io.Copy(w, resp.Body)
	}, "back"))
	front.QueueTimeout = patience
	rt := watt.New(front, working("back", nil))
	rt.Listen = func(ctx context.Context, network, address string) (net.Listener, error) {
		ln, err := (&net.ListenConfig{}).Listen(ctx, network, address)
		h.listener = &accepted{Listener: ln}
		return h.listener, err
	}
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	for i := range 32 {
		clients.Go(func() { h.client(i%2 == 0) })
	}
	within(t, h.warm, "answers")
	doorsOpen := rt.Ready() == nil
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	clients.Wait()
	if !doorsOpen || rt.Ready() == nil {
		t.Error("Ready does not tell")
	}
	if h.told.Load() == 0 || h.untold.Load() > 0 {
		t.Errorf("%d answers said Connection: close, %d after the doors were lame ducks did not", h.told.Load(), h.untold.Load())
	}
	t.Logf("%d requests were answered", h.answered.Load())
}
