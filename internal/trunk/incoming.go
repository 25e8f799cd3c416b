package trunk

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// Incoming is one request and its answer, on the callee's side.
type Incoming struct {
	// Came is when the request has come.
	Came time.Time
	// Deadline is the caller's; zero if it has none.
	Deadline time.Time
	// Informs reports whether the caller wants to hear informational answers.
	Informs bool

	server *Server
	id     uint64
	said   string // the content of the request's frame, until Request is called

	mu      sync.Mutex
	changed sync.Cond
	room    int    // what may be sent of a long body, in bytes
	over    bool   // the caller has gone
	onGone  func() // set by OnGone
}

// Request returns the request as the caller has made it, with the length of its body and the context ctx, and sets Deadline and
// Informs. It is called once, before all other methods. It returns nil if the caller has sent what is no request: that ends the
// connection.
func (c *Incoming) Request(ctx context.Context) *http.Request {
	req, left, informs, err := readRequest(ctx, c.said)
	c.said = ""
	if err != nil {
		c.server.fail(err)
		return nil
	}
	if c.Informs = informs; left > 0 {
		c.Deadline = c.Came.Add(left)
	}
	return req
}

// OnGone has f called when the caller gives the call up or has gone: at once if it has already.
func (c *Incoming) OnGone(f func()) {
	c.mu.Lock()
	c.onGone = f
	over := c.over
	c.mu.Unlock()
	if over {
		f()
	}
}

func (c *Incoming) gone() {
	c.server.remove(c)
	c.mu.Lock()
	first, onGone := !c.over, c.onGone
	c.over = true
	c.mu.Unlock()
	c.changed.Broadcast()
	if first && onGone != nil {
		onGone()
	}
}

func (c *Incoming) credit(n int) {
	c.mu.Lock()
	c.room = min(c.room+n, window)
	c.mu.Unlock()
	c.changed.Broadcast()
}

// Inform sends an informational answer.
func (c *Incoming) Inform(status int, h http.Header) {
	c.server.out.framed(func(b []byte) []byte {
		b = binary.AppendUvarint(begin(b, kindInform, c.id), uint64(status))
		return end(appendHeader(b, h), 0)
	}, c.send)
}

// Answer sends the answer. If whole, body is all of its body; otherwise that is what resp.Body gives, which another goroutine
// reads. It is closed in both cases. If err is not nil, there is no answer: [io.ErrUnexpectedEOF] means that it was cut off.
func (c *Incoming) Answer(resp *http.Response, body []byte, whole bool, err error) {
	switch {
	case err != nil:
		c.cut(err)
	case !whole:
		c.server.out.framed(func(b []byte) []byte { return appendAnswer(b, c.id, resp, false, nil) }, c.send)
		go c.copy(resp)
	default:
		c.server.out.framed(func(b []byte) []byte { return appendAnswer(b, c.id, resp, true, body) }, c.send)
		c.server.remove(c)
		_ = resp.Body.Close()
	}
}

// send sends a frame. A caller that does not read what it has asked for gets nothing more.
func (c *Incoming) send(p []byte) {
	if _, err := c.server.out.send(p); errors.Is(err, errUnread) {
		_ = c.server.nc.Close()
	}
}

// maxWhy is how much is said of an error, in bytes. It may name what a handler has made, of any length.
const maxWhy = 4 << 10

func (c *Incoming) cut(err error) {
	defer c.server.remove(c)
	b := begin(nil, kindCut, c.id)
	if err != io.ErrUnexpectedEOF { //nolint:errorlint // which says no more
		why := err.Error()
		b = append(b, why[:min(len(why), maxWhy)]...)
	}
	c.send(end(b, 0))
}

// copy sends the body of an answer, as far as the caller takes it.
func (c *Incoming) copy(resp *http.Response) {
	defer func() { _ = resp.Body.Close() }()
	size := minPart
	for {
		if !c.wait(size) {
			return // nobody takes it
		}
		n, err := c.copyPart(resp.Body, size)
		switch {
		case err == errEnded: //nolint:errorlint // ours, bare
			return // and gone is about to be called
		case err == io.EOF: //nolint:errorlint // Read returns it bare
			c.server.out.framed(func(b []byte) []byte { return end(appendHeader(begin(b, kindEnd, c.id), resp.Trailer), 0) }, c.send)
			c.server.remove(c)
			return
		case err != nil:
			c.cut(err)
			return
		case n == size:
			size = min(4*size, maxPart)
		default:
			size = minPart // for what comes bit by bit, and may be long in coming
		}
	}
}

// The parts of a body have as many bytes as their memory leaves beside the head of a frame.
const (
	minPart = 4<<10 - frameHead
	maxPart = maxData - frameHead
)

// errEnded means that the connection takes no more.
var errEnded = errors.New("the connection has ended")

// copyPart sends what there is of a body, of size bytes at most. It waits until there is some.
func (c *Incoming) copyPart(body io.Reader, size int) (int, error) {
	mem := c.server.buffers.Get(frameHead + size)
	defer c.server.buffers.Put(mem)
	frame := *mem
	n, err := body.Read(frame[frameHead : frameHead+size])
	if err == io.EOF {
		c.OnGone(func() {}) // a caller that knows the length may be content and go before it has the end
	}
	if n > 0 {
		c.spend(n)
		begin(frame[:0], kindData, c.id)
		if c.server.out.sendInTurn(end(frame[:frameHead+n], 0)) != nil {
			return 0, errEnded
		}
	}
	return n, err
}

// wait waits until so much of the body may be sent. It reports false if nobody takes it any more.
func (c *Incoming) wait(size int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.room < size && !c.over { // a caller that has read all owes less than a quarter of the window
		c.changed.Wait()
	}
	return !c.over
}

func (c *Incoming) spend(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.room -= n
}
