package watt

import (
	"net/http"
	"strconv"
	"time"
)

// headerTimeout has what remains of the deadline, in milliseconds, where a call leaves the process: clocks may differ. It
// never comes in from, nor goes out to, strangers.
const headerTimeout = "X-Watt-Timeout"

// maxRemaining is the longest time, in milliseconds, that a caller elsewhere can have left: a day.
const maxRemaining = 24 * 60 * 60 * 1000

// setRemaining says in a request's headers what is left until the deadline, if there is one.
func setRemaining(h http.Header, deadline time.Time) {
	if !deadline.IsZero() {
		h.Set(headerTimeout, strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	}
}

// takeRemaining takes that out of a request's headers again, and returns the deadline, which is zero if there is none.
func takeRemaining(h http.Header) (deadline time.Time) {
	said := h[headerTimeout]
	delete(h, headerTimeout)
	if len(said) == 0 { // of nothing, ParseInt makes an error
		return deadline
	}
	if remaining, _ := strconv.ParseInt(said[0], 10, 64); remaining > 0 {
		deadline = time.Now().Add(time.Duration(min(remaining, maxRemaining)) * time.Millisecond)
	}
	return deadline
}
