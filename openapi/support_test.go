package openapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"go.uber.org/zap/zaptest"

	"github.com/org/watt"
	"github.com/org/watt/openapi"
	"github.com/org/watt/watttest"
)

// serving is an app that answers /openapi.json with text.
func serving(name, text string) watt.App {
	return watt.App{Name: name, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/openapi.json" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, text)
	})}
}

// gateway is an app in front of apps that answers everything with their merged document.
func gateway(d openapi.Document, apps ...watt.App) []watt.App {
	var calls []string
	for _, app := range apps {
		calls = append(calls, app.Name)
	}
	entry := watt.App{Name: "gateway", Calls: calls, New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
		return openapi.New(env, d), nil
	}}
	return append([]watt.App{entry}, apps...)
}

// tree is a document as encoding/json has it.
type tree map[string]any

// merge starts apps that serve texts, called a, b and so on, and returns their merged document. It must be valid.
func merge(t *testing.T, texts ...string) tree {
	t.Helper()
	var apps []watt.App
	var d openapi.Document
	for i, text := range texts {
		name := string(rune('a' + i))
		apps = append(apps, serving(name, text))
		d.Apps = append(d.Apps, openapi.App{Name: name})
	}
	rt := watt.New(gateway(d, apps...)...)
	rt.Logger = zaptest.NewLogger(t)
	return ask(t, watttest.Start(t, rt))
}

// ask returns the merged document of a gateway. It must be valid.
func ask(t *testing.T, top *watttest.Topology) tree {
	t.Helper()
	status, body := top.Get("http://gateway.watt.local/openapi.json")
	if status != http.StatusOK {
		t.Fatalf("got %d %s, want 200", status, body)
	}
	return valid(t, body)
}

// valid returns a document that the library has nothing against.
func valid(t *testing.T, text string) tree {
	t.Helper()
	if err := fault(t, text); err != nil {
		t.Fatalf("got an invalid document: %v\n%s", err, text)
	}
	var out tree
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// fault returns what the library has against a document, or nil. It may take its time.
func fault(t *testing.T, text string) error {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData([]byte(text))
	if err != nil {
		return err
	}
	return doc.Validate(t.Context(), openapi3.DisableExamplesValidation(), openapi3.DisableSchemaDefaultsValidation(),
		openapi3.DisableSchemaPatternValidation(), openapi3.AllowExtraSiblingFields("pathItems"))
}

// at returns what has a JSON pointer, as JSON, or "".
func (doc tree) at(pointer string) string {
	var v any = map[string]any(doc)
	for segment := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		name := strings.NewReplacer("~1", "/", "~0", "~").Replace(segment)
		switch at := v.(type) {
		case map[string]any:
			v = at[name]
		case []any:
			if i, err := strconv.Atoi(name); err == nil && i < len(at) {
				v = at[i]
			} else {
				v = nil
			}
		default:
			v = nil
		}
	}
	if v == nil {
		return ""
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// want fails the test for each pointer that has something else than it should. It has nothing where that is "".
func (doc tree) want(t *testing.T, want map[string]string) {
	t.Helper()
	for pointer, value := range want {
		if got := doc.at(pointer); got != value {
			t.Errorf("%s: got %s, want %s", pointer, got, value)
		}
	}
}

// missing returns who is left out, with the reasons.
func (doc tree) missing() string {
	list, _ := doc["x-watt-missing"].([]any)
	var all []string
	for _, item := range list {
		m, _ := item.(map[string]any)
		text := fmt.Sprint(m["app"], ": ", m["reason"])
		if m["path"] != nil {
			text += fmt.Sprint(" ", m["path"])
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// api is a document of a version with more fields.
func api(version, fields string) string {
	return `{"openapi":"` + version + `","info":{"title":"Title","version":"7"},` + fields + `}`
}

// ok is an operation's responses.
const ok = `"responses":{"200":{"description":"fine"}}`
