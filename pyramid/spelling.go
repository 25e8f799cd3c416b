package pyramid

import (
	"net/url"
	"path"
	"strings"
)

// Routers match a path as it was sent or as it is decoded, and do not tell which. chi takes the former where
// decoding loses something, but its middleware StripSlashes the latter.

// spellings returns the escaped forms of u's path of which a router may have left the end: middlewares may have changed it.
func spellings(u *url.URL) []string {
	sent := u.EscapedPath()
	return []string{sent, strings.TrimSuffix(sent, "/"), path.Clean(sent)}
}

// asSent reports whether end, which begins with a slash, is an end of u's path as it was sent, and not one that was decoded.
// The two are not mistaken for each other: what an end was decoded from is longer, and if it had the same end too, it would
// have a slash more, while decoding takes none away.
func asSent(u *url.URL, end string) bool {
	for _, whole := range spellings(u) {
		if strings.HasSuffix(whole, end) {
			return true
		}
	}
	return false
}

// spelled returns the end of u's path in escaped form, as it was sent if it can be found there.
func spelled(u *url.URL, end string) string {
	if asSent(u, end) {
		return end
	}
	for _, whole := range spellings(u) {
		tail := lastOf(whole, len(end))
		if text, err := url.PathUnescape(tail); err == nil && text == end {
			return tail
		}
	}
	return (&url.URL{Path: end}).EscapedPath()
}

// lastOf returns the end of an escaped path that has n bytes when it is decoded.
func lastOf(escaped string, n int) string {
	at := len(escaped)
	for ; n > 0 && at > 0; n-- {
		if at >= 3 && escaped[at-3] == '%' {
			at -= 2
		}
		at--
	}
	return escaped[at:]
}
