package openapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"

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
func outline(path string) string { return parameter.ReplaceAllString(path, "{}") }

var parameter = regexp.MustCompile(`\{[^}]*\}`)

// upgraded returns the same as 3.1 has it.
func upgraded(p *part) (*part, error) {
	data, err := json.Marshal(p)
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
