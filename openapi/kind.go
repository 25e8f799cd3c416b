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
	data               // the author's: whatever is in it refers to nothing
	schema             // and so is all that is in it, but data
	pathItem
	operation
	link
	callback // path items by expression

	// Objects whose fields the author names.
	plains
	responses
	schemas
	paths
	operations
	links
	callbacks
)

// of returns the kind of the value that an object of kind k has in a field.
func (k kind) of(name string, value any) kind {
	switch k {
	case data:
		return data
	case plains:
		return plain
	case schemas:
		return schema
	case operations:
		return operation
	case links:
		return link
	case callbacks:
		return callback
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
	return k.ofField(name, value)
}

// ofField is of for fields that mean the same wherever they are.
func (k kind) ofField(name string, value any) kind {
	_, isList := value.([]any)
	switch name {
	case "example", "default", "enum", "const", "value":
		return data
	case "examples":
		if isList { // a schema's
			return data
		}
		return plains
	case "parameters":
		if !isList { // components'
			return plains
		}
	case "content", "headers", "encoding", "requestBodies", "securitySchemes", "variables", "scopes", "mapping":
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

// named reports whether the author names the fields, so that none is a keyword.
func (k kind) named() bool { return k == data || k >= plains }
