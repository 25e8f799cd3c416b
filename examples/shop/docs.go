package main

import (
	"bytes"
	_ "embed" // what the page and the shop's own document are
	"html/template"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"

	"github.com/org/watt"
	"github.com/org/watt/openapi"
)

// document describes what no other app does.
//
//go:embed openapi.yaml
var document []byte

//go:embed docs.html
var docsPage string

// describe serves a description of all that the shop answers: to programs at /openapi.json, to people at /docs.
func describe(r chi.Router, env *watt.Env) {
	api := openapi.New(env, openapi.Document{
		Title: "The shop",
		Apps: []openapi.App{
			{Name: "pages", Prefix: "/", Data: document},
			{Name: "users"},
			{Name: "orders", Path: "/openapi.yaml"},
			{Name: "store", Path: "/openapi.yaml", Prefix: "/"},
		},
	})
	r.Handle("/openapi.json", api)
	r.Get("/docs", docs(api))
}

// docs answers with a page that needs no script, and nothing from elsewhere.
func docs(api *openapi.Handler) http.HandlerFunc {
	page := template.Must(template.New("docs").Funcs(template.FuncMap{"base": path.Base, "join": strings.Join}).Parse(docsPage))
	return func(w http.ResponseWriter, r *http.Request) {
		var doc *openapi3.T
		var out bytes.Buffer
		text, err := api.JSON(r.Context())
		if err == nil {
			doc, err = openapi3.NewLoader().LoadFromData(text)
		}
		if err == nil {
			err = page.Execute(&out, view{doc})
		}
		if err != nil {
			watt.WriteError(w, err)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		_, _ = out.WriteTo(w)
	}
}

// view is what the page shows.
type view struct{ *openapi3.T }

// group is a tag with its operations.
type group struct {
	*openapi3.Tag
	Operations []operation
}

// operation is an operation and where it is.
type operation struct {
	*openapi3.Operation
	Method, Path string
	Parameters   openapi3.Parameters // the path's too
}

// ID is the operation's own within the page.
func (o operation) ID() string { return strings.ToLower(o.Method) + o.Path }

// Groups returns the operations by their tags, without tags that have none.
func (v view) Groups() (groups []group) {
	for _, tag := range v.Tags {
		g := group{Tag: tag}
		for _, at := range slices.Sorted(maps.Keys(v.Paths.Map())) {
			item := v.Paths.Value(at)
			operations := item.Operations()
			for _, method := range slices.Sorted(maps.Keys(operations)) {
				if o := operations[method]; slices.Contains(o.Tags, tag.Name) {
					g.Operations = append(g.Operations, operation{o, method, at, slices.Concat(item.Parameters, o.Parameters)})
				}
			}
		}
		if len(g.Operations) > 0 {
			groups = append(groups, g)
		}
	}
	return groups
}
