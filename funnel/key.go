package funnel

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/org/watt"
)

var errKey = errors.New(`the header Idempotency-Key is not one string, such as "8e03978e-40d5-43dd-bc93-6894a57f9324"`)

const (
	maxKey    = 255     // how long a key may be, in bytes
	maxHeader = 1 << 10 // how long with its quotes and parameters: parsing takes some 100 ns for each byte
)

// keyOf returns the key of a request, or "" if it has none or needs none.
func keyOf(r *http.Request) (string, error) {
	values := r.Header.Values("Idempotency-Key")
	if safe(r.Method) || len(values) == 0 || len(values) == 1 && strings.Trim(values[0], " \t") == "" {
		return "", nil
	}
	if len(values) > 1 || len(values[0]) > maxHeader {
		return "", errKey
	}
	key, ok := parseKey(strings.Trim(values[0], " \t"))
	if !ok || key == "" || len(key) > maxKey {
		return "", errKey
	}
	return key, nil
}

// routeOf returns where a request goes to: the app, if it was called by its name in the mesh, and the path, as it was
// sent, and as those in front have left it. One that has lost its prefix on the way would stand for another route's.
func routeOf(r *http.Request) [3]string {
	app, _ := watt.AppOf(r.Host) // none for any of the names by which clients know the program
	sent := ""
	if u, err := url.ParseRequestURI(r.RequestURI); err == nil {
		sent = u.EscapedPath()
	}
	return [...]string{app, sent, r.URL.EscapedPath()}
}

// safe reports whether a method changes nothing, so that repeating it does no harm.
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// parseKey parses a string of RFC 9651, whose parameters mean nothing here, or the same without quotes, as many clients
// write it.
func parseKey(s string) (string, bool) {
	if !strings.HasPrefix(s, `"`) {
		return s, !strings.ContainsFunc(s, notBare)
	}
	found := item.FindStringSubmatch(s)
	if found == nil {
		return "", false
	}
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(found[1]), true
}

// item is a string with parameters, whose values are a string, a number or a date, a token, bytes, a boolean or a
// display string.
var item = regexp.MustCompile(`^"((?:[ !#-\[\]-~]|\\["\\])*)"` +
	`(?:; *[a-z*][a-z0-9_.*-]*(?:=(?:` +
	`"(?:[ !#-\[\]-~]|\\["\\])*"` +
	`|-?[0-9]{1,12}\.[0-9]{1,3}|@?-?[0-9]{1,15}` +
	"|[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*" +
	`|:[A-Za-z0-9+/=]*:|\?[01]` +
	`|%"(?:[ !#$&-~]|%[0-9a-f]{2})*"))?)*$`)

// notBare reports whether c cannot stand in a key without quotes.
func notBare(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`",;\`, c) }
