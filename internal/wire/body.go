package wire

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// continueWait is how long a request that expects 100 Continue waits for it before it sends its body
// all the same, as [http.DefaultTransport] does.
const continueWait = time.Second

// errNotWanted ends the writing of a body that the server has answered without.
var errNotWanted = errors.New("the server does not want the body")

// requestBody is the body of a request that is written beside the reading of the answer. Its zero
// pointer is a body that does not exist.
type requestBody struct {
	rc    io.ReadCloser
	flush func() error // sends the headers before the body is waited for; nil once done
	ask   chan bool    // whether to proceed; nil if that was not asked
	once  sync.Once

	mu  sync.Mutex
	err error // why the body could not be read
}

func newRequestBody(req *http.Request, flush func() error) *requestBody {
	b := &requestBody{rc: req.Body}
	// Where the length is unknown and the method usually has no body, Request.Write reads the first
	// byte before and beside the headers.
	if req.ContentLength > 0 || req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch {
		b.flush = flush
	}
	if expectsContinue(req) {
		b.ask = make(chan bool, 1)
	}
	return b
}

// Read reads the body, once the headers are out and the server has not refused.
func (b *requestBody) Read(p []byte) (int, error) {
	if flush := b.flush; flush != nil {
		b.flush = nil
		if err := flush(); err != nil {
			return 0, err
		}
		if !b.wanted() {
			return 0, errNotWanted
		}
	}
	n, err := b.rc.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // Read returns it bare
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
	return n, err
}

// wanted waits for the word to proceed, where that was asked.
func (b *requestBody) wanted() bool {
	if b.ask == nil {
		return true
	}
	timer := time.NewTimer(continueWait)
	defer timer.Stop()
	select {
	case yes := <-b.ask:
		return yes
	case <-timer.C:
		return true
	}
}

// proceed says whether the server wants the body. Only the first word counts.
func (b *requestBody) proceed(yes bool) {
	if b == nil || b.ask == nil {
		return
	}
	select {
	case b.ask <- yes:
	default:
	}
}

// Close closes the caller's body, once.
func (b *requestBody) Close() error {
	var err error
	b.once.Do(func() { err = b.rc.Close() })
	return err
}

// failed returns why the body could not be read, or nil.
func (b *requestBody) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
