package watt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Why a call failed. A [*CallError] wraps one of these, or [context.DeadlineExceeded], or what else
// went wrong; [errors.Is] tells them apart.
var (
	// ErrNoSuchApp: no app has that name. Answered with 502.
	ErrNoSuchApp = errors.New("watt: no such app")
	// ErrNotAllowed: the caller's Calls does not name the app. Answered with 403.
	ErrNotAllowed = errors.New("watt: call not allowed")
	// ErrOverloaded: no worker was free, and the queue was full or the wait too long. Answered with 503.
	ErrOverloaded = errors.New("watt: overloaded")
	// ErrUnavailable: the app is down, restarting, draining, stopped or given up. Answered with 503.
	ErrUnavailable = errors.New("watt: unavailable")
	// ErrInstanceDied: the connection was cut with the request in progress. Answered with 502.
	ErrInstanceDied = errors.New("watt: instance died")
)

// CallError is the error of every call over the mesh that failed. [errors.As] finds it in the
// *url.Error of an [http.Client] and in errors of reading a response's body.
type CallError struct {
	// Caller and App are the names of both sides; Caller is empty for main and tests.
	Caller, App string
	// Status is what the callee answered, where [JSON] made an error of it; otherwise 0.
	Status int
	// Started reports whether the callee may have begun to work on the request. If false, repeating
	// the call is safe whatever its method.
	Started bool
	// RetryAfter is the callee's estimate of when trying again makes sense; 0 if it has none.
	RetryAfter time.Duration
	// Err is the cause.
	Err error

	challenge string // WWW-Authenticate, which a 401 has to have
}

// Error returns both names, as far as they are known, and the cause.
func (e *CallError) Error() string {
	who := "watt: call"
	if e.Caller != "" {
		who += " from " + e.Caller
	}
	if e.App != "" {
		who += " to " + e.App
	}
	if e.Err == nil {
		return fmt.Sprintf("%s: status %d", who, e.Status)
	}
	return who + ": " + strings.TrimPrefix(e.Err.Error(), "watt: ")
}

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }

// Timeout reports whether the call failed because its time was up.
func (e *CallError) Timeout() bool { return errors.Is(e.Err, context.DeadlineExceeded) }

// maxErrorText is how much of a callee's answer an error quotes, in bytes.
const maxErrorText = 200

// JSON decodes the answer of a call into a T and closes its body. It takes the results of
// [Env.Get] and of [http.Client.Do] as they are; an error is returned unchanged. An answer other
// than 2xx becomes a [*CallError] with its Status, and one that cannot be decoded a CallError without one. 204 No Content
// gives the zero T. The length of an answer is not limited; what follows the first value is ignored.
func JSON[T any](resp *http.Response, err error) (T, error) {
	var v T
	if err != nil {
		return v, err
	}
	if resp == nil || resp.Body == nil {
		return v, errors.New("watt: JSON: there is neither an answer with a body nor an error")
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return v, statusError(resp)
	}
	if resp.StatusCode == http.StatusNoContent {
		return v, nil
	}
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		if _, failed := errors.AsType[*CallError](err); failed {
			return v, err
		}
		return v, answerError(resp, fmt.Errorf("decoding the answer: %w", err))
	}
	// What follows the value is read, so that the connection can be used again.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10))
	return v, nil
}

// statusError makes an error of an answer that is not 2xx.
func statusError(resp *http.Response) *CallError {
	e := answerError(resp, answered(resp))
	e.Status, e.RetryAfter = resp.StatusCode, retryAfter(resp.Header)
	e.challenge = strings.Join(resp.Header["Www-Authenticate"], ", ")
	return e
}

// answered tells what was answered instead of 2xx.
func answered(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorText))
	return fmt.Errorf("answered %s: %q", resp.Status, strings.TrimSpace(string(text)))
}

// answerError returns the error of a call that was answered, but with err. Its App is the host, if that is no app's.
func answerError(resp *http.Response, err error) *CallError {
	e := &CallError{Started: true, Err: err}
	if resp.Request == nil || resp.Request.URL == nil {
		return e
	}
	e.Caller = callerOf(resp.Request.Context())
	app, mesh := AppOf(resp.Request.URL.Host)
	if e.App = app; !mesh {
		e.App = resp.Request.URL.Host
	}
	return e
}

// retryAfter returns how long the Retry-After of an answer is from now, a number of seconds or a date: an hour at most.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), time.Hour)
	}
	seconds, err := strconv.Atoi(text)
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, 3600)) * time.Second
}

// WriteError answers a request with the status, Retry-After and problem document (RFC 9457) that
// belong to err:
//
//   - a failed call: what is said at [ErrNoSuchApp] and the other causes, and else 502; 4xx (401 with its
//     WWW-Authenticate), 503 and 504 of a callee pass, and its other statuses become 502
//   - [http.MaxBytesError]: 413; what reading a request's body returns that is malformed: 400,
//     but not what decoding it finds (500, like anything else): that is for the app to answer
//   - [context.DeadlineExceeded]: 504; [context.Canceled]: 503
//   - once the request's time is up, [context.Canceled] and what reading its body returns: 504
//   - anything else: 500; also a call to the outside that has failed, unless it is made a &CallError{Err: err}: 502
//   - in place of any of these 5xx: 499, if the client has gone, or the caller has given up, before its time was up (less
//     100 ms, or half of its time if that is shorter, where the two do not have the same clock). Nobody sees it but who
//     counts: it is no failure of the app. The number is what nginx logs.
//
// The document of a failed call names the app that was called. The text of err is not written: strangers may
// read the answer.
//
// If w is the writer that an app's handler was given, or wraps it with an Unwrap method, err is logged if it is answered
// with 500, 502 or 504, or is [ErrNotAllowed]: ten of an app every 5 s, and those beyond are summed up. So are errors that are
// answered with 503 and are no call's.
// If the answer has begun there, nothing is written. It is cut off when the handler returns, so that nobody takes it for
// whole, unless it is an error's already.
func WriteError(w http.ResponseWriter, err error) {
	if q := requestBehind(w); q != nil && q.answer.stage != unsaid {
		if q.answer.replaced() {
			err = q.answer.refused // by which err has come about
		}
		status, _ := answerTo(err)
		q.answer.breaks(q.blame(status, err))
		return
	}
	writeError(w, err)
}

// writeError answers, whether or not the status has been decided.
func writeError(w http.ResponseWriter, err error) {
	status, after := answerTo(err)
	if q := requestBehind(w); q != nil {
		status = q.blame(status, err)
		q.answer.told, q.answer.status = true, status
	}
	h := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified", "Cache-Control"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusServiceUnavailable || after > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(max(after, time.Second).Seconds()))))
	}
	if call, ok := errors.AsType[*CallError](err); ok && status == http.StatusUnauthorized && call.challenge != "" {
		h.Set("WWW-Authenticate", call.challenge)
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(problemDocument{"about:blank", http.StatusText(status), status, calledIn(err)})
}

// calledIn returns the name of the app whose call has failed with err, or "" if it was no call, or of no app.
func calledIn(err error) string {
	if call, ok := errors.AsType[*CallError](err); ok && nameProblem(call.App) == "" {
		return call.App
	}
	return ""
}

// problemDocument is what RFC 9457 calls a problem.
type problemDocument struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	App    string `json:"app,omitempty"` // that was called
}

// requestBehind returns the request that w belongs to, or nil if w is not an app's, or hides it.
func requestBehind(w http.ResponseWriter) *request {
	for {
		switch own := w.(type) {
		case *answer:
			return own.request
		case *http1Answer:
			return own.request
		case interface{ Unwrap() http.ResponseWriter }:
			w = own.Unwrap()
		default:
			return nil
		}
	}
}

// answerTo returns the status for err, and the time to wait that goes with a 503.
func answerTo(err error) (status int, after time.Duration) {
	call, isCall := errors.AsType[*CallError](err)
	if isCall {
		after = call.RetryAfter
	}
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case isCall && call.Status != 0:
		return passedOn(call.Status), after
	case errors.Is(err, ErrNotAllowed):
		return http.StatusForbidden, 0
	case errors.Is(err, ErrOverloaded), errors.Is(err, ErrUnavailable):
		return http.StatusServiceUnavailable, after
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout, 0
	case errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable, 0
	case tooLarge:
		return http.StatusRequestEntityTooLarge, 0
	case isCall, errors.Is(err, ErrNoSuchApp), errors.Is(err, ErrInstanceDied):
		return http.StatusBadGateway, 0
	}
	return http.StatusInternalServerError, 0
}

// passedOn returns the status that a caller answers with when its callee answered with status.
func passedOn(status int) int {
	switch {
	case status >= 400 && status <= 499, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return status
	}
	return http.StatusBadGateway
}
