package pyramid

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
)

// values are the parameters of a request.
type values struct {
	request *http.Request
	route   *chi.Context // nil without chi
	query   url.Values   // parsed when first needed
}

// find returns the value of a parameter, decoded: the route's or else the query's. If there is none,
// status says whose fault that is.
func (v *values) find(name string, status int) (string, error) {
	value, known, err := v.routed(name)
	if err != nil || known {
		return value, err
	}
	if v.query == nil {
		v.query = v.request.URL.Query()
	}
	switch all := v.query[name]; {
	case len(all) > 0:
		return all[0], nil
	case status == http.StatusBadRequest:
		return "", badRequest("the request has no parameter " + name)
	}
	return "", fmt.Errorf("pyramid: neither the route %q nor the query has a parameter %q", v.request.Pattern, name)
}

// routed returns the value that the route has matched, and whether it has such a parameter.
func (v *values) routed(name string) (value string, known bool, err error) {
	value = v.request.PathValue(name)
	if i := v.ofChi(name); i >= 0 {
		raw := v.route.URLParams.Values[i]
		if value == "" || value == raw {
			value, err = v.decoded(raw)
			return value, true, err
		}
	}
	known = value != "" || strings.Contains(v.request.Pattern, "{"+name+"}") || strings.Contains(v.request.Pattern, "{"+name+"...}")
	return value, known, nil
}

// ofChi returns the index of the innermost of chi's parameters with that name, or -1.
func (v *values) ofChi(name string) int {
	if v.route == nil {
		return -1
	}
	for i, key := range slices.Backward(v.route.URLParams.Keys) {
		if key == name && i < len(v.route.URLParams.Values) {
			return i
		}
	}
	return -1
}

// decoded returns a value of chi's, which matches the path as it was sent if decoding has lost something
// of it, and no middleware has decoded it before. ServeMux's values always are decoded.
func (v *values) decoded(raw string) (string, error) {
	u := v.request.URL
	if u.RawPath == "" || !strings.Contains(u.RawPath, raw) || !asSent(u, v.route.RoutePath) {
		return raw, nil
	}
	value, err := url.PathUnescape(raw)
	if err != nil {
		return "", badRequest("the path is not escaped as it should be")
	}
	return value, nil
}
