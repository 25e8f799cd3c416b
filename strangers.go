package watt

import (
	"io"
	"maps"
	"net/http"
	"strings"
)

// What strangers may send along with their requests, in bytes.
const (
	maxBaggage   = 8 << 10 // of baggage, and of tracestate
	maxRequestID = 128
)

// cleanHeaders removes from a stranger's request what is trusted inside, and what would be passed on
// malformed.
func cleanHeaders(h http.Header) {
	for name := range h {
		if reserved(name) {
			delete(h, name)
		}
	}
	if v := h["Traceparent"]; v != nil && (len(v) != 1 || !validTraceparent(v[0])) {
		delete(h, "Traceparent")
		delete(h, "Tracestate")
	}
	cleanValue(h, "Tracestate", maxBaggage)
	cleanValue(h, "Baggage", maxBaggage)
	cleanValue(h, "X-Request-Id", maxRequestID)
	if v := h["Upgrade"]; v != nil && (len(v) != 1 || !strings.EqualFold(v[0], "websocket")) {
		delete(h, "Upgrade")
		delete(h, "Http2-Settings")
	}
	cleanConnection(h)
}

// cleanConnection leaves of Connection what concerns the connection. It may name other headers, which
// proxies then remove: also those that an app has added for the apps behind it.
func cleanConnection(h http.Header) {
	named, upgrade := h["Connection"], h["Upgrade"] != nil
	delete(h, "Connection")
	for token := range strings.SplitSeq(strings.Join(named, ","), ",") {
		switch token = strings.ToLower(strings.TrimSpace(token)); {
		case token == "close", token == "keep-alive", token == "upgrade" && upgrade:
			h.Add("Connection", token)
		}
	}
}

// cleanTrailers removes from a stranger's trailers, which come after the body, what cleanHeaders removes
// from the headers.
func cleanTrailers(r *http.Request) {
	if r.Trailer != nil { // announced; others are not seen by handlers
		dropTrailers(r.Trailer)
		if in, ok := r.Body.(*intake); ok {
			in.trailer = r.Trailer
			return
		}
		r.Body = &trailedBody{r.Body, r.Trailer}
	}
}

func dropTrailers(trailer http.Header) {
	maps.DeleteFunc(trailer, func(name string, _ []string) bool { return reserved(name) || travels(name) })
}

// trailedBody cleans the trailers when they have been read, as an intake does.
type trailedBody struct {
	io.ReadCloser
	trailer http.Header
}

func (b *trailedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		dropTrailers(b.trailer)
	}
	return n, err
}

// reserved reports whether a header's name belongs to watt, or is the underscore twin of one that the
// mesh passes on: many servers take "_" for "-".
func reserved(name string) bool {
	plain := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	if strings.HasPrefix(plain, "X-Watt-") {
		return true
	}
	return travels(plain) && plain != name
}

// travels reports whether the mesh passes the header of this name on by itself.
func travels(name string) bool {
	return name == "Traceparent" || name == "Tracestate" || name == "Baggage" || name == "X-Request-Id"
}

// cleanValue joins a header's lines, and drops it if it is too long or not printable.
func cleanValue(h http.Header, name string, most int) {
	v, ok := h[name]
	if !ok {
		return
	}
	joined := strings.Join(v, ",")
	if len(joined) > most || !printable(joined) {
		delete(h, name)
		return
	}
	h[name] = []string{joined}
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
}

// validTraceparent reports whether s has the form of W3C Trace Context: version, trace id, parent id
// and flags, in lower-case hex, with neither id zero. Versions above 00 may add fields.
func validTraceparent(s string) bool {
	fields := strings.Split(s, "-")
	if len(fields) < 4 || len(fields) > 4 && fields[0] == "00" {
		return false
	}
	version, trace, parent, flags := fields[0], fields[1], fields[2], fields[3]
	return hex(version, 2) && version != "ff" && hex(trace, 32) && hex(parent, 16) && hex(flags, 2) &&
		strings.Trim(trace, "0") != "" && strings.Trim(parent, "0") != "" && len(s) <= maxBaggage && printable(s)
}

// hex reports whether s is n lower-case hexadecimal digits.
func hex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}
