package pyramid

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/org/watt"
)

// prefixKey is the context key of what was taken from the front of a request's path.
type prefixKey struct{}

// prefixOf returns what r's path had in front of below when the request came in, in escaped form and without
// a slash at the end, or "" if they have nothing to do with each other.
func prefixOf(r *http.Request, below string) string {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		return ""
	}
	// Both are cleaned, since a middleware may have cleaned what was routed.
	prefix, ok := strings.CutSuffix(path.Clean("/"+u.EscapedPath()), strings.TrimSuffix(path.Clean(below), "/"))
	if prefix = strings.Trim(prefix, "/"); !ok || prefix == "" {
		return ""
	}
	return "/" + prefix // and never "//", which would be a host
}

// restore makes an answer of the app's fit the request of the client's.
func (p *proxy) restore(resp *http.Response) error {
	ctx := context.Background()
	if resp.Request != nil {
		ctx = resp.Request.Context()
	}
	prefix, _ := ctx.Value(prefixKey{}).(string)
	for _, name := range []string{"Location", "Content-Location"} {
		for i, v := range resp.Header[name] {
			resp.Header[name][i] = p.outward(v, prefix)
		}
	}
	for i, v := range resp.Header["Set-Cookie"] {
		resp.Header["Set-Cookie"][i] = outwardCookie(v, prefix)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body = &download{resp.Body, ctx}
	}
	return nil
}

// outward returns a reference in the app's words as the client must see it.
func (p *proxy) outward(ref, prefix string) string {
	if strings.HasPrefix(ref, "/") && !strings.HasPrefix(ref, "//") {
		return prefix + ref
	}
	rest := ref
	if scheme, after, ok := strings.Cut(ref, ":"); ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")) {
		rest = after // it may be the client's scheme: X-Forwarded-Proto tells that
	}
	rest, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return ref
	}
	end := strings.IndexAny(rest+"/", `/?#\`)
	if app, _ := watt.AppOf(rest[:end]); app != p.app {
		return ref
	}
	return prefix + "/" + strings.TrimLeft(rest[end:], "/\\\t ") // more of them would begin a host again
}

// outwardCookie returns a cookie of the app's as the client must see it.
func outwardCookie(cookie, prefix string) string {
	attributes := strings.Split(cookie, ";")
	kept := attributes[:1]
	for _, a := range attributes[1:] {
		name, value, _ := strings.Cut(a, "=")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "domain":
			if inMesh(value) {
				continue
			}
		case "path":
			if strings.HasPrefix(value, "/") && prefix != "" && !bound(cookie) {
				a = " Path=" + strings.ReplaceAll(prefix, ";", "%3B") + strings.TrimSuffix(value, "/")
			}
		}
		kept = append(kept, a)
	}
	return strings.Join(kept, ";")
}

// inMesh reports whether a cookie's domain is a name that only the mesh knows.
func inMesh(domain string) bool {
	_, mesh := watt.AppOf("." + strings.Trim(domain, "."))
	return mesh
}

// bound reports whether a cookie is one for the whole host by its name, or none.
func bound(cookie string) bool {
	const mark = "__host-"
	cookie = strings.TrimLeft(cookie, " \t")
	return len(cookie) >= len(mark) && strings.EqualFold(cookie[:len(mark)], mark)
}

// download is the body of an answer. When the client has gone, that is why it cannot be read, which is no
// news.
type download struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // the request's
}

func (b *download) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		err = context.Canceled
	}
	return n, err
}
