package openapi

import (
	"encoding/json"
	"net/url"
	"strings"
)

// rewriter changes a valid document of one app, in place, to what it is at the gateway.
type rewriter struct {
	app     string
	prefix  string   // of the app's URLs at the gateway
	base    string   // of its paths there
	self    *url.URL // where the document is
	old     bool     // it is of OpenAPI 3.0
	schemas map[string]any

	security     []any // what operations demand that say nothing of it, or nil
	securitySize int

	elsewhere bool // in a callback or webhook, whose servers are not the app's

	room int64 // bytes that may be added
	err  error // the first thing that cannot be expressed
}

func (r *rewriter) fail(reason, format string, args ...any) {
	if r.err == nil {
		r.err = missing(reason, format, args...)
	}
}

// grow reports whether n more bytes may be added: what is once in a document can be due in many places.
func (r *rewriter) grow(n int) bool {
	if r.room -= int64(n); r.room < 0 {
		r.fail(tooLarge, "too much security, or too many discriminators")
	}
	return r.room >= 0
}

// name returns what a name is called in the merged document. The names of apps have no underscores, so
// that no two names of two apps become the same.
func (r *rewriter) name(name string) string { return r.app + "_" + name }

func (r *rewriter) value(v any, k kind) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			r.value(item, k)
		}
	case map[string]any:
		r.object(v, k)
	}
}

func (r *rewriter) object(o map[string]any, k kind) {
	if k == callback {
		defer func(was bool) { r.elsewhere = was }(r.elsewhere)
		r.elsewhere = true
	}
	r.itself(o, k)
	for name, value := range o {
		text, isText := value.(string)
		child := k.of(name, value)
		switch {
		case isText && !k.named():
			o[name] = r.text(name, text)
		case name == "externalDocs" && !k.named():
			if docs, ok := value.(map[string]any); ok {
				text, _ = docs["url"].(string)
				docs["url"] = r.url(text)
			}
		case child != data:
			r.value(value, child)
		}
	}
}

// itself changes what takes more than one look at one field of an object.
func (r *rewriter) itself(o map[string]any, k kind) {
	if ref, ok := reference(o, k); ok && r.old && k != pathItem {
		clear(o) // 3.0 ignores what stands beside it, later versions do not
		o["$ref"] = ref
	}
	if k == schema {
		r.schema(o)
	}
	if k == operation {
		r.operation(o)
	}
	if k == link {
		delete(o, "server") // the gateway is
	}
	if !r.elsewhere && (k == operation || k == pathItem) {
		delete(o, "servers") // likewise
	}
}

// text returns what a field says at the gateway.
func (r *rewriter) text(field, text string) string {
	switch field {
	case "$ref", "operationRef":
		return r.ref(text)
	case "operationId":
		return r.name(text)
	case "$dynamicRef":
		r.fail(unsupported, "a $dynamicRef")
	case "externalValue", "authorizationUrl", "tokenUrl", "refreshUrl", "openIdConnectUrl":
		return r.url(text)
	}
	return text
}

// ref returns where something is in the merged document that ref points to in the app's.
func (r *rewriter) ref(ref string) string {
	section, rest, _ := strings.Cut(strings.TrimPrefix(ref, "#/"), "/")
	switch kind, name, _ := strings.Cut(rest, "/"); {
	case !strings.HasPrefix(ref, "#/") || rest == "":
	case section == "components" && name != "":
		return "#/components/" + kind + "/" + r.name(name)
	case section == "webhooks":
		return "#/webhooks/" + r.name(rest)
	case section == "paths":
		return "#/paths/" + strings.NewReplacer("~", "~0", "/", "~1", "%", "%25").Replace(r.base) + rest
	}
	r.fail(unsupported, "a reference to what has no place in the merged document: %q", ref)
	return ref
}

// url returns the URL at the gateway of what the app has at one of its own. Others stay.
func (r *rewriter) url(text string) string {
	u, err := r.self.Parse(text)
	if err != nil || text == "" || !strings.EqualFold(u.Hostname(), r.self.Host) {
		return text
	}
	u.Scheme, u.User, u.Host = "", nil, ""
	return r.prefix + u.String()
}

// operation makes explicit what an operation has from its document.
func (r *rewriter) operation(o map[string]any) {
	tags, _ := o["tags"].([]any)
	for i, tag := range tags {
		name, _ := tag.(string)
		tags[i] = r.name(name)
	}
	if len(tags) == 0 {
		o["tags"] = []any{r.app}
	}
	if own, ok := o["security"]; ok {
		o["security"] = r.requirements(own)
	} else if r.security != nil && r.grow(r.securitySize) {
		o["security"] = r.security
	}
}

// demand notes what a document demands of all operations.
func (r *rewriter) demand(v any) {
	if v != nil {
		r.security = r.requirements(v)
		text, _ := json.Marshal(r.security) //nolint:errchkjson // it was JSON
		r.securitySize = len(text)
	}
}

// requirements returns what is demanded, with the names of security schemes changed.
func (r *rewriter) requirements(v any) []any {
	list, _ := v.([]any)
	out := make([]any, len(list))
	for i, item := range list {
		schemes, _ := item.(map[string]any)
		named := make(map[string]any, len(schemes))
		for scheme, scopes := range schemes {
			named[r.name(scheme)] = scopes
		}
		out[i] = named
	}
	return out
}
