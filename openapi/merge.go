package openapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3conv"
)

// part is a merged document, or what one app has in it.
type part struct {
	OpenAPI    string                    `json:"openapi"`
	Info       *openapi3.Info            `json:"info"`
	Missing    []absence                 `json:"x-watt-missing,omitempty"`
	Tags       openapi3.Tags             `json:"tags,omitempty"`
	Paths      map[string]any            `json:"paths"`
	Webhooks   map[string]any            `json:"webhooks,omitempty"`
	Components map[string]map[string]any `json:"components,omitempty"`
}

// absence is what strangers are told of an app that is left out.
type absence struct {
	App    string `json:"app"`
	Reason string `json:"reason"`
	Path   string `json:"path,omitempty"`
}

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
	p.Webhooks = r.renamed(tree["webhooks"], paths, r.name)
	for section, entries := range components {
		if k := plain.of(section, entries); k != data {
			p.Components[section] = r.renamed(entries, k, r.name)
		}
	}
	return p, r.err
}

// basePath returns what an app has before all its paths, without a slash at the end.
func basePath(doc *openapi3.T) (string, error) {
	if d := doc.JSONSchemaDialect; d != "" && !strings.HasPrefix(d, "https://spec.openapis.org/oas/3.") {
		return "", fmt.Errorf("the jsonSchemaDialect %q", d)
	}
	for path, item := range doc.Paths.Map() {
		servers := len(item.Servers)
		for _, o := range item.Operations() {
			if o.Servers != nil {
				servers += len(*o.Servers)
			}
		}
		if servers > 0 {
			return "", fmt.Errorf("%s has servers of its own", path)
		}
	}
	base, err := doc.Servers.BasePath()
	return strings.TrimRight(base, "/"), err
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

// merge returns what apps have together. Those with an error are missing; what becomes clear only now is added to errs.
func merge(about *openapi3.Info, sources []*source, parts []*part, errs []error) *part {
	m := &part{
		Info: about, Paths: make(map[string]any), Webhooks: make(map[string]any), Components: make(map[string]map[string]any),
	}
	for i, p := range parts {
		if errs[i] == nil {
			m.OpenAPI = max(m.OpenAPI, p.OpenAPI)
		}
	}
	m.OpenAPI = cmp.Or(m.OpenAPI, "3.1.0")
	owners := make(map[string]string) // of paths, by their outlines
	for i, s := range sources {
		if errs[i] == nil {
			errs[i] = m.join(s.app, parts[i], owners)
		}
		if errs[i] != nil {
			why := reasonOf(errs[i])
			m.Missing = append(m.Missing, absence{s.app, why.reason, why.path})
		}
	}
	return m
}

// join adds an app's part, unless one of its paths is there already.
func (m *part) join(app string, p *part, owners map[string]string) error {
	if p.OpenAPI < "3.1" && m.OpenAPI >= "3.1" {
		var err error
		if p, err = upgraded(p); err != nil {
			return err
		}
	}
	added := slices.Sorted(maps.Keys(p.Paths))
	for _, path := range added {
		if owner := owners[outline(path)]; owner != "" {
			return &missingError{reason: clash, path: path, err: fmt.Errorf("%s is also in the document of %s", path, owner)}
		}
	}
	for _, path := range added {
		owners[outline(path)] = app
	}
	m.Tags = append(m.Tags, p.Tags...)
	maps.Copy(m.Paths, p.Paths)
	maps.Copy(m.Webhooks, p.Webhooks)
	for section, entries := range p.Components {
		if m.Components[section] == nil {
			m.Components[section] = make(map[string]any)
		}
		maps.Copy(m.Components[section], entries)
	}
	return nil
}

// outline returns a path without the names of its parameters: where those alone differ, paths are the same.
func outline(path string) string {
	var out strings.Builder
	for {
		before, after, ok := strings.Cut(path, "{")
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		out.WriteByte('{')
		_, path, _ = strings.Cut(after, "}")
	}
}

// upgraded returns the same as 3.1 has it.
func upgraded(p *part) (*part, error) {
	data, err := encode(p)
	if err != nil {
		return nil, err
	}
	var doc openapi3.T
	if err := doc.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	openapi3conv.Upgrade(&doc)
	if data, err = doc.MarshalJSON(); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	p = new(part)
	return p, d.Decode(p)
}

// encode returns a document as JSON, always the same for the same.
func encode(p *part) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	err := e.Encode(p)
	return out.Bytes(), err
}
