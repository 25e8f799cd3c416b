package openapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/openapi"
	"github.com/org/watt/watttest"
)

// series is n entries of a table, in which each is told its number and the next one's.
func series(n int, format string) string {
	var out strings.Builder
	for i := range n {
		out.WriteString(strings.NewReplacer("THIS", fmt.Sprint("E", i), "NEXT", fmt.Sprint("E", i+1)).Replace(format))
		out.WriteByte(',')
	}
	return out.String()
}

// schemas is a document with component schemas, which "Last" ends.
func schemas(entries string) string {
	return api("3.1.0", `"paths":{},"components":{"schemas":{`+entries+`"Last":{}}}`)
}

// operations is a document with n paths, and more.
func operations(n int, operation, more string) string {
	return api("3.1.0", `"paths":{`+series(n, `"/THIS":{"get":`+operation+`}`)+`"/":{}},`+more)
}

// aliases is a document in YAML whose aliases double n times what they stand for.
func aliases(n int) string {
	var out strings.Builder
	out.WriteString("openapi: 3.1.0\ninfo: {title: t, version: '1'}\npaths: {}\ncomponents:\n  schemas:\n    E0: &E0 {type: string}\n")
	for i := range n {
		fmt.Fprintf(&out, "    E%d: &E%d {properties: {a: *E%d, b: *E%d}}\n", i+1, i+1, i, i)
	}
	return out.String()
}

// hostile are documents that could keep the gateway busy, fill its memory, or lead it elsewhere, with what is to
// become of them.
func hostile() map[string]struct{ text, want string } {
	const op = `{` + ok + `}`
	long := strings.Repeat("a", 200000)
	twice := `{"x":{"$ref":"#/components/callbacks/NEXT"},"y":{"$ref":"#/components/callbacks/NEXT"}}`
	return map[string]struct{ text, want string }{
		"nothing":      {"", "invalid"},
		"null":         {"null", "invalid"},
		"a list":       {"[]", "invalid"},
		"no paths":     {strings.Replace(schemas(""), `"paths":{},`, "", 1), ""},
		"no YAML":      {"a: b: c", "invalid"},
		"no UTF-8":     {"\xff\xfe\x00", "invalid"},
		"2.0":          {`{"swagger":"2.0","info":{"title":"t","version":"1"},"paths":{}}`, "invalid"},
		"4.0":          {api("4.0.0", `"paths":{}`), "invalid"},
		"no version":   {`{"info":{"title":"t","version":"1"},"paths":{}}`, "invalid"},
		"wrong types":  {api("3.1.0", `"paths":[],"components":7`), "invalid"},
		"no parameter": {api("3.0.3", `"paths":{"/{id}":{"get":`+op+`}}`), "invalid"},
		"no scheme":    {api("3.0.3", `"paths":{},"security":[{"nobody":[]}]`), "invalid"},
		"not a number": {"openapi: 3.1.0\ninfo: {title: t, version: '1'}\npaths: {}\nx-a: .nan", "invalid"},

		"deep lists":    {api("3.1.0", `"paths":{},"x-a":`+strings.Repeat("[", 9000)+strings.Repeat("]", 9000)), "too-large"},
		"deeper lists":  {api("3.1.0", `"paths":{},"x-a":`+strings.Repeat("[", 400000)+strings.Repeat("]", 400000)), "invalid"},
		"deep YAML":     {"openapi: 3.1.0\nx-a: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "too-large"},
		"deep schemas":  {schemas(`"Deep":` + strings.Repeat(`{"not":`, 9000) + "{}" + strings.Repeat("}", 9000) + ","), "too-large"},
		"many bytes":    {api("3.1.0", `"paths":{},"x-a":"`+strings.Repeat("a", 1<<20)+`"`), "too-large"},
		"aliases":       {aliases(40), "invalid"},
		"many keys":     {"openapi: 3.1.0\ninfo: {title: t, version: '1'}\npaths: {}\nx-a: {" + series(70000, "THIS: 1") + "}\ncomponents: {schemas: {Last: {}}}\n", ""},
		"a key twice":   {"openapi: 3.1.0\ninfo: {title: t, version: '1'}\npaths: {}\npaths: {}\n", "invalid"},
		"a key's alias": {"openapi: 3.1.0\ninfo: {title: t, version: '1'}\nx-a: &a paths\npaths: {}\n*a : {}\n", "invalid"},
		"many schemas":  {schemas(`"Many":{"allOf":[` + strings.Repeat("{},", 300000) + "{}]},"), "too-large"},

		"itself":               {schemas(`"Self":{"$ref":"#/components/schemas/Self"},`), "invalid"},
		"each other":           {schemas(`"A":{"$ref":"#/components/schemas/B"},"B":{"$ref":"#/components/schemas/A"},`), "invalid"},
		"itself, further down": {schemas(`"Self":{"properties":{"x":{"$ref":"#/components/schemas/Self/properties/x"}}},`), "invalid"},
		"in itself":            {schemas(`"List":{"properties":{"next":{"$ref":"#/components/schemas/List"}}},`), ""},
		"a path itself":        {api("3.1.0", `"paths":{"/x":{"$ref":"#/paths/~1x"}}`), "too-large"},
		"a response itself":    {api("3.1.0", `"paths":{},"components":{"responses":{"A":{"$ref":"#/components/responses/A"}}}`), "too-large"},
		"a long way":           {schemas(series(15000, `"THIS":{"$ref":"#/components/schemas/NEXT"}`) + `"E15000":{},`), "invalid"},
		"a long chain":         {schemas(series(10000, `"THIS":{"properties":{"x":{"$ref":"#/components/schemas/NEXT"}}}`) + `"E10000":{},`), ""},
		"doubled schemas":      {schemas(series(60, `"THIS":{"allOf":[{"$ref":"#/components/schemas/NEXT"},{"$ref":"#/components/schemas/NEXT"}]}`) + `"E60":{},`), ""},
		"doubled callbacks": {api("3.1.0", `"paths":{},"components":{"callbacks":{`+series(40, `"THIS":{"x":{"get":{`+ok+`,"callbacks":`+twice+`}}}`)+
			`"E40":{"x":{"get":`+op+`}}}}`), "too-large"},
		"doubled paths": {api("3.1.0", `"paths":{`+series(40, `"/THIS":{"get":{`+ok+`,"callbacks":{
			"x":{"x":{"$ref":"#/paths/~1NEXT"}},"y":{"x":{"$ref":"#/paths/~1NEXT"}}}}}`)+`"/E40":{"get":`+op+`}}`), "too-large"},
		"a response again and again": {operations(5000, `{"responses":{"200":{"$ref":"#/components/responses/R"}}}`,
			`"components":{"responses":{"R":{"description":"`+strings.Repeat("a", 500000)+`"}}}`), "too-large"},
		"schemas again and again": {operations(200, `{"responses":{"200":{"$ref":"#/components/responses/R"}}}`,
			`"components":{"responses":{"R":{"description":"d","content":{"a/b":{"schema":{"allOf":[`+strings.Repeat("{},", 2000)+`{}]}}}}}}`), "too-large"},
		"lists again and again": {operations(200, `{"responses":{"200":{"$ref":"#/components/responses/R"}}}`,
			`"components":{"responses":{"R":{"description":"d","x-a":[`+strings.Repeat("[],", 2000)+`[]]}}}`), "too-large"},
		"a long name again and again": {operations(6000, `{"responses":{"200":{"$ref":"#/components/responses/R"}}}`,
			`"components":{"responses":{"R":{"$ref":"#/components/responses/`+long+`"},"`+long+`":{"description":"d"}}}`), "too-large"},
		"heirs again and again": {schemas(series(4000, `"THIS":{"discriminator":{"propertyName":"x"}}`) +
			`"Heir":{"allOf":[` + series(4000, `{"$ref":"#/components/schemas/THIS"}`) + `{}]},
			"LastHeir":{"allOf":[` + strings.Repeat(`{"$ref":"#/components/schemas/Heir"},`, 14000) + `{}]},`), "too-large"},
		"security again and again": {operations(9000, op, `"security":[{"`+strings.Repeat("a", 100000)+`":[]}],
			"components":{"securitySchemes":{"`+strings.Repeat("a", 100000)+`":{"type":"http","scheme":"basic"}}}`), "too-large"},
		"discriminators again and again": {schemas(series(5000, `"THIS":{"allOf":[{"$ref":"#/components/schemas/NEXT"}],"discriminator":{"propertyName":"x"}}`) +
			`"E5000":{"discriminator":{"propertyName":"x"}},`), "too-large"},

		"a file":                 {schemas(`"A":{"$ref":"file:///etc/passwd"},`), "invalid"},
		"a file beside":          {schemas(`"A":{"$ref":"other.json#/components/schemas/A"},`), "invalid"},
		"a file in the YAML":     {"openapi: 3.1.0\ninfo: {title: t, version: '1'}\npaths: {/x: {$ref: /etc/passwd}}\n", "invalid"},
		"a URL":                  {schemas(`"A":{"$ref":"TRAP#/A"},`), "invalid"},
		"a URL in a path":        {api("3.1.0", `"paths":{"/x":{"$ref":"TRAP"}}`), "invalid"},
		"a URL in a response":    {operations(1, `{"responses":{"200":{"$ref":"TRAP"}}}`, `"components":{}`), "invalid"},
		"a URL for a value":      {schemas(`"A":{"oneOf":[{"type":"string"}],"discriminator":{"propertyName":"x","mapping":{"a":"TRAP"}}},`), "unsupported"},
		"a URL in a link":        {operations(1, `{"responses":{"200":{"description":"d","links":{"a":{"operationRef":"TRAP"}}}}}`, `"components":{}`), "unsupported"},
		"a URL of a dialect":     {schemas(`"A":{"$schema":"TRAP","default":1,"example":2},`), ""},
		"a URL for the dialect":  {api("3.1.0", `"paths":{},"jsonSchemaDialect":"TRAP"`), "unsupported"},
		"a URL of an identifier": {schemas(`"A":{"$id":"TRAP","properties":{"x":{"$ref":"other"}}},`), "invalid"},

		"not there":            {schemas(`"A":{"$ref":"#/components/schemas/B"},`), "invalid"},
		"another kind":         {schemas(`"A":{"$ref":"#/paths"},`), "invalid"},
		"an example":           {schemas(`"A":{"example":{"type":"string"}},"B":{"$ref":"#/components/schemas/A/example"},`), "invalid"},
		"an extension":         {schemas(`"A":{"x-a":{"type":"string"}},"B":{"$ref":"#/components/schemas/A/x-a"},`), "invalid"},
		"a place of no kind":   {api("3.1.0", `"paths":{"/x":{"$ref":"#/info/paths/x"}}`), "invalid"},
		"a number in a list":   {schemas(`"A":{"allOf":[{}]},"B":{"$ref":"#/components/schemas/A/allOf/1"},`), "invalid"},
		"a dynamic reference":  {schemas(`"A":{"$dynamicRef":"#x"},`), "unsupported"},
		"servers of a path":    {api("3.1.0", `"paths":{"/x":{"servers":[{"url":"/v2"}],"get":`+op+`}}`), "unsupported"},
		"servers of one":       {operations(1, `{`+ok+`,"servers":[{"url":"https://example.com/v2"}]}`, `"components":{}`), "unsupported"},
		"a server of no place": {api("3.1.0", `"paths":{},"servers":[{"url":"::"}]`), "unsupported"},
	}
}

func TestHostileDocumentsAreHarmless(t *testing.T) {
	asked := make(chan string, 100)
	trap := serving("trap", "{}")
	trap.Listen = "127.0.0.1:0"
	trap.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.String() })
	traps := watttest.Start(t, watt.New(trap))
	for name, test := range hostile() {
		text := strings.ReplaceAll(test.text, "TRAP", traps.URL("trap"))
		d := openapi.Document{Apps: []openapi.App{{Name: "bad"}, {Name: "good"}}, Timeout: time.Minute}
		rt := watt.New(gateway(d, serving("bad", text), serving("good", api("3.1.0", `"paths":{"/x":{}}`)))...)
		start := time.Now()
		status, body := watttest.Start(t, rt).Get("http://gateway.watt.local/openapi.json")
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		if !strings.Contains(body, `"/good/x":{}`) || status != http.StatusOK {
			t.Errorf("%s: got %d %.200s without the other app", name, status, body)
		}
		want := fmt.Sprintf(`"x-watt-missing":[{"app":"bad","reason":%q}]`, test.want)
		if test.want == "" {
			want = `"bad_Last":{}`
		}
		if !strings.Contains(body, want) {
			t.Errorf("%s: got %.300s, want %s", name, body, want)
		}
	}
	select {
	case url := <-asked:
		t.Errorf("a document made the gateway ask for %s", url)
	default:
	}
}
