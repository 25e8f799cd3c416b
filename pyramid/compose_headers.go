package pyramid

import (
	"net/http"
	"strings"

	"github.com/org/watt"
)

// passedOn returns the headers that the calls for r have. Nobody may change them.
func passedOn(r *http.Request) http.Header {
	inside := watt.Caller(r.Context()) != ""
	h := make(http.Header, len(r.Header)+1)
	for name, values := range r.Header {
		if concernsParts(hyphened(name), inside) {
			h[name] = values
		}
	}
	for _, named := range r.Header["Connection"] {
		for name := range strings.SplitSeq(named, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	h["Accept"] = []string{"application/json"}
	return h
}

// concernsParts reports whether a header says something about more than the connection, the body or the
// representation, and can be believed.
func concernsParts(name string, inside bool) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Http2-Settings", "Accept", "Accept-Encoding", "Expect", "Range":
		return false
	}
	if forwarded(name) {
		return inside
	}
	return !strings.HasPrefix(name, "Content-") && !strings.HasPrefix(name, "If-")
}
