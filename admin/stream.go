package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// stream is an answer of server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	err     error
}

// patience is how long a reader may take to take an event.
const patience = 10 * time.Second

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	return &stream{w: w, control: http.NewResponseController(w)}
}

func (s *stream) send(v any) {
	if s.err != nil {
		return
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(patience)) // not everything that writes has one
	text, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Fprintf(s.w, "data: %s\n\n", text)
	}
	s.err = err
}

// flush sends what there is, and reports whether anybody takes it. There may be nothing to send for long then: over
// HTTP/2 a deadline that passes ends the stream.
func (s *stream) flush() bool {
	if s.err == nil {
		s.err = s.control.Flush()
		_ = s.control.SetWriteDeadline(time.Time{})
	}
	return s.err == nil
}
