package wire

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/org/watt/internal/roundtrip"
)

// continueWait is how long a request that expects 100 Continue waits for it before it sends its body
// all the same, as [http.DefaultTransport] does.
const continueWait = time.Second

// errNotWanted ends the writing of a body that nobody waits for any more.
var errNotWanted = errors.New("the rest of the body is not wanted")

// requestBody is the body of a request that is written beside the reading of the answer. As a nil
// pointer it is a body that is not.
type requestBody struct {
	rc    io.ReadCloser // guarded
	trace *httptrace.ClientTrace
	ask   chan bool // whether to proceed; nil if that needs no asking
	asked bool      // by Read
	once  sync.Once // closes rc

	trailer http.Header // the caller's, which fills with the end
	sent    http.Header // a copy, since the writing may go on when that is no longer to be touched

	mu   sync.Mutex
	told bool  // ask has its answer
	err  error // why no more is read; errNotWanted if it is not the body's fault
}

func newRequestBody(req *http.Request, trace *httptrace.ClientTrace, log roundtrip.Log) *requestBody {
	b := &requestBody{rc: roundtrip.Guard(req.Body, log), trace: trace, trailer: req.Trailer, sent: req.Trailer.Clone()}
	if expectsContinue(req) && !probed(req) {
		b.ask = make(chan bool, 1)
	}
	return b
}

func expectsContinue(req *http.Request) bool {
	return httpguts.HeaderValuesContainsToken(req.Header["Expect"], "100-continue")
}

// probed reports whether [http.Request.Write] reads the first byte before it writes the headers, so
// that the server cannot be asked whether it wants it.
func probed(req *http.Request) bool {
	if req.ContentLength > 0 || len(req.TransferEncoding) > 0 {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions, "PROPFIND", "SEARCH":
		return true
	}
	return false
}

// Read reads the body, unless the server has refused it or the exchange is over. Request.Write has
// flushed the headers before.
func (b *requestBody) Read(p []byte) (int, error) {
	if b.ask != nil && !b.asked {
		b.asked = true
		if !b.wanted() {
			b.fail(errNotWanted)
		}
	}
	if err := b.failed(); err != nil {
		return 0, err
	}
	n, err := b.rc.Read(p)
	switch {
	case err == io.EOF:
		b.end()
	case err != nil:
		b.fail(err)
	}
	return n, err
}

// end takes the trailers over, unless they may be the caller's again.
func (b *requestBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		clear(b.sent)
		maps.Copy(b.sent, b.trailer)
	}
}

// wanted waits for the word to proceed.
func (b *requestBody) wanted() bool {
	if b.trace != nil && b.trace.Wait100Continue != nil {
		b.trace.Wait100Continue()
	}
	select {
	case yes := <-b.ask:
		return yes
	case <-time.After(continueWait):
		return true
	}
}

// proceed tells Read whether the server wants the body. It reports whether this was the answer to a question: the
// request has asked, and was not told before.
func (b *requestBody) proceed(yes bool) bool {
	if b == nil || b.ask == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.told {
		return false
	}
	b.told = true
	b.ask <- yes
	return true
}

// Close closes the caller's body, once.
func (b *requestBody) Close() error {
	var err error
	b.once.Do(func() { err = b.rc.Close() })
	return err
}

// abandon ends the writing of the body, even if it waits for the caller's Read: closing most bodies
// ends that. It does not wait, for with some bodies Close does.
func (b *requestBody) abandon() {
	b.fail(errNotWanted)
	b.proceed(false)
	go b.Close() //nolint:errcheck // nobody is left to tell
}

func (b *requestBody) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
}

// failed returns why no more is read of the body, or nil.
func (b *requestBody) failed() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
