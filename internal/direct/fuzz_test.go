package direct_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/org/watt/internal/direct"
	"github.com/org/watt/internal/pipe"
)

// call is a request, as a few bytes say it.
type call struct {
	method, length, kind, header byte
	program                      program
}

func (c call) request(ctx context.Context) *http.Request {
	method := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete}[c.method%5]
	req, err := http.NewRequestWithContext(ctx, method, "http://callee.test/path?query=1", nil)
	if err != nil {
		panic(err)
	}
	content := text([]int{0, 1, 5, 3000, 40_000}[c.length%5])
	switch {
	case c.length%5 == 0:
	case c.kind%3 == 0:
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(content)), int64(len(content))
	case c.kind%3 == 1 || method != http.MethodPost && method != http.MethodPut:
		req.Body, req.ContentLength = track(strings.NewReader(content)), int64(len(content))
	default:
		req.Body, req.ContentLength = track(strings.NewReader(content)), -1
	}
	switch c.header % 6 {
	case 1:
		req.Header["X-Many"] = []string{"a", "", " b "}
	case 2:
		req.Header["User-Agent"] = nil
	case 3:
		req.Header.Set("User-Agent", "me")
	case 4:
		req.Header.Set("Range", "bytes=0-10")
	case 5:
		if c.asksFirst() {
			req.Header.Set("Expect", "100-continue")
		}
	}
	return req
}

// asksFirst reports whether the handler reads the body at once. Where it reads it later or not at all, a client waits
// for a while and then sends what nobody asked for, or does not, and then the server waits for it without an end.
func (c call) asksFirst() bool {
	steps := c.program.list()
	return len(steps) > 0 && steps[0][0] == readRest
}

// outcome is all that both sides see of a call.
type outcome struct {
	Status        string
	Header        http.Header
	Length        int64
	Coding        []string
	Before, After http.Header // trailers, before and after the body
	Body          string
	Failed        bool // before the answer
	Broken        bool // in it
	Traced, Steps []string
	Request       http.Header
	RequestLength int64
	RequestCoding []string
	URI, Host     string
}

// through sends the call with what connect makes of the handler.
func (c call) through(t *testing.T, connect func(*testing.T, http.HandlerFunc) (http.RoundTripper, func())) outcome {
	t.Helper()
	var out outcome
	rt, stop := connect(t, func(w http.ResponseWriter, r *http.Request) {
		out.Request, out.RequestLength, out.RequestCoding, out.URI, out.Host = r.Header.Clone(), r.ContentLength, r.TransferEncoding, r.RequestURI, r.Host
		c.program.run(w, r, func(format string, args ...any) { out.Steps = append(out.Steps, fmt.Sprintf(format, args...)) })
	})
	defer func() { stop() }()
	resp, err := rt.RoundTrip(c.request(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got100Continue: func() { out.Traced = append(out.Traced, "continue") },
		Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
			out.Traced = append(out.Traced, fmt.Sprint(status, h))
			return nil
		},
	})))
	if err != nil {
		out.Failed = true
		stop()
		stop = func() {}
		return out
	}
	out.Status, out.Header, out.Length, out.Coding, out.Before = resp.Status, resp.Header, resp.ContentLength, resp.TransferEncoding, resp.Trailer.Clone()
	body, err := io.ReadAll(resp.Body)
	out.Body, out.Broken, out.After = sum(body), err != nil, resp.Trailer
	resp.Body.Close()
	delete(out.Header, "Date")
	delete(out.Header, "Connection")
	stop()
	stop = func() {}
	return out
}

// wired is what direct must be like.
func wired(t *testing.T, handler http.HandlerFunc) (http.RoundTripper, func()) {
	t.Helper()
	l := pipe.Listen(new(pipe.Buffers), "callee:80")
	server := &http.Server{Handler: handler, ErrorLog: zap.NewStdLog(zap.NewNop())}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	transport := &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx, "caller:1", nil) },
		DisableCompression:    true,
		ExpectContinueTimeout: time.Second,
	}
	return transport, func() {
		synctest.Wait() // the handler has returned
		transport.CloseIdleConnections()
		server.Close()
		<-done
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func unwired(_ *testing.T, handler http.HandlerFunc) (http.RoundTripper, func()) {
	c := newCallee(handler)
	return roundTripper(func(req *http.Request) (*http.Response, error) { return c.roundTrip(req, time.Time{}) }), func() { <-c.returned }
}

// comparable takes away what is a matter of time on a wire: a client may hear of a connection that is closed before
// its body is sent, and not of the answer.
func (c call) comparable(out outcome) outcome {
	if c.program.has(abort) && c.length%5 != 0 {
		return outcome{Failed: out.Failed || out.Broken}
	}
	if out.Failed { // and how far the handler has come then
		return outcome{Failed: true}
	}
	return out
}

// FuzzHandlers runs what a handler can do through a server of net/http and its client, and without a wire.
func FuzzHandlers(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // no secret
	for range 1000 {
		p := make([]byte, 2*random.IntN(12))
		for i := range p {
			p[i] = byte(random.IntN(256))
		}
		f.Add(byte(random.IntN(5)), byte(random.IntN(5)), byte(random.IntN(3)), byte(random.IntN(6)), p)
	}
	f.Fuzz(func(t *testing.T, method, length, kind, header byte, p []byte) {
		c := call{method, length, kind, header, p}
		if !direct.Takes(c.request(t.Context())) {
			t.Fatal("the request needs a wire")
		}
		synctest.Test(t, func(t *testing.T) {
			got, want := c.comparable(c.through(t, unwired)), c.comparable(c.through(t, wired))
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) { // to which nil and empty are the same
				t.Errorf("%s\ngot  %+v\nwant %+v", c, got, want)
			}
		})
	})
}

func (c call) String() string {
	names := []string{"set", "add", "write", "flush", "status", "read", "readall", "inform", "trailer", "close", "abort"}
	var b strings.Builder
	req := c.request(context.Background())
	fmt.Fprintf(&b, "%s %d %v:", req.Method, req.ContentLength, req.Header)
	for _, s := range c.program.list() {
		fmt.Fprintf(&b, " %s %d", names[s[0]], s[1])
		if s[0] <= addHeader {
			n, v := field(int(s[1]))
			fmt.Fprintf(&b, "(%s=%q)", n, v)
		}
	}
	return b.String()
}
