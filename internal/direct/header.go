package direct

import (
	"errors"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/org/watt/internal/roundtrip"
)

var errMalformed = errors.New("malformed MIME header: a value has control characters")

// arrived returns a copy of an answer's headers, or trailers, as they arrive on the other side of a wire: names
// in canonical form, values on one line, and nothing that is no header. There is room for some more. The copy is in out, which
// is empty, or nil.
func arrived(h, out http.Header) (http.Header, error) {
	if out == nil {
		out = make(http.Header, len(h)+3)
	}
	all, size := make([]string, 0, lines(h)), 0
	add := func(name string, values []string) {
		from := len(all)
		for _, v := range values {
			size += len(name) + len(v)
			all = append(all, oneLine(v))
		}
		if have := out[name]; have != nil {
			out[name] = append(have, all[from:]...)
		} else if len(values) > 0 {
			out[name] = all[from:len(all):len(all)]
		}
	}
	var odd []string
	for name, values := range h {
		if http.CanonicalHeaderKey(name) != name {
			odd = append(odd, name)
		} else if httpguts.ValidHeaderFieldName(name) {
			add(name, values)
		}
	}
	slices.Sort(odd)
	for _, name := range odd {
		if httpguts.ValidHeaderFieldName(name) {
			add(http.CanonicalHeaderKey(name), h[name])
		}
	}
	switch {
	case size > roundtrip.MaxHeader:
		return nil, roundtrip.ErrHeaderTooLong
	case slices.ContainsFunc(all, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }):
		return nil, errMalformed
	}
	return out, nil
}

// lines returns how many values there are.
func lines(h http.Header) int {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	return n
}

func oneLine(v string) string {
	if strings.ContainsAny(v, "\r\n") {
		v = strings.NewReplacer("\n", " ", "\r", " ").Replace(v)
	}
	return textproto.TrimString(v)
}

// sent returns a copy of a request's headers with room for some more, of which plainHeaders has approved.
func sent(h http.Header) http.Header {
	out, all := make(http.Header, len(h)+3), make([]string, 0, lines(h))
	for name, values := range h {
		from := len(all)
		for _, v := range values {
			all = append(all, textproto.TrimString(v))
		}
		if len(values) > 0 {
			out[name] = all[from:len(all):len(all)]
		}
	}
	return out
}

// trailerNames returns the names that an answer's Trailer header announces, without those that may not follow
// a body.
func trailerNames(h http.Header) []string {
	var names []string
	for name := range strings.SplitSeq(strings.Join(h["Trailer"], ","), ",") {
		if name = http.CanonicalHeaderKey(textproto.TrimString(name)); name != "" && httpguts.ValidTrailerHeader(name) {
			names = append(names, name)
		}
	}
	return names
}

// trailersOf returns what of a handler's headers follows the body: what was announced, and what is marked.
func trailersOf(h http.Header, announced []string) http.Header {
	out := make(http.Header)
	for _, name := range announced {
		if v := h[name]; v != nil {
			out[name] = v
		}
	}
	for name, values := range h {
		if name, marked := strings.CutPrefix(name, http.TrailerPrefix); marked {
			out[name] = values
		}
	}
	return out
}

// hasMarked reports whether a header is marked as a trailer.
func hasMarked(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// merge adds src to dst.
func merge(dst, src http.Header) http.Header {
	if dst == nil {
		return src
	}
	maps.Copy(dst, src)
	return dst
}
