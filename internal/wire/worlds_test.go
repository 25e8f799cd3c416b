package wire_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/org/watt/internal/direct"
	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/wire"
)

// scenario is one exchange that must look the same in all worlds.
type scenario struct {
	name    string
	handler http.HandlerFunc
	request func() *http.Request
	client  bool                                  // send it with an http.Client
	blind   bool                                  // nobody looks at informational answers
	dialog  func(io.ReadWriteCloser) string       // after 101
	soften  func(world string, seen *observation) // takes away what may differ, and says why
	retry   bool                                  // http.Transport sometimes loses the answer: try again until it does not
	hijacks bool                                  // the handler does, so that there must be a connection
}

// observation is all that caller and handler see of an exchange.
type observation struct {
	Status, Proto    string
	Header, Trailer  http.Header
	ContentLength    int64
	TransferEncoding []string
	Close            bool
	Uncompressed     bool
	Body, Error      string
	ReadError        string
	Traced           []string
	Dialog           string
	Same             bool // Response.Request is the caller's
	BodyClosed       int32
	Handler          sight
}

// sight is what the handler sees of the request.
type sight struct {
	Called                  int
	Method, URI, Host, Body string
	Header, Trailer         http.Header
	ContentLength           int64
	TransferEncoding        []string
	Close                   bool
}

// world is a way to get from a request to a handler.
type world struct {
	name   string
	listen func(testing.TB) net.Listener
	trip   func(dial func(context.Context) (net.Conn, error)) http.RoundTripper
	blind  bool // without a httptrace, so that wire takes its shortest ways
	direct bool // without any wire, where that is possible
}

func worlds() []world {
	inMemory := func(testing.TB) net.Listener { return pipe.Listen(new(pipe.Buffers), "callee:80") }
	overTCP := func(tb testing.TB) net.Listener {
		tb.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		return l
	}
	ordinary := func(dial func(context.Context) (net.Conn, error)) http.RoundTripper {
		return &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableCompression:     true,
			ExpectContinueTimeout:  time.Second,
			MaxResponseHeaderBytes: 1 << 20, // wire's limit; its own is 10 MiB
		}
	}
	short := func(dial func(context.Context) (net.Conn, error)) http.RoundTripper {
		return lean{&wire.Pool{Dial: dial}}
	}
	return []world{
		{name: "wire over pipe", listen: inMemory, trip: short},
		{name: "wire over pipe, untraced", listen: inMemory, trip: short, blind: true},
		{name: "direct", listen: inMemory, trip: short, direct: true},
		{name: "direct, untraced", listen: inMemory, trip: short, direct: true, blind: true},
		{name: "Transport over pipe", listen: inMemory, trip: ordinary},
		{name: "Transport over TCP", listen: overTCP, trip: ordinary},
	}
}

// observe runs s in w.
func (w world) observe(tb testing.TB, s scenario) *observation {
	tb.Helper()
	l := w.listen(tb)
	seen := new(observation)
	var mu sync.Mutex // until the handler is done, it shares seen.Handler
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		in := &seen.Handler
		in.Called++
		in.Method, in.URI, in.Host, in.Close = r.Method, r.RequestURI, r.Host, r.Close
		in.Header, in.ContentLength, in.TransferEncoding = r.Header.Clone(), r.ContentLength, r.TransferEncoding
		s.handler(rw, r.WithContext(context.WithValue(r.Context(), sightKey{}, in)))
	})
	stop := run(l, handler)
	rt := w.trip(func(ctx context.Context) (net.Conn, error) {
		if l, ok := l.(*pipe.Listener); ok {
			return l.Dial(ctx, "caller:1", nil)
		}
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
	if w.direct && !s.hijacks {
		u := &unwired{fallback: rt, handler: handler}
		s.exchange(tb, u, seen, w.blind)
		u.serving.Wait()
	} else {
		s.exchange(tb, rt, seen, w.blind)
	}
	rt.(interface{ CloseIdleConnections() }).CloseIdleConnections()
	stop()
	if s.soften != nil {
		s.soften(w.name, seen)
	}
	return seen
}

type sightKey struct{}

// exchange sends the request and notes what comes back.
func (s scenario) exchange(tb testing.TB, rt http.RoundTripper, seen *observation, blind bool) {
	tb.Helper()
	note := func(format string, args ...any) {
		seen.Traced = append(seen.Traced, fmt.Sprintf(format, args...))
	}
	req := s.request()
	ctx, cancel := context.WithTimeout(req.Context(), 5*time.Second)
	defer cancel()
	trace := &httptrace.ClientTrace{
		Got100Continue: func() { note("100") },
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			note("%d %v", code, h)
			return nil
		},
	}
	if s.blind {
		trace.Got1xxResponse = nil
	}
	if !blind {
		ctx = httptrace.WithClientTrace(ctx, trace)
	}
	req = req.WithContext(ctx)
	body, _ := req.Body.(*trackedBody)
	send := rt.RoundTrip
	if s.client {
		send = (&http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do
	}
	resp, err := send(req)
	seen.Error = kind(err)
	if err == nil {
		s.read(resp, seen)
		seen.Same = resp.Request == req
	}
	if body != nil {
		select {
		case <-body.done:
		case <-time.After(10 * time.Second):
			tb.Error("the request's body was not closed")
		}
		seen.BodyClosed = body.closed.Load()
	}
}

func (s scenario) read(resp *http.Response, seen *observation) {
	defer resp.Body.Close()
	seen.Status, seen.Proto = resp.Status, fmt.Sprint(resp.Proto, resp.ProtoMajor, resp.ProtoMinor, resp.StatusCode)
	seen.Header = resp.Header.Clone()
	seen.Header.Del("Date")
	seen.ContentLength, seen.TransferEncoding = resp.ContentLength, resp.TransferEncoding
	seen.Close, seen.Uncompressed = resp.Close, resp.Uncompressed
	if rwc, ok := resp.Body.(io.ReadWriteCloser); ok && s.dialog != nil {
		seen.Dialog = s.dialog(rwc)
		return
	}
	seen.Body, seen.ReadError = digest(resp.Body)
	seen.Trailer = resp.Trailer
	if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || kind(err) != seen.ReadError && (err != io.EOF || seen.ReadError != "") {
		seen.ReadError += fmt.Sprintf(", then %d and %v", n, err)
	}
	resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil || resp.Body != http.NoBody && err == io.EOF {
		seen.ReadError += ", and after Close: " + kind(err)
	}
}

// digest reads r to its end. It returns short content as it is.
func digest(r io.Reader) (content, readError string) {
	var first bytes.Buffer
	sum := sha256.New()
	n, err := io.Copy(sum, io.TeeReader(io.LimitReader(r, 200), &first))
	if err == nil {
		var more int64
		more, err = io.Copy(sum, r)
		n += more
	}
	content = first.String()
	if n > 200 {
		content = fmt.Sprintf("%d bytes %x", n, sum.Sum(nil))
	}
	return content, kind(err)
}

var errBody = errors.New("the body cannot be read")

// kind is what an error means, in words that all worlds have in common.
func kind(err error) string {
	if err == nil {
		return ""
	}
	for _, cut := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, cut) {
			return "cut"
		}
	}
	text := err.Error()
	for _, common := range []string{
		errBody.Error(), "malformed HTTP", "malformed MIME", "invalid Trailer", "invalid method", "ContentLength=", "Content-Length",
		"chunk", "trailer after", "bad trailer", "transfer encoding", "control character",
	} {
		if strings.Contains(text, common) {
			return common
		}
	}
	for _, same := range []struct{ says, means string }{
		{"exceed", "too much header"},
		{"nil Body", "a length and no body"},
		{"invalid header field", "invalid field"},
		{"invalid trailer field", "invalid field"},
		{"nil Request", "incomplete request"},
		{"no Host in", "incomplete request"},
		{"no URL, host or header", "incomplete request"},
	} {
		if strings.Contains(text, same.says) {
			return same.means
		}
	}
	return strings.TrimPrefix(text, "net/http: HTTP/1.x transport connection broken: ")
}

// TestEverythingIsAsWithAnOrdinaryTransport runs one corpus of exchanges through wire, and through
// http.Transport over the same pipe and over loopback TCP. Nobody must be able to tell which it was.
func TestEverythingIsAsWithAnOrdinaryTransport(t *testing.T) {
	t.Parallel()
	for _, s := range corpus() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			var first *observation
			for i, w := range worlds() {
				seen := w.observe(t, s)
				if w.blind {
					seen.Traced = first.Traced
				}
				for try := 0; s.retry && i > 1 && seen.Error != first.Error && try < 50; try++ {
					seen = w.observe(t, s)
				}
				if i == 0 {
					first = seen
				} else if !reflect.DeepEqual(first.in(w), seen.in(w)) {
					t.Errorf("%s:\n%s\n%s:\n%s", worlds()[0].name, first, w.name, seen)
				}
			}
		})
	}
}

// in returns what counts in w: where there is no connection, nobody hears that it is closed.
func (o *observation) in(w world) observation {
	seen := *o
	if w.direct {
		seen.Header = seen.Header.Clone()
		seen.Header.Del("Connection")
		seen.Close = false
	}
	return seen
}

// unwired takes the ways of the mesh: without a wire, or with one where there must be.
type unwired struct {
	fallback http.RoundTripper
	handler  http.Handler
	serving  sync.WaitGroup
}

func (u *unwired) RoundTrip(req *http.Request) (*http.Response, error) {
	if !direct.Takes(req) {
		return u.fallback.RoundTrip(req)
	}
	x := &direct.Exchange{RemoteAddr: "caller:1", Buffers: new(pipe.Buffers), ErrorLog: mute{}}
	ctx, cancel := context.WithCancel(context.Background())
	u.serving.Add(1)
	return x.RoundTrip(x.Request(ctx, req), time.Time{}, &callee{u, x, cancel})
}

// mute is a log that nobody reads.
type mute struct{}

func (mute) Printf(string, ...any) {}

// callee is a handler that is called without a wire.
type callee struct {
	*unwired
	x      *direct.Exchange
	cancel context.CancelFunc
}

func (c *callee) Serve(r *http.Request) {
	defer c.serving.Done()
	defer c.cancel()
	c.handler.ServeHTTP(c.x, r)
}

func (c *callee) PeerClosed() { c.cancel() }

func (o *observation) String() string {
	var b strings.Builder
	v := reflect.ValueOf(*o)
	for i := range v.NumField() {
		text := fmt.Sprintf("%+v", v.Field(i).Interface())
		fmt.Fprintf(&b, "\t%s: %.1000q\n", v.Type().Field(i).Name, text)
	}
	return b.String()
}
