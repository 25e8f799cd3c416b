package openapi

import (
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// kind is what a value in a document is, as far as that matters to references and names.
type kind int

const (
	plain  kind = iota // of OpenAPI's, with fields that OpenAPI names
	schema             // and so is all that is in it, but data
	pathItem
	operation
	link
	callback // path items by expression

	// Objects whose fields the author names, but for extensions.
	responses
	paths

	// The same without extensions.
	data // the author's: whatever is in it refers to nothing
	plains
	schemas
	operations
	links
	callbacks
)

// named reports whether the author names the fields, so that none is a keyword.
func (k kind) named() bool { return k >= responses }

// of returns the kind of the value that an object of kind k has in a field.
func (k kind) of(name string, value any) kind {
	if k >= data {
		return [...]kind{data, plain, schema, operation, link, callback}[k-data]
	}
	if strings.HasPrefix(name, "x-") {
		return data
	}
	switch {
	case k == responses:
		return plain
	case k == paths, k == callback:
		return pathItem
	case k == pathItem && slices.Contains(openapi3.PathItemMethods(), strings.ToUpper(name)):
		return operation
	case k == link && (name == "parameters" || name == "requestBody"):
		return data
	}
	if _, isList := value.([]any); isList {
		return k.ofList(name)
	}
	return k.ofField(name)
}

// ofList is of for lists, whose items have the same kind: a list of parameters, a schema's examples.
func (k kind) ofList(name string) kind {
	if name == "examples" {
		return data
	}
	if of := k.ofField(name); of != plains {
		return of
	}
	return plain
}

// ofField is of for objects, where a field means the same wherever it is.
func (k kind) ofField(name string) kind {
	switch name {
	case "example", "default", "enum", "const", "value":
		return data
	case "parameters", "examples", "content", "headers", "encoding", "requestBodies", "securitySchemes", "variables", "scopes", "mapping":
		return plains
	case "schemas", "properties", "patternProperties", "dependentSchemas", "$defs", "definitions":
		return schemas
	case "schema", "itemSchema":
		return schema
	case "responses":
		return responses
	case "paths", "webhooks", "pathItems":
		return paths
	case "additionalOperations":
		return operations
	case "links":
		return links
	case "callbacks":
		return callbacks
	}
	if k == schema {
		return schema
	}
	return plain
}
