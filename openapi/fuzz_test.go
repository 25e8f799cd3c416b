package openapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
	"github.com/org/watt/openapi"
)

// FuzzMerge: whatever an app's document is, the other app's is served; what the library finds valid in it is valid in
// the merged document too; and nothing panics.
func FuzzMerge(f *testing.F) {
	for _, test := range hostile() {
		if len(test.text) < 10000 {
			f.Add(test.text)
		}
	}
	f.Add(aliases(3))
	f.Add(api("3.0.3", `"security":[{"k":[]}],"tags":[{"name":"t"}],"servers":[{"url":"/v1"}],"paths":{"/a~b/{id}":{
		"parameters":[{"$ref":"#/components/parameters/Id"}],"get":{"operationId":"o","responses":{"200":{"$ref":"#/components/responses/R"}}}}},
		"components":{"securitySchemes":{"k":{"type":"http","scheme":"basic"}},
		"parameters":{"Id":{"name":"id","in":"path","required":true,"schema":{"type":"string","nullable":true}}},
		"responses":{"R":{"description":"d","content":{"a/b":{"schema":{"oneOf":[{"$ref":"#/components/schemas/S"}],
			"discriminator":{"propertyName":"k","mapping":{"s":"S"}}}}},"links":{"l":{"operationId":"o","parameters":{"id":"x"}}}}},
		"schemas":{"S":{"type":"object","properties":{"k":{"$ref":"#/components/schemas/K"}}},"K":{"type":"string"}}}`))
	f.Fuzz(func(t *testing.T, text string) {
		core, logs := observer.New(zapcore.WarnLevel)
		rt := watt.New()
		rt.Logger = zap.New(core)
		h := openapi.New(rt.Env(), openapi.Document{MaxBytes: 10000, Apps: []openapi.App{
			{Name: "any", Data: []byte(text)}, {Name: "good", Data: []byte(small())},
		}})
		body, err := h.JSON(t.Context())
		var doc tree
		if err != nil || json.Unmarshal(body, &doc) != nil || doc.at("/paths/~1good~1x") != "{}" {
			t.Fatalf("got %s, %v without the other app", body, err)
		}
		for _, line := range logs.All() {
			if text, _ := line.ContextMap()["error"].(string); strings.Contains(text, "panic") {
				t.Error(text)
			}
		}
		if slow := len(text) > 2000 || strings.Count(text, "callbacks") > 2 || strings.Contains(text, "*"); slow || fault(t, text) != nil {
			return
		}
		if err := fault(t, string(body)); err != nil {
			t.Errorf("got %s: %v", body, err)
		}
	})
}
