package trunk_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/watt/internal/control"
	"github.com/org/watt/internal/leaktest"
	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/timers"
	"github.com/org/watt/internal/trunk"
)

// TestMain fails the package if a test leaves a goroutine behind.
func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

var errOver = errors.New("this test is over")

// pair returns both ends of a new connection: of a socket, where there are such pairs.
func pair(tb testing.TB) (near, far net.Conn) {
	tb.Helper()
	files := make([]*os.File, 2)
	var err error
	if files[0], files[1], err = control.Files(); errors.Is(err, errors.ErrUnsupported) {
		return net.Pipe()
	}
	conns := make([]net.Conn, 2)
	for i, f := range files {
		if err == nil {
			conns[i], err = control.ConnOf(f)
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
	return conns[0], conns[1]
}

// pipes returns both ends of a connection that may be used in a bubble, and that no system buffers for.
func pipes(testing.TB) (near, far net.Conn) { return net.Pipe() }

// network serves what a client dials, until the test ends.
type network struct {
	handle func(*incoming)
	pair   func() (near, far net.Conn)
	serves sync.WaitGroup

	mu      sync.Mutex
	servers []*trunk.Server
	conns   []net.Conn // their ends
	ends    []error    // what Serve has returned, in the order of that
}

// serve returns a client, whose callee calls handle for each call.
func serve(tb testing.TB, pair func(testing.TB) (near, far net.Conn), handle func(*incoming)) (*trunk.Client, *network) {
	tb.Helper()
	n := &network{handle: handle, pair: func() (near, far net.Conn) { return pair(tb) }}
	client := newClient(func(context.Context) (net.Conn, error) { return n.dial(), nil })
	tb.Cleanup(func() {
		client.Close()
		for _, conn := range n.conns {
			conn.Close()
		}
		n.serves.Wait()
	})
	return client, n
}

func newClient(dial func(context.Context) (net.Conn, error)) *trunk.Client {
	return &trunk.Client{Dial: dial, Buffers: new(pipe.Buffers), Timers: new(timers.Pool)}
}

// incoming is a call whose request was taken.
type incoming struct {
	*trunk.Incoming
	Request *http.Request
}

// taking returns what has handle called with each call that has a request.
func taking(handle func(*incoming)) func(*trunk.Incoming) {
	return func(c *trunk.Incoming) {
		if req := c.Request(context.Background()); req != nil {
			handle(&incoming{c, req})
		}
	}
}

func (n *network) dial() net.Conn {
	near, far := n.pair()
	server := trunk.NewServer(far, new(pipe.Buffers), taking(n.handle))
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers, n.conns = append(n.servers, server), append(n.conns, far)
	n.serves.Go(func() {
		err := server.Serve()
		n.mu.Lock()
		defer n.mu.Unlock()
		n.ends = append(n.ends, err)
	})
	return near
}

func (n *network) dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

// latest returns the server of the latest connection.
func (n *network) latest() *trunk.Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.servers[len(n.servers)-1]
}

func (n *network) ended() []error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]error(nil), n.ends...)
}

// response is an answer without a body.
func response() *http.Response {
	return &http.Response{Status: "200 OK", StatusCode: http.StatusOK, Header: make(http.Header), Body: http.NoBody}
}

// whole answers with all of content at once.
func whole(c *incoming, content string) {
	resp := response()
	resp.ContentLength = int64(len(content))
	c.Answer(resp, []byte(content), true, nil)
}

// streamed answers with what write writes, in another goroutine.
func streamed(c *incoming, write func(io.Writer) error) {
	resp := response()
	resp.ContentLength, resp.TransferEncoding = -1, []string{"chunked"}
	r, w := io.Pipe()
	resp.Body = r
	c.OnGone(func() { r.CloseWithError(io.ErrClosedPipe) })
	c.Answer(resp, nil, false, nil)
	go func() { w.CloseWithError(write(w)) }()
}

// gone returns what is closed when the caller of c has gone.
func gone(c *incoming) <-chan struct{} {
	done := make(chan struct{})
	c.OnGone(func() { close(done) })
	return done
}

func request(tb testing.TB, ctx context.Context, method, content string) *http.Request { //nolint:revive // tb first
	tb.Helper()
	var body io.Reader
	if content != "" {
		body = strings.NewReader(content)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://callee/", body)
	if err != nil {
		tb.Fatal(err)
	}
	return req
}

// get makes a plain call, and returns all of the answer.
func get(tb testing.TB, client *trunk.Client) string {
	tb.Helper()
	resp, err := client.RoundTrip(request(tb, tb.Context(), http.MethodGet, ""), time.Time{})
	return readAll(tb, resp, err)
}

// readAll reads and closes the answer's body.
func readAll(tb testing.TB, resp *http.Response, err error) string {
	tb.Helper()
	if err != nil {
		tb.Error(err)
		return ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Errorf("got error %v after %d bytes", err, len(b))
	}
	return string(b)
}

// Kinds of frames.
const (
	kindRequest = iota + 1
	kindCredit
	kindGone
	kindInform
	kindAnswer
	kindData
	kindEnd
	kindCut
	kindLeave
)

// bare is an end of a connection that speaks in frames of the test's own making.
type bare struct {
	net.Conn
	r *bufio.Reader
}

func newBare(conn net.Conn) *bare { return &bare{conn, bufio.NewReader(conn)} }

func frame(kind byte, id uint64, content string) string {
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(content))), kind)
	return string(binary.BigEndian.AppendUint64(b, id)) + content
}

// say sends frames.
func (b *bare) say(frames ...string) error {
	_, err := io.WriteString(b, strings.Join(frames, ""))
	return err
}

// hear returns the next frame.
func (b *bare) hear() (kind byte, id uint64, content string, err error) {
	head := make([]byte, 13)
	if _, err = io.ReadFull(b.r, head); err != nil {
		return 0, 0, "", err
	}
	p := make([]byte, binary.BigEndian.Uint32(head))
	_, err = io.ReadFull(b.r, p)
	return head[4], binary.BigEndian.Uint64(head[5:]), string(p), err
}

// script returns a client, whose callee is one script for each connection, in their order.
func script(tb testing.TB, pair func(testing.TB) (near, far net.Conn), scripts ...func(*bare)) *trunk.Client {
	tb.Helper()
	var running sync.WaitGroup
	client := newClient(func(context.Context) (net.Conn, error) {
		if len(scripts) == 0 {
			return nil, errOver
		}
		near, far := pair(tb)
		next := scripts[0]
		scripts = scripts[1:]
		running.Go(func() {
			defer far.Close()
			next(newBare(far))
		})
		return near, nil
	})
	tb.Cleanup(func() { client.Close(); running.Wait() })
	return client
}

// caller returns a caller in frames, of a server that calls handle for each call, and what tells how Serve has ended.
func caller(tb testing.TB, pair func(testing.TB) (near, far net.Conn), handle func(*incoming)) (*bare, <-chan error) {
	tb.Helper()
	near, far := pair(tb)
	served := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { served <- trunk.NewServer(far, new(pipe.Buffers), taking(handle)).Serve() })
	tb.Cleanup(func() { near.Close(); running.Wait() })
	return newBare(near), served
}

// number and text are how heads are written.
func number(n uint64) string { return string(binary.AppendUvarint(nil, n)) }

func text(s string) string { return number(uint64(len(s))) + s }

// plainRequest is the content of the frame of a GET.
func plainRequest() string {
	return "\x00" + number(0) + text("GET") + text("callee") + text("/") + number(0)
}

// plainAnswer is the content of the frame of an answer, whole or not.
func plainAnswer(whole bool, content string) string {
	head := "\x00"
	if whole {
		head = "\x01"
	}
	head += number(200) + number(uint64(len(content)+1)) + text("200 OK") + number(0) + number(0)
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(head)))) + head + content
}
