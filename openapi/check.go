package openapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v4"
)

// parse reads a document, in JSON or YAML, as encoding/json would.
func parse(data []byte) (map[string]any, error) {
	var tree map[string]any
	decode := fromYAML
	if json.Valid(data) {
		decode = fromJSON
	}
	if err := decode(data, &tree); err != nil {
		return nil, err
	}
	if tree == nil {
		return nil, errors.New("there is nothing in it")
	}
	return tree, nil
}

func fromJSON(data []byte, tree *map[string]any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(tree)
}

func fromYAML(data []byte, tree *map[string]any) error {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return err
	}
	if err := textual(&root); err != nil {
		return err
	}
	return root.Load(tree, yaml.WithUniqueKeys(false)) // textual has looked: the library compares each with each
}

// textual makes texts of what JSON has no other form for: keys, of which none may be there twice, and dates.
func textual(n *yaml.Node) error {
	if n.Kind == yaml.MappingNode {
		if err := textualKeys(n); err != nil {
			return err
		}
	}
	for _, child := range n.Content {
		if child.Kind == yaml.ScalarNode && child.ShortTag() == "!!timestamp" {
			child.Tag = "!!str"
		}
		if err := textual(child); err != nil {
			return err
		}
	}
	return nil
}

// textualKeys makes texts of the keys of an object, also of those that are aliases.
func textualKeys(object *yaml.Node) error {
	seen := make(map[string]bool)
	for i := 0; i < len(object.Content); i += 2 {
		key := object.Content[i]
		if key.Kind == yaml.AliasNode && key.Alias.Kind == yaml.ScalarNode {
			key = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key.Alias.Value, Line: key.Line}
			object.Content[i] = key
		}
		if key.Kind != yaml.ScalarNode {
			continue
		}
		if key.ShortTag() != "!!merge" {
			key.Tag = "!!str"
		}
		if seen[key.Value] {
			return fmt.Errorf("line %d: the key %q is there twice", key.Line, key.Value)
		}
		seen[key.Value] = true
	}
	return nil
}

// Limits of a document, references followed.
const (
	maxDepth = 100 // of its nesting
	weight   = 32  // that an object or a list has beside its text, in bytes: to the library even an empty schema is kilobytes
)

// check returns a valid document with what it refers to in place of references. size is how large the
// original may be.
//
// The library would follow references itself, but as often as it meets them and without a limit: a document
// of a few kilobytes can keep it busy for years. So it is given a copy without any.
func check(ctx context.Context, tree map[string]any, size int64) (*openapi3.T, error) {
	const followed = 4 // times as much
	version, _ := tree["openapi"].(string)
	c := &closing{tree: tree, old: version < "3.1", room: followed * size}
	closed := c.value(tree, plain, 0)
	if c.err != nil {
		return nil, c.err
	}
	text, err := json.Marshal(closed)
	if err != nil {
		return nil, err
	}
	var doc openapi3.T
	if err := doc.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	if doc.OpenAPIMajorMinor() == "" {
		return nil, fmt.Errorf("openapi %q is not a version of OpenAPI 3", version)
	}
	// Examples and defaults stay unchecked for one reason more than leniency: a checker for JSON Schema
	// would read files that $schema names.
	return &doc, doc.Validate(ctx, openapi3.DisableExamplesValidation(), openapi3.DisableSchemaDefaultsValidation(),
		openapi3.DisableSchemaPatternValidation(), openapi3.AllowExtraSiblingFields("pathItems"))
}

// closing copies a document with what it refers to in place of references. Schemas may contain themselves, and do
// not need each other to be valid: of a reference to one, only what stands beside it is left.
type closing struct {
	tree map[string]any
	old  bool  // of OpenAPI 3.0, which ignores what stands beside a $ref
	room int64 // bytes that the copy may still get
	err  error // the first
}

func (c *closing) fail(reason, format string, args ...any) {
	if c.err == nil {
		c.err = missing(reason, format, args...)
	}
}

func (c *closing) value(v any, k kind, depth int) any {
	if c.room--; c.room < 0 || depth > maxDepth {
		c.fail(tooLarge, "nested deeper than %d, or too much, with references followed", maxDepth)
	}
	if c.err != nil {
		return nil
	}
	switch v := v.(type) {
	case string:
		c.room -= int64(len(v))
	case json.Number:
		c.room -= int64(len(v))
	case []any:
		c.room -= weight
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = c.value(item, k, depth+1)
		}
		return out
	case map[string]any:
		return c.object(v, k, depth)
	}
	return v
}

func (c *closing) object(in map[string]any, k kind, depth int) map[string]any {
	c.room -= weight
	out := make(map[string]any, len(in))
	ref, isRef := reference(in, k)
	if isRef {
		c.room -= int64(len(ref)) // to follow a long one takes time
		target := c.find(ref, k)
		if k == schema && c.old {
			return out
		}
		if k != schema {
			closed, _ := c.value(target, k, depth+1).(map[string]any)
			if k != pathItem || closed == nil {
				return closed
			}
			out = closed // beside which a path item may have more
		}
	}
	for name, value := range in {
		if isRef && name == "$ref" {
			continue
		}
		c.room -= int64(len(name))
		out[name] = c.value(value, k.of(name, value), depth+1)
	}
	return out
}

// reference returns what an object of kind k refers to, if it is a reference.
func reference(o map[string]any, k kind) (ref string, ok bool) {
	if k.named() {
		return "", false
	}
	ref, ok = o["$ref"].(string)
	return ref, ok
}

// find returns the object that a reference to one of kind k means, and that is none itself if it is a schema.
func (c *closing) find(ref string, k kind) map[string]any {
	for range maxDepth {
		at, kindAt := c.lookup(ref)
		target, ok := at.(map[string]any)
		if !ok || kindAt != k {
			c.fail(invalid, "a reference to another document, to what is not there, or to something else: %q", ref)
			return nil
		}
		if ref, ok = reference(target, k); !ok || k != schema {
			return target
		}
	}
	c.fail(invalid, "a reference to itself, or to what is only behind %d others: %q", maxDepth, ref)
	return nil
}

// lookup returns what a reference means, nil if there is nothing, and of what kind that is.
func (c *closing) lookup(ref string) (any, kind) {
	pointer, local := strings.CutPrefix(ref, "#/")
	if !local {
		return nil, plain
	}
	var at any = c.tree
	k := plain
	for segment := range strings.SplitSeq(pointer, "/") {
		name := unescape(segment)
		switch v := at.(type) {
		case map[string]any:
			at = v[name]
			k = k.of(name, at)
		case []any:
			i, err := strconv.Atoi(name)
			if at = nil; err == nil && i >= 0 && i < len(v) {
				at = v[i]
			}
		default:
			return nil, k
		}
	}
	return at, k
}

// unescape returns a segment of a JSON pointer in a URL's fragment as it is.
func unescape(segment string) string {
	if plain, err := url.PathUnescape(segment); err == nil {
		segment = plain
	}
	return strings.NewReplacer("~1", "/", "~0", "~").Replace(segment)
}
