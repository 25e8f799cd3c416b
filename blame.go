package watt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// blame finds whose failure err is, because of which the request was to be answered with status. It returns the status for
// that: another one if the request is malformed, its time is up, or nobody waits for the answer any more. It logs what is
// the program's failure.
func (q *request) blame(status int, err error) int {
	if status >= 500 && q.gone() && !errors.Is(err, errPanicked) {
		q.log(zap.DebugLevel, statusGone, err)
		return statusGone
	}
	if status == http.StatusInternalServerError && q.intake.malformed(err) {
		return http.StatusBadRequest
	}
	if late := q.tooLate(status, err); late != nil {
		status, err = http.StatusGatewayTimeout, late
	}
	q.logAnswer(status, err)
	return status
}

// logAnswer logs that the request is answered with status because of err, if nobody else says so.
func (q *request) logAnswer(status int, err error) {
	_, called := errors.AsType[*CallError](err)
	switch {
	case errors.Is(err, errPanicked): // which has a line that says more
	case status == http.StatusInternalServerError, status == http.StatusBadGateway, status == http.StatusGatewayTimeout,
		errors.Is(err, ErrNotAllowed): // which is a mistake in Calls
		if q.app.fails.note(err) {
			q.log(zap.WarnLevel, status, err)
		}
	case status == http.StatusServiceUnavailable && !called && !ended(err) && q.answer.refused == nil:
		q.app.faults.note(err)
	}
}

// log says why the request is answered with an error.
func (q *request) log(level zapcore.Level, status int, err error) {
	q.gen.env.Logger.Log(level, "request failed", zap.String("request", q.what()), zap.Int("status", status), zap.Error(err))
}

// tooLate returns the error of a request whose time is up, if err is how its handler has learnt of that; otherwise nil.
// A body that a caller has given up then is cut off; an answer that is cut off is another app's matter.
func (q *request) tooLate(status int, err error) error {
	cut := status == http.StatusInternalServerError && errors.Is(err, io.ErrUnexpectedEOF)
	if reason := q.reason(); (cut || ended(err)) && errors.Is(reason, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", q.explainTimeout(reason), err)
	}
	return nil
}

// ended reports whether err says that a context has ended, or that a body did not come before a deadline.
func ended(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, os.ErrDeadlineExceeded)
}

// statusGone is what nginx logs of a request whose client has gone.
const statusGone = 499

// gone reports whether the client has gone, or the caller has given up. Whoever is still there when Timeout passes, a drain
// begins or cuts, or the answer is refused, has not.
func (q *request) gone() bool {
	if q.answer.replaced() {
		return false
	}
	switch q.reason() {
	case context.DeadlineExceeded, errCut, errDraining: //nolint:errorlint // a caller's own reason may wrap the same of another app
		return false
	}
	return errors.Is(q.Err(), context.Canceled)
}
