package protocols_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/org/watt"
)

// feed is an app that sends server-sent events.
type feed struct {
	events chan string
	gone   chan error // why a request's context has ended
}

func newFeed() *feed { return &feed{events: make(chan string), gone: make(chan error, 1)} }

// ServeHTTP sends events until the client goes away or the drain begins.
func (f *feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	for {
		if err := out.Flush(); err != nil {
			return
		}
		select {
		case event := <-f.events:
			fmt.Fprintf(w, "data: %s\n\n", event)
		case <-r.Context().Done():
			f.gone <- context.Cause(r.Context())
			return
		}
	}
}

// subscribe gets the events at url.
func subscribe(t *testing.T, client *http.Client, url string) io.ReadCloser {
	t.Helper()
	req, err := http.NewRequestWithContext(deadline(t), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("got %s", resp.Status)
	}
	return resp.Body
}

// expectEvents reads each event before the next is sent.
func expectEvents(t *testing.T, f *feed, body io.Reader) {
	t.Helper()
	in := bufio.NewReader(body)
	for i := range 5 {
		event := fmt.Sprint("event ", i)
		select {
		case f.events <- event:
		case <-deadline(t).Done():
			t.Fatal("the feed takes no event")
		}
		for _, want := range []string{"data: " + event + "\n", "\n"} {
			if got, err := in.ReadString('\n'); err != nil || got != want {
				t.Fatalf("got %q, %v, want %q", got, err, want)
			}
		}
	}
}

// outside returns a client that knows nothing of the mesh.
func outside(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestEventsOverTheMesh(t *testing.T) {
	f := newFeed()
	rt, _ := start(t, watt.App{Name: "feed", Handler: f})
	expectEvents(t, f, subscribe(t, rt.Env().Client, "http://feed.watt.local/"))
}

func TestEventsFromAPublicPort(t *testing.T) {
	f := newFeed()
	_, top := start(t, watt.App{Name: "feed", Handler: f, Listen: "127.0.0.1:0"})
	expectEvents(t, f, subscribe(t, outside(t), top.URL("feed")))
}

func TestEventsThroughAGateway(t *testing.T) {
	f := newFeed()
	_, top := start(t, gateway("feed"), watt.App{Name: "feed", Handler: f})
	body := subscribe(t, outside(t), top.URL("gateway"))
	expectEvents(t, f, body)
	_ = body.Close()
	receive(t, f.gone)
}

// TestEventsHoldNoWorker subscribes more often than there are workers.
func TestEventsHoldNoWorker(t *testing.T) {
	f := newFeed()
	rt, _ := start(t, watt.App{Name: "feed", Handler: f, Workers: 1, Queue: -1})
	for range 3 {
		body := subscribe(t, rt.Env().Client, "http://feed.watt.local/")
		defer func() {
			_ = body.Close()
			receive(t, f.gone)
		}()
	}
}

// TestEventsEndWithTheClient closes the body, which ends the handler's context.
func TestEventsEndWithTheClient(t *testing.T) {
	f := newFeed()
	rt, top := start(t, watt.App{Name: "feed", Handler: f, Listen: "127.0.0.1:0"})
	for _, body := range []io.ReadCloser{
		subscribe(t, rt.Env().Client, "http://feed.watt.local/"),
		subscribe(t, outside(t), top.URL("feed")),
	} {
		_ = body.Close()
		receive(t, f.gone)
	}
}

// TestEventsEndWithTheDrain: the client sees the end of the stream, and nothing is cut.
func TestEventsEndWithTheDrain(t *testing.T) {
	f := newFeed()
	rt, top := start(t, gateway("feed"), watt.App{Name: "feed", Handler: f})
	inside := subscribe(t, rt.Env().Client, "http://feed.watt.local/")
	public := subscribe(t, outside(t), top.URL("gateway"))
	go func() { _ = receive(t, f.gone) }() // two handlers, room for one
	shutdown(t, rt)
	for _, body := range []io.Reader{inside, public} {
		_, _ = io.ReadAll(body) // it ends
	}
}
