package protocols_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/org/watt"
)

// echo sends every message back, until the client closes, says bye, or the drain begins.
func echo(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = conn.CloseNow() }()
	goodbye := context.AfterFunc(r.Context(), func() { _ = conn.Close(websocket.StatusGoingAway, "draining") })
	defer goodbye()
	ctx := context.WithoutCancel(r.Context()) // its end would cut the connection without a word
	for {
		kind, message, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if string(message) == "bye" {
			_ = conn.Close(websocket.StatusNormalClosure, "bye")
			return
		}
		if err := conn.Write(ctx, kind, message); err != nil {
			return
		}
	}
}

func chat() watt.App { return watt.App{Name: "chat", Handler: http.HandlerFunc(echo)} }

// dialChat connects over the mesh.
func dialChat(ctx context.Context, env *watt.Env) (*websocket.Conn, error) {
	conn, _, err := websocket.Dial(ctx, "ws://chat.watt.local/", &websocket.DialOptions{HTTPClient: env.Client})
	return conn, err
}

// join connects for the time of the test.
func join(t *testing.T, rt *watt.Runtime) *websocket.Conn {
	t.Helper()
	conn, err := dialChat(deadline(t), rt.Env())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// say sends text and wants it back.
func say(t *testing.T, conn *websocket.Conn, text string) {
	t.Helper()
	if err := conn.Write(deadline(t), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.Read(deadline(t)); err != nil || string(got) != text {
		t.Fatalf("got %d bytes %.20q, %v, want %d bytes %.20q", len(got), got, err, len(text), text)
	}
}

func TestWebSocketEcho(t *testing.T) {
	rt, _ := start(t, chat())
	conn := join(t, rt)
	say(t, conn, "hello")
	say(t, conn, "")
	say(t, conn, strings.Repeat("long ", 6000))
	if err := conn.Ping(conn.CloseRead(deadline(t))); err != nil {
		t.Error(err)
	}
}

// TestWebSocketHoldsNoWorker opens more connections than there are workers, and as many as MaxConns.
func TestWebSocketHoldsNoWorker(t *testing.T) {
	app := chat()
	app.Workers, app.Queue, app.MaxConns = 1, -1, 3
	rt, _ := start(t, app)
	for range 3 {
		say(t, join(t, rt), "hello")
	}
	if conn, err := dialChat(deadline(t), rt.Env()); err == nil {
		_ = conn.CloseNow()
		t.Error("a fourth connection was accepted")
	}
}

func TestWebSocketClosedByClient(t *testing.T) {
	seen := make(chan error, 1)
	app := watt.App{Name: "chat", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err == nil {
			_, _, err = conn.Read(r.Context())
		}
		seen <- err
	})}
	rt, _ := start(t, app)
	if err := join(t, rt).Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Error(err)
	}
	if err := receive(t, seen); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("the server got %v, want a normal closure", err)
	}
}

func TestWebSocketClosedByServer(t *testing.T) {
	rt, _ := start(t, chat())
	conn := join(t, rt)
	if err := conn.Write(deadline(t), websocket.MessageText, []byte("bye")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(deadline(t)); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("got %v, want a normal closure", err)
	}
}

// TestWebSocketDrain: the drain closes connections, and the client is told why.
func TestWebSocketDrain(t *testing.T) {
	rt, _ := start(t, chat())
	conn := join(t, rt)
	say(t, conn, "hello")
	closed := make(chan error, 1)
	go func() {
		_, _, err := conn.Read(deadline(t))
		closed <- err
	}()
	shutdown(t, rt)
	if err := receive(t, closed); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("got %v, want going away", err)
	}
}

// TestWebSocketThroughAGateway: the upgrade passes a public port and a proxy.
func TestWebSocketThroughAGateway(t *testing.T) {
	rt, top := start(t, gateway("chat"), chat())
	conn, _, err := websocket.Dial(deadline(t), top.URL("gateway"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	say(t, conn, "hello")
	closed := make(chan error, 1)
	go func() {
		_, _, err := conn.Read(deadline(t))
		closed <- err
	}()
	shutdown(t, rt)
	if err := receive(t, closed); err == nil {
		t.Error("the connection has outlived the runtime")
	}
}
