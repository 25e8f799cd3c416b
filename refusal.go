package watt

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// headerRefused has the door's reason for an answer that no handler gave, for callers of watt's own behind a connection.
// It never comes in from, nor goes out to, strangers.
const headerRefused = "X-Watt-Refused"

// What a door says there.
const (
	refusedOverloaded  = "overloaded"
	refusedUnavailable = "unavailable"
	refusedTimeout     = "timeout"
	refusedLate        = "late"    // a handler had it, and has not answered
	refusedAborted     = "aborted" // a sibling's handler wants the connection cut, and no answer
)

// errAborted means that a sibling's handler wants the connection cut, and no answer.
var errAborted = errors.New("aborted by its handler")

// refuse answers a request that got no worker.
func (d *door) refuse(w http.ResponseWriter, p *peer, err error) {
	if !p.stranger() {
		w.Header().Set(headerRefused, refusalOf(err))
	}
	if p.lameDuck() || d.app.rt.child != nil && errors.Is(err, ErrUnavailable) {
		w.Header().Set("Connection", "close")
	}
	WriteError(w, err)
}

func refusalOf(err error) string {
	switch {
	case errors.Is(err, ErrUnavailable), errors.Is(err, context.Canceled): // the server reads no more, as when it drains
		return refusedUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		return refusedTimeout
	}
	return refusedOverloaded
}

// sayLate says of the answer to a request that was begun that its time was up, which the caller's own clock may not have
// told it yet.
func (p *peer) sayLate(h http.Header, err error) {
	if errors.Is(err, context.DeadlineExceeded) && !p.stranger() {
		h.Set(headerRefused, refusedLate)
	}
}

// withoutRefusal removes what only the door may say, however its name is written: callers read it in canonical form.
func withoutRefusal(h http.Header) {
	for name := range h {
		if len(name) == len(headerRefused) && strings.EqualFold(name, headerRefused) {
			delete(h, name)
		}
	}
}

// doorRefusal returns the error that a door behind an HTTP/2 connection or in another process put into
// its answer, or nil if a handler answered.
func doorRefusal(resp *http.Response) error {
	word := resp.Header.Get(headerRefused)
	if word == "" {
		return nil
	}
	_ = resp.Body.Close()
	err := ErrOverloaded
	switch word {
	case refusedLate:
		return &CallError{Started: true, Err: context.DeadlineExceeded}
	case refusedAborted:
		return &CallError{Started: true, Err: errAborted}
	case refusedUnavailable:
		err = ErrUnavailable
	case refusedTimeout:
		err = context.DeadlineExceeded
	}
	return &CallError{RetryAfter: retryAfter(resp.Header), Err: fmt.Errorf("%w at its door", err)}
}
