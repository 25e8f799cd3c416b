package funnel

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// refuse answers a request that was not worked on, in the form that [watt.WriteError] has.
func refuse(w http.ResponseWriter, status int, after time.Duration, why string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	if after > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(problem{"about:blank", http.StatusText(status), status, why})
}

// scattered returns a time up to half as long again: or all who were refused would come back together.
func scattered(after time.Duration) time.Duration { return after + rand.N(after/2+1) }

// problem is a problem document (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}
