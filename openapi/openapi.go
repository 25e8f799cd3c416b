// Package openapi makes one OpenAPI 3 document of those of several apps, for a gateway in front of them.
//
//	func newGateway(_ context.Context, env *watt.Env) (http.Handler, error) {
//		r := chi.NewRouter()
//		r.Mount("/users", pyramid.Proxy(env, "users"))
//		r.Mount("/orders", pyramid.Proxy(env, "orders"))
//		r.Handle("/openapi.json", openapi.New(env, openapi.Document{
//			Title: "The shop",
//			Apps:  []openapi.App{{Name: "users"}, {Name: "orders"}},
//		}))
//		return r, nil
//	}
//
// # What an app provides
//
// A document of OpenAPI 3.0, 3.1 or 3.2, as JSON or YAML whatever its Content-Type, at a path of its own. It must
// stand alone: one with a $ref to another file or URL is not used, and nothing is ever fetched because a document
// says so. Examples, defaults and patterns are not checked. All that is in a document is published.
//
// # What becomes of it
//
// Paths get the gateway's prefix for the app, and after it the path of the document's first server; servers
// themselves are dropped, since the gateway is the server. Names get the app's in front, so that none of two apps
// clash: User becomes users_User. That holds for components, operationIds, tags and webhooks, and for all that refers
// to them. Where a discriminator's values are names of schemas, its mapping says so now. An operation without a tag
// gets the app's name as one. Security that a document demands of all its operations becomes that of each. URLs at the
// app, such as a relative tokenUrl, become paths at the gateway.
//
// If versions differ, the result has the highest, and schemas of 3.0 are changed to mean there what they meant. An
// app's license, contact, and extensions at the top of its document are dropped, and so are names that only a
// $dynamicRef could use; other extensions stay.
//
// # What is missing
//
// An app without a usable document is left out, whole, and logged. The extension x-watt-missing names it and the
// reason, and tells strangers nothing else:
//
//   - no-answer: it could not be called, or not in time
//   - no-document: it answered with something else than 200
//   - too-large: its document has too many bytes, is nested too deep, or becomes so when references are followed
//   - invalid: it is no valid document, or refers to another
//   - unsupported: it cannot be expressed in the merged document: a $ref to something else than a component, path or
//     webhook, a $dynamicRef, a jsonSchemaDialect, a path or operation whose server has another path than the
//     document's
//   - clash: a path is also that of an app before it, with the path; a parameter's name makes no difference
//
// # How it is made
//
// The library kin-openapi checks documents and brings them up to date. Its typed model is no good for renaming: it
// keeps to itself what stands beside a $ref, and numbers lose digits in it. So names are changed in the document's
// JSON, by the little of OpenAPI's grammar that tells a reference from an example.
package openapi

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/org/watt"
)

// Document describes the merged document.
type Document struct {
	// Title and Version are those of the result. If empty, the calling app's name and "1" are used.
	Title, Version string

	// Description of the result, in CommonMark. If empty, it has none.
	Description string

	// Apps are those whose documents are merged. Where two have the same path, the first has it.
	Apps []App

	// MaxAge is how long the result is used before the apps are asked again. If zero, 1 minute.
	MaxAge time.Duration

	// Timeout is how long the apps may take to answer, all of them together. If zero, 5 s.
	Timeout time.Duration

	// MaxBytes bounds the size of each app's document. With its references followed, except those to schemas, it
	// may have four times as much, for which each object and list counts 32 bytes more. If zero, 1 MiB.
	MaxBytes int64
}

// App is an app that has a document.
type App struct {
	// Name is its name in the mesh.
	Name string

	// Path is where it has its document. If empty, /openapi.json is used.
	Path string

	// Prefix is what the gateway has before the app's own paths. If empty, it is /<name>; "/" is none.
	Prefix string

	// Data is the document itself, for what the gateway answers itself; Name is then any that no app has. If nil, the
	// app is asked for it.
	Data []byte
}

// New returns a handler of the merged document.
//
// New panics if env is nil or d has mistakes, such as an app that can never be called: it is meant for
// [watt.App.New], whose panics are errors of the start. It calls nobody yet, and d may be changed afterwards.
func New(env *watt.Env, d Document) *Handler {
	if err := mistakes(env, d); err != nil {
		panic("openapi: New: " + err.Error())
	}
	h := &Handler{
		env:    env,
		info:   &openapi3.Info{Title: cmp.Or(d.Title, env.App, "API"), Version: cmp.Or(d.Version, "1"), Description: d.Description},
		maxAge: cmp.Or(d.MaxAge, time.Minute), timeout: cmp.Or(d.Timeout, 5*time.Second),
		turn: make(chan struct{}, 1),
	}
	for _, app := range d.Apps {
		h.sources = append(h.sources, newSource(env, app, cmp.Or(d.MaxBytes, 1<<20)))
	}
	return h
}

// mistakes returns all that is wrong with a description.
func mistakes(env *watt.Env, d Document) error {
	if env == nil {
		return errors.New("env is nil")
	}
	var wrong []error
	if len(d.Apps) == 0 {
		wrong = append(wrong, errors.New("there are no apps"))
	}
	if d.MaxAge < 0 || d.Timeout < 0 || d.MaxBytes < 0 {
		wrong = append(wrong, errors.New("MaxAge, Timeout and MaxBytes cannot be negative"))
	}
	seen := make(map[string]bool)
	for _, app := range d.Apps {
		if seen[app.Name] {
			wrong = append(wrong, fmt.Errorf("app %q is there twice", app.Name))
		}
		seen[app.Name] = true
		wrong = append(wrong, mistakesOf(env, app)...)
	}
	return errors.Join(wrong...)
}

func mistakesOf(env *watt.Env, app App) (wrong []error) {
	if app.Name == "" || strings.Trim(app.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		wrong = append(wrong, fmt.Errorf("%q is not the name of an app", app.Name))
	} else if err := env.Check(app.Name); app.Data == nil && (errors.Is(err, watt.ErrNoSuchApp) || errors.Is(err, watt.ErrNotAllowed)) {
		wrong = append(wrong, err)
	}
	if _, err := url.Parse(app.Path); err != nil || (app.Path != "" && !strings.HasPrefix(app.Path, "/")) {
		wrong = append(wrong, fmt.Errorf("app %q: Path %q is not a path", app.Name, app.Path))
	}
	if app.Prefix != "" && (!strings.HasPrefix(app.Prefix, "/") || strings.ContainsAny(app.Prefix, "{}?#%")) {
		wrong = append(wrong, fmt.Errorf("app %q: Prefix %q is not a path", app.Name, app.Prefix))
	}
	return wrong
}
