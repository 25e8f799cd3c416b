package openapi

import "strings"

const schemaPointer = "#/components/schemas/"

// schema changes what an object of that kind has itself.
func (r *rewriter) schema(o map[string]any) {
	for _, name := range []string{"$id", "$anchor", "$dynamicAnchor"} {
		delete(o, name) // nothing refers to it, and two apps could have the same
	}
	d, _ := o["discriminator"].(map[string]any)
	r.imply(d, append(schemasIn(o["oneOf"]), schemasIn(o["anyOf"])...))
	mapping, _ := d["mapping"].(map[string]any)
	for value, v := range mapping {
		target, _ := v.(string)
		if _, named := r.schemas[target]; named {
			target = schemaPointer + target
		}
		mapping[value] = r.ref(target)
	}
}

// schemasIn returns the names of the component schemas that a list of schemas refers to.
func schemasIn(list any) (names []string) {
	items, _ := list.([]any)
	for _, item := range items {
		o, _ := item.(map[string]any)
		ref, _ := o["$ref"].(string)
		if name, ok := strings.CutPrefix(ref, schemaPointer); ok && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	return names
}

// imply adds to a discriminator's mapping the names of schemas that are values without being there: clients go on to
// send those, while the schemas get other names.
func (r *rewriter) imply(discriminator map[string]any, names []string) {
	if discriminator == nil || len(names) == 0 {
		return
	}
	mapping, ok := discriminator["mapping"].(map[string]any)
	if !ok {
		mapping = make(map[string]any, len(names))
		discriminator["mapping"] = mapping
	}
	known := make(map[any]bool, len(mapping))
	for _, target := range mapping {
		known[target] = true
	}
	for _, name := range names {
		_, taken := mapping[name]
		if !taken && !known[name] && !known[schemaPointer+name] && r.grow(2*len(name)+len(schemaPointer)) {
			mapping[name] = name
		}
	}
}

// inherit does that for discriminators of schemas that others have in their allOf, or have from one that does.
func (r *rewriter) inherit() {
	heirs := make(map[string][]string)
	for name, v := range r.schemas {
		o, _ := v.(map[string]any)
		for _, parent := range schemasIn(o["allOf"]) {
			heirs[parent] = append(heirs[parent], name)
		}
	}
	for name, v := range r.schemas {
		o, _ := v.(map[string]any)
		if d, ok := o["discriminator"].(map[string]any); ok && len(heirs[name]) > 0 {
			family, seen := []string{name}, map[string]bool{name: true}
			for i := 0; i < len(family) && r.grow(1+len(heirs[family[i]])); i++ {
				for _, heir := range heirs[family[i]] {
					if !seen[heir] {
						family, seen[heir] = append(family, heir), true
					}
				}
			}
			r.imply(d, family)
		}
	}
}
