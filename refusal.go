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
	refusedDied        = "died"    // a sibling had it, and has ended
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

// sayDied says of the answer to a request that a sibling had begun that the sibling has ended.
func (p *peer) sayDied(h http.Header, err error) {
	if errors.Is(err, ErrInstanceDied) && !p.stranger() {
		h.Set(headerRefused, refusedDied)
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

// orRefusal returns what a round trip has, unless a door put a refusal into its answer: then the error of that.
func orRefusal(resp *http.Response, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	word := resp.Header.Get(headerRefused)
	if word == "" {
		return resp, nil
	}
	_ = resp.Body.Close()
	return nil, refusal(word, resp.Header)
}

// refusal returns the error that a door meant by its word.
func refusal(word string, h http.Header) *CallError {
	err := ErrOverloaded
	switch word {
	case refusedLate:
		return &CallError{Started: true, Err: context.DeadlineExceeded}
	case refusedDied:
		return &CallError{Started: true, Err: fmt.Errorf("%w: it was handed the request", ErrInstanceDied)}
	case refusedAborted:
		return &CallError{Started: true, Err: errAborted}
	case refusedUnavailable:
		err = ErrUnavailable
	case refusedTimeout:
		err = context.DeadlineExceeded
	}
	return &CallError{RetryAfter: retryAfter(h), Err: fmt.Errorf("%w at its door", err)}
}
