// Package support is the application in which customers ask and everybody may listen: what is said over a WebSocket
// comes as an event to all who have the feed open.
package support

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/coder/websocket"
	"github.com/go-chi/chi/v5"

	"github.com/org/watt"
)

const (
	maxMessage = 1 << 10 // bytes
	mostBehind = 16      // messages that a listener may be late; it misses others
)

// New returns the handler of the support app.
func New(context.Context, *watt.Env) (http.Handler, error) {
	rm := &room{listeners: make(map[chan string]bool)}
	r := chi.NewRouter()
	r.Get("/feed", rm.feed)
	r.Get("/chat", rm.chat)
	return r, nil
}

// room is all who listen.
type room struct {
	mu        sync.Mutex
	listeners map[chan string]bool
}

func (rm *room) enter() (heard chan string, leave func()) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	heard = make(chan string, mostBehind)
	rm.listeners[heard] = true
	return heard, func() {
		rm.mu.Lock()
		defer rm.mu.Unlock()
		delete(rm.listeners, heard)
	}
}

// say returns how many have heard it.
func (rm *room) say(what string) (n int) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	for heard := range rm.listeners {
		select {
		case heard <- what:
			n++
		default:
		}
	}
	return n
}

// feed streams what is said until the client leaves or the shop closes. It holds no worker: watt sees that these are
// events.
func (rm *room) feed(w http.ResponseWriter, r *http.Request) {
	heard, leave := rm.enter()
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, ": what is said in the WebSocket /support/chat comes here\n\n") // a comment: nobody need wait to see that it works
	for err := http.NewResponseController(w).Flush(); err == nil; {
		select {
		case what := <-heard:
			fmt.Fprintf(w, "data: %s\n\n", strings.NewReplacer("\r", " ", "\n", "\ndata: ").Replace(what))
			err = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// chat takes messages and answers each with how many have heard it. A page may only connect to the host that it
// is from, which the gateway has seen; the one that this app sees is its own.
func (rm *room) chat(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: []string{r.Header.Get("X-Forwarded-Host")}})
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxMessage)
	goodbye := context.AfterFunc(r.Context(), func() { _ = conn.Close(websocket.StatusGoingAway, "the shop closes") })
	defer goodbye()
	ctx := context.WithoutCancel(r.Context()) // its end would cut the connection without a word
	for {
		_, what, err := conn.Read(ctx)
		if err != nil {
			return
		}
		reply := fmt.Sprintf("%d heard it", rm.say(string(what)))
		if conn.Write(ctx, websocket.MessageText, []byte(reply)) != nil {
			return
		}
	}
}
