package roundtrip

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// errBegun means that a body cannot be had again.
var errBegun = errors.New("somebody has begun to read the body")

// WhileUnread returns req with a body that can be had again as long as nobody has read of it, unless it is in memory or req
// says how to have it again. The body of each attempt is closed by whoever sends it; end, which is called after the last,
// has the request's own closed.
func WhileUnread(req *http.Request) (out *http.Request, end func()) {
	if _, memory := InMemory(req.Body); memory || !HasBody(req) || req.GetBody != nil {
		return req, func() {}
	}
	u := &unread{body: req.Body}
	again := *req
	again.Body, _ = u.open()
	again.GetBody = u.open
	return &again, u.end
}

// unread is such a body.
type unread struct {
	body io.ReadCloser

	mu    sync.Mutex
	last  *attempt // nobody else may read
	begun bool
	over  bool // there are no more attempts
}

// open returns the body for an attempt. Whoever has it from before reads no more.
func (u *unread) open() (io.ReadCloser, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.begun {
		return nil, errBegun
	}
	u.last = &attempt{body: u}
	return u.last, nil
}

// end closes the body if the last attempt has, and leaves that to it otherwise.
func (u *unread) end() {
	u.mu.Lock()
	left := u.last.closed && !u.begun && !u.over
	u.over = true
	u.mu.Unlock()
	if left {
		_ = u.body.Close()
	}
}

// attempt is the body of one.
type attempt struct {
	body   *unread
	closed bool
}

// Read implements [io.Reader].
func (a *attempt) Read(p []byte) (int, error) {
	if !a.begin() {
		return 0, http.ErrBodyReadAfterClose
	}
	return a.body.body.Read(p)
}

// begin reports whether a may read.
func (a *attempt) begin() bool {
	u := a.body
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last != a || a.closed && !u.begun {
		return false
	}
	u.begun = true
	return true
}

// Close closes the body, unless there may be another attempt.
func (a *attempt) Close() error {
	u := a.body
	u.mu.Lock()
	ends := u.last == a && (u.begun || u.over && !a.closed)
	if u.last == a {
		a.closed = true
	}
	u.mu.Unlock()
	if ends {
		return u.body.Close()
	}
	return nil
}
