package openapi

import (
	"context"
	"fmt"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// newPart returns what an app's document is in the merged one.
func newPart(ctx context.Context, s *source, text []byte) (*part, error) {
	tree, err := parse(text)
	if err != nil {
		return nil, err
	}
	doc, err := check(ctx, tree, s.maxBytes)
	if err != nil {
		return nil, err
	}
	base, err := basePath(doc)
	if err != nil {
		return nil, missing(unsupported, "%w", err)
	}
	r := &rewriter{app: s.app, prefix: s.prefix, base: s.prefix + base, self: s.url, old: !doc.IsOpenAPI31OrLater(), room: s.maxBytes}
	components, _ := tree["components"].(map[string]any)
	r.schemas, _ = components["schemas"].(map[string]any)
	r.demand(tree["security"])
	r.inherit()
	p := &part{OpenAPI: doc.OpenAPI, Tags: r.tags(doc), Components: make(map[string]map[string]any)}
	p.Paths = r.renamed(tree["paths"], paths, func(path string) string { return r.base + path })
	for section, entries := range components {
		if k := plain.of(section, entries); k != data {
			p.Components[section] = r.renamed(entries, k, r.name)
		}
	}
	r.elsewhere = true
	p.Webhooks = r.renamed(tree["webhooks"], paths, r.name)
	return p, r.err
}

// basePath returns what an app has before all its paths, without a slash at the end.
func basePath(doc *openapi3.T) (string, error) {
	if d := doc.JSONSchemaDialect; d != "" && !strings.HasPrefix(d, "https://spec.openapis.org/oas/3.") {
		return "", fmt.Errorf("the jsonSchemaDialect %q", d)
	}
	base, err := doc.Servers.BasePath()
	base = strings.TrimRight(base, "/")
	for path, item := range doc.Paths.Map() {
		all := []openapi3.Servers{item.Servers}
		for _, o := range item.Operations() {
			if o.Servers != nil {
				all = append(all, *o.Servers)
			}
		}
		for _, servers := range all {
			own, err := servers.BasePath()
			if len(servers) > 0 && (err != nil || strings.TrimRight(own, "/") != base) {
				return "", fmt.Errorf("%s has a server with another path", path)
			}
		}
	}
	return base, err
}

// renamed returns the entries of a table, changed, by their new names.
func (r *rewriter) renamed(v any, k kind, name func(string) string) map[string]any {
	entries, _ := v.(map[string]any)
	r.object(entries, k)
	out := make(map[string]any, len(entries))
	for key, entry := range entries {
		if k.of(key, entry) != data {
			out[name(key)] = entry
		}
	}
	return out
}

// tags returns the tags of a document, after one for the app itself.
func (r *rewriter) tags(doc *openapi3.T) openapi3.Tags {
	about := strings.TrimSpace(doc.Info.Title + "\n\n" + doc.Info.Description)
	tags := openapi3.Tags{{Name: r.app, Description: about, ExternalDocs: doc.ExternalDocs}}
	for _, tag := range doc.Tags {
		tag.Name = r.name(tag.Name)
		tags = append(tags, tag)
	}
	for _, tag := range tags {
		if tag.ExternalDocs != nil {
			tag.ExternalDocs.URL = r.url(tag.ExternalDocs.URL)
		}
	}
	return tags
}
