package pyramid

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/org/watt"
)

// defaultMaxBytes is how long the JSON of a part may be.
const defaultMaxBytes = 4 << 20

// Part is one part of a composed answer: what an app answers, or what a function returns. It is required,
// unless Optional or Default says otherwise.
type Part struct {
	// App is called with GET and Path, and answers with 2xx and JSON; 204 No Content counts as null.
	// Redirects are not followed.
	App string

	// Path begins with a slash and may have a query. {name} in it stands for the parameter of that name
	// of the route (with [http.ServeMux] or chi) or, if that has none, of the request's query. Values are
	// escaped, in the path as well as in the query; nothing else of the request's query is passed on.
	//
	// A value that would change the path's shape is answered with 400, as is a parameter in Path's
	// query that the request does not have. One in Path's path that is nowhere to be found is the
	// program's mistake: 500, and logged.
	Path string

	// Func, instead of App and Path, returns something that [json.Marshal] takes; a [json.RawMessage] is
	// passed on as it is. It is for gRPC, transformations, other methods than GET, and calls that
	// depend on one another. Its request is its own, without the body, and with a context that ends when the part's time
	// is up or its result no longer wanted. A panic fails the part and nothing else. Traces show the calls that it makes
	// with that context, and itself only by a span that it begins.
	Func func(r *http.Request) (any, error)

	// Timeout bounds the time that the part takes. If zero, it has what is left of the answer's.
	Timeout time.Duration

	// Optional parts are left out of the answer if they fail.
	Optional bool

	// Default, if not nil, stands in for the part if it fails. It is encoded once, by Compose.
	Default any

	// MaxBytes bounds the part's JSON. A longer answer is not read to its end. If zero, 4 MiB.
	MaxBytes int64

	// Coalesce lets identical calls that are in progress at the same time be one: those with the same
	// URL and the same headers passed on, Authorization and Cookie among them; only Traceparent, Tracestate
	// and X-Request-Id may differ, and are those of the first. The call goes on as long as somebody
	// waits for it.
	Coalesce bool
}

// part is a Part made ready.
type part struct {
	Part
	env      *watt.Env
	key      string
	name     []byte // the key in JSON, and a colon
	member   string // the key in X-Watt-Partial
	fallback []byte // Default in JSON; nil if there is none
	path     *template
	host     string // of the app
	shared   shared
	failures seldom
	fine     prometheus.Observer // of the time that the part took when it succeeded
}

func (p *part) required() bool { return !p.Optional && p.fallback == nil }

// newPart returns the part and all that is wrong with it.
func newPart(env *watt.Env, key string, declared Part) (*part, []string) {
	p := &part{Part: declared, env: env, key: key, member: member(key), host: declared.App + suffix}
	var wrong []string
	name, err := json.Marshal(key)
	if err != nil || key == "" || !utf8.ValidString(key) {
		wrong = append(wrong, "the name is empty or not UTF-8")
	}
	p.name = append(name, ':')
	if p.MaxBytes == 0 {
		p.MaxBytes = defaultMaxBytes
	}
	wrong = append(wrong, p.source()...)
	wrong = append(wrong, p.limits()...)
	for i, text := range wrong {
		wrong[i] = fmt.Sprintf("part %q: %s", key, text)
	}
	return p, wrong
}

// source checks where the part comes from, and compiles its path.
func (p *part) source() (wrong []string) {
	switch {
	case p.Func == nil && p.App == "" && p.Path == "":
		return []string{"it needs App and Path, or Func"}
	case p.Func != nil && (p.App != "" || p.Path != ""):
		return []string{"it has both App or Path and Func"}
	case p.Func != nil && p.Coalesce:
		return []string{"Coalesce is for calls of an App, not for Func"}
	case p.Func != nil:
		return nil
	}
	if err := callable(p.env, p.App); err != nil {
		wrong = append(wrong, "App: "+err.Error())
	}
	path, err := compile(p.Path)
	if err != nil {
		wrong = append(wrong, fmt.Sprintf("Path %q: %v", p.Path, err))
	}
	p.path = path
	return wrong
}

// limits checks the numbers, and encodes the default.
func (p *part) limits() (wrong []string) {
	if p.Timeout < 0 {
		wrong = append(wrong, fmt.Sprintf("Timeout is negative: %v", p.Timeout))
	}
	if p.MaxBytes < 0 {
		wrong = append(wrong, fmt.Sprintf("MaxBytes is negative: %d", p.MaxBytes))
	}
	if p.Default == nil {
		return wrong
	}
	if p.Optional {
		wrong = append(wrong, "it is Optional and has a Default")
	}
	fallback, err := encode(p.Default)
	if err != nil {
		wrong = append(wrong, "Default: "+err.Error())
	}
	p.fallback = slices.Clone(fallback) // which may be the caller's own bytes
	return wrong
}
