package conformance_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
)

// framings is handlers whose headers say how their answer is framed, or leave it unsaid, well or badly.
func framings() []scenario {
	var out []scenario
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		for _, content := range []string{"", "hello, world", text(64 << 10)} {
			length := strconv.Itoa(len(content))
			for name, h := range map[string]http.Header{
				"no type":              {"Content-Type": nil},
				"no date":              {"Date": nil},
				"no length":            {"Content-Length": nil},
				"no coding":            {"Transfer-Encoding": nil},
				"no trailer":           {"Trailer": nil},
				"length twice":         {"Content-Length": {length, length}},
				"two lengths":          {"Content-Length": {length, length + "0"}},
				"length with a sign":   {"Content-Length": {"+" + length}},
				"length with zeros":    {"Content-Length": {"000" + length}},
				"negative length":      {"Content-Length": {"-1"}},
				"empty length":         {"Content-Length": {""}},
				"small length":         {"content-length": {length}},
				"small length, wrong":  {"content-length": {length + "0"}},
				"small type":           {"content-type": {"text/x"}},
				"small trailer":        {"trailer": {"X-T"}, "X-T": {"1"}},
				"coding and length":    {"Transfer-Encoding": {"identity"}, "Content-Length": {length}},
				"chunked":              {"Transfer-Encoding": {"chunked"}},
				"chunked, and length":  {"Transfer-Encoding": {"chunked"}, "Content-Length": {length}},
				"chunked twice":        {"Transfer-Encoding": {"chunked", "chunked"}},
				"chunked in odd case":  {"Transfer-Encoding": {"Chunked"}},
				"another coding":       {"Transfer-Encoding": {"gzip"}},
				"small coding, length": {"transfer-encoding": {"gzip"}, "Content-Length": {length}},
			} {
				out = append(out, scenario{
					name:    fmt.Sprintf("framing/%s %d %s", method, len(content), name),
					request: newRequest(method, "http://callee.test/"),
					handler: func(w http.ResponseWriter, _ *http.Request) {
						maps.Copy(w.Header(), h)
						io.WriteString(w, content)
					},
				})
			}
		}
	}
	return out
}

// queries is what may not be in a request's line.
func queries() []scenario {
	var out []scenario
	for name, query := range map[string]string{
		"space": "q=a b", "tab": "q=a\tb", "zero": "q=\x00", "DEL": "q=\x7f", "another line": "q=a\r\nX-Evil: 1", "umlaut": "q=ü", "no escape": "q=%zz",
	} {
		out = append(out, scenario{name: "query/" + name, handler: describe, request: get(func(r *http.Request) { r.URL.RawQuery = query })})
	}
	return out
}
