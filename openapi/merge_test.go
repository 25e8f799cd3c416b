package openapi_test

import (
	"fmt"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/openapi"
	"github.com/org/watt/watttest"
)

func TestNamesAndPathsOfTwoAppsDoNotClash(t *testing.T) {
	text := api("3.0.3", `
		"tags":[{"name":"things","description":"Things."}],
		"paths":{"/things/{id}":{
			"parameters":[{"$ref":"#/components/parameters/Id"}],
			"get":{"operationId":"thing","tags":["things"],
				"responses":{"200":{"$ref":"#/components/responses/Thing"},"default":{"$ref":"#/components/responses/Thing"}}},
			"put":{"operationId":"setThing","requestBody":{"$ref":"#/components/requestBodies/Thing"},`+ok+`}}},
		"components":{
			"schemas":{"Thing":{"type":"object","properties":{"parent":{"$ref":"#/components/schemas/Thing"}}}},
			"parameters":{"Id":{"name":"id","in":"path","required":true,"schema":{"type":"string"}}},
			"headers":{"Age":{"schema":{"type":"integer"}}},
			"examples":{"One":{"value":{"$ref":"#/components/schemas/Thing","default":1}}},
			"requestBodies":{"Thing":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Thing"}}}}},
			"responses":{"Thing":{"description":"a thing","headers":{"Age":{"$ref":"#/components/headers/Age"}},
				"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Thing"},
					"examples":{"one":{"$ref":"#/components/examples/One"}}}}}}}`)
	doc := merge(t, text, text)
	doc.want(t, map[string]string{
		"/openapi":        `"3.0.3"`,
		"/info":           `{"title":"gateway","version":"1"}`,
		"/x-watt-missing": "",
		"/tags": `[{"description":"Title","name":"a"},{"description":"Things.","name":"a_things"},` +
			`{"description":"Title","name":"b"},{"description":"Things.","name":"b_things"}]`,
		"/paths/~1a~1things~1{id}/parameters/0":                                          `{"$ref":"#/components/parameters/a_Id"}`,
		"/paths/~1b~1things~1{id}/get/operationId":                                       `"b_thing"`,
		"/paths/~1b~1things~1{id}/get/tags":                                              `["b_things"]`,
		"/paths/~1b~1things~1{id}/put/tags":                                              `["b"]`,
		"/paths/~1b~1things~1{id}/get/responses/default":                                 `{"$ref":"#/components/responses/b_Thing"}`,
		"/paths/~1b~1things~1{id}/get/responses/200":                                     `{"$ref":"#/components/responses/b_Thing"}`,
		"/paths/~1b~1things~1{id}/put/requestBody":                                       `{"$ref":"#/components/requestBodies/b_Thing"}`,
		"/components/schemas/b_Thing/properties/parent":                                  `{"$ref":"#/components/schemas/b_Thing"}`,
		"/components/parameters/a_Id/name":                                               `"id"`,
		"/components/responses/a_Thing/headers":                                          `{"Age":{"$ref":"#/components/headers/a_Age"}}`,
		"/components/responses/b_Thing/content/application~1json/examples/one":           `{"$ref":"#/components/examples/b_One"}`,
		"/components/responses/b_Thing/content/application~1json/schema":                 `{"$ref":"#/components/schemas/b_Thing"}`,
		"/components/requestBodies/b_Thing/content/application~1json/schema":             `{"$ref":"#/components/schemas/b_Thing"}`,
		"/components/examples/a_One/value" /* what authors say in examples is theirs */ : `{"$ref":"#/components/schemas/Thing","default":1}`,
	})
}

func TestSecurityOfADocumentIsThatOfItsOperations(t *testing.T) {
	schemes := `"components":{"securitySchemes":{"key":{"type":"apiKey","name":"k","in":"header"},"own":{"type":"http","scheme":"basic"}}}`
	doc := merge(t,
		api("3.0.3", `"security":[{"key":[],"own":[]},{"own":["x"]}],"paths":{"/x":{
			"get":{`+ok+`},"put":{"security":[{"own":[]}],`+ok+`},"post":{"security":[],`+ok+`},
			"patch":{"callbacks":{"done":{"{$request.body#/url}":{"post":{`+ok+`}}}},`+ok+`}}},`+schemes),
		api("3.0.3", `"paths":{"/x":{"get":{`+ok+`}}},`+schemes))
	doc.want(t, map[string]string{
		"/security":                   "",
		"/paths/~1a~1x/get/security":  `[{"a_key":[],"a_own":[]},{"a_own":["x"]}]`,
		"/paths/~1a~1x/put/security":  `[{"a_own":[]}]`,
		"/paths/~1a~1x/post/security": `[]`,
		"/paths/~1a~1x/patch/callbacks/done/{$request.body#~1url}/post/security": `[{"a_key":[],"a_own":[]},{"a_own":["x"]}]`,
		"/paths/~1b~1x/get/security":           "",
		"/components/securitySchemes/b_key/in": `"header"`,
	})
}

func TestReferencesFollowWhatTheyReferTo(t *testing.T) {
	doc := merge(t, api("3.1.0", `
		"servers":[{"url":"https://example.com/{version}/","variables":{"version":{"default":"v1"}}}],
		"paths":{
			"/x~y/{id}":{"parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"string"}}],
				"get":{"responses":{"200":{"description":"fine",
					"content":{"application/json":{"schema":{"type":"object"}}},
					"links":{
						"byId":{"operationId":"item","parameters":{"id":"$response.body#/$ref"},"requestBody":{"$ref":"nowhere"},"server":{"url":"http://x"}},
						"byRef":{"operationRef":"#/paths/~1x~0y~1%7Bid%7D/get"},
						"known":{"$ref":"#/components/links/Known"}}}}}},
			"/again/{id}":{"$ref":"#/paths/~1x~0y~1%7Bid%7D"},
			"/kept/{id}":{"$ref":"#/components/pathItems/Item"},
			"/plus/{id}":{"$ref":"#/components/pathItems/Bare","parameters":[{"name":"id","in":"path","required":true,"schema":{}}]},
			"x-paths":{"get":7},
			"/files":{"servers":[{"url":"https://files.example.com/v1"}],"put":{"servers":[{"url":"/v1/"}],`+ok+`}},
			"/deep":{"get":{"responses":{"200":{"description":"fine","content":{"application/json":{
				"schema":{"$ref":"#/paths/~1x~0y~1%7Bid%7D/get/responses/200/content/application~1json/schema","title":"beside"}}}}},
				"callbacks":{"done":{"$ref":"#/components/callbacks/Done"}}}}},
		"webhooks":{"news":{"servers":[{"url":"https://other/v3"}],"post":{"operationId":"news",`+ok+`}},"more":{"$ref":"#/webhooks/news"}},
		"components":{
			"links":{"Known":{"operationId":"item"}},
			"callbacks":{"Done":{"{$request.body#/url}":{"servers":[{"url":"https://other"}],"post":{"operationId":"done",`+ok+`}}}},
			"parameters":{"example":{"name":"e","in":"query","schema":{"$ref":"#/components/schemas/Id"}}},
			"pathItems":{"Bare":{"get":{`+ok+`}},"Item":{"parameters":[{"name":"id","in":"path","required":true,"schema":{"$ref":"#/components/schemas/Id"}}],
				"get":{"operationId":"item",`+ok+`}}},
			"schemas":{"Id":{"type":"string","$id":"https://example.com/id","$anchor":"id"},
				"Deep":{"not":{"$ref":"#/components/schemas/Id","properties":{"y":{"$ref":"#/components/schemas/Id"}}},"properties":{"default":{"$ref":"#/components/schemas/Id"},"example":{"type":"string",
					"default":{"$ref":"nowhere"}},"x-mine":{"$ref":"#/components/schemas/Id"}},"x-theirs":{"$ref":"nowhere"},
					"if":{"$ref":"#/components/schemas/Id"},"$defs":{"default":{"$ref":"#/components/schemas/Id"}},
					"prefixItems":[{"$ref":"#/components/schemas/Deep/properties/example"}],"examples":[{"x":{"$ref":"nowhere"}}]}}}`))
	doc.want(t, map[string]string{
		"/x-watt-missing": "",
		"/servers":        "",
		"/paths/~1a~1v1~1x~0y~1{id}/get/responses/200/links/byId":                 `{"operationId":"a_item","parameters":{"id":"$response.body#/$ref"},"requestBody":{"$ref":"nowhere"}}`,
		"/paths/~1a~1v1~1x~0y~1{id}/get/responses/200/links/byRef":                `{"operationRef":"#/paths/~1a~1v1~1x~0y~1%7Bid%7D/get"}`,
		"/paths/~1a~1v1~1x~0y~1{id}/get/responses/200/links/known":                `{"$ref":"#/components/links/a_Known"}`,
		"/paths/~1a~1v1~1again~1{id}/$ref":                                        `"#/paths/~1a~1v1~1x~0y~1%7Bid%7D"`,
		"/paths/~1a~1v1~1kept~1{id}/$ref":                                         `"#/components/pathItems/a_Item"`,
		"/paths/~1a~1v1~1deep/get/responses/200/content/application~1json/schema": `{"$ref":"#/paths/~1a~1v1~1x~0y~1%7Bid%7D/get/responses/200/content/application~1json/schema","title":"beside"}`,
		"/paths/~1a~1v1~1deep/get/callbacks/done":                                 `{"$ref":"#/components/callbacks/a_Done"}`,
		"/components/callbacks/a_Done/{$request.body#~1url}/post/operationId":     `"a_done"`,
		"/components/callbacks/a_Done/{$request.body#~1url}/servers":              `[{"url":"https://other"}]`,
		"/components/pathItems/a_Item/parameters/0/schema/$ref":                   `"#/components/schemas/a_Id"`,
		"/paths/~1a~1v1~1plus~1{id}/$ref":                                         `"#/components/pathItems/a_Bare"`,
		"/paths/x-paths":                                                          "",
		"/paths/~1a~1v1x-paths":                                                   "",
		"/components/parameters/a_example/schema/$ref":                            `"#/components/schemas/a_Id"`,
		"/components/links/a_Known/operationId":                                   `"a_item"`,
		"/webhooks/a_news/post/operationId":                                       `"a_news"`,
		"/paths/~1a~1v1~1files/servers":                                           "",
		"/paths/~1a~1v1~1files/put/servers":                                       "",
		"/webhooks/a_news/servers":                                                `[{"url":"https://other/v3"}]`,
		"/webhooks/a_more/$ref":                                                   `"#/webhooks/a_news"`,
		"/components/schemas/a_Id":                                                `{"type":"string"}`,
		"/components/schemas/a_Deep": `{"$defs":{"default":{"$ref":"#/components/schemas/a_Id"}},` +
			`"examples":[{"x":{"$ref":"nowhere"}}],"if":{"$ref":"#/components/schemas/a_Id"},` +
			`"not":{"$ref":"#/components/schemas/a_Id","properties":{"y":{"$ref":"#/components/schemas/a_Id"}}},` +
			`"prefixItems":[{"$ref":"#/components/schemas/a_Deep/properties/example"}],` +
			`"properties":{"default":{"$ref":"#/components/schemas/a_Id"},"example":{"default":{"$ref":"nowhere"},"type":"string"},` +
			`"x-mine":{"$ref":"#/components/schemas/a_Id"}},"x-theirs":{"$ref":"nowhere"}}`,
	})
}

func TestDiscriminatorsKeepTheirValues(t *testing.T) {
	doc := merge(t, api("3.0.3", `"paths":{},"components":{"schemas":{
		"Pet":{"type":"object","required":["kind"],"properties":{"kind":{"type":"string"}},"discriminator":{"propertyName":"kind"}},
		"Cat":{"allOf":[{"$ref":"#/components/schemas/Pet"},{"type":"object"}]},
		"Lion":{"allOf":[{"$ref":"#/components/schemas/Cat"}]},
		"Dog":{"allOf":[{"$ref":"#/components/schemas/Pet"}]},
		"Mapped":{"oneOf":[{"$ref":"#/components/schemas/Cat"},{"$ref":"#/components/schemas/Dog"},{"$ref":"#/components/schemas/Lion"}],
			"discriminator":{"propertyName":"kind","mapping":{"mieze":"Cat","dog":"#/components/schemas/Dog"}}},
		"Any":{"type":"object","properties":{"x":{"anyOf":[{"$ref":"#/components/schemas/Cat"},{"type":"object"}],"discriminator":{"propertyName":"kind"}}}},
		"Alone":{"type":"object","discriminator":{"propertyName":"mapping"}}}}`))
	doc.want(t, map[string]string{
		"/components/schemas/a_Pet/discriminator/mapping": `{"Cat":"#/components/schemas/a_Cat","Dog":"#/components/schemas/a_Dog",` +
			`"Lion":"#/components/schemas/a_Lion","Pet":"#/components/schemas/a_Pet"}`,
		"/components/schemas/a_Mapped/discriminator/mapping": `{"Lion":"#/components/schemas/a_Lion","dog":"#/components/schemas/a_Dog",` +
			`"mieze":"#/components/schemas/a_Cat"}`,
		"/components/schemas/a_Any/properties/x/discriminator/mapping": `{"Cat":"#/components/schemas/a_Cat"}`,
		"/components/schemas/a_Alone/discriminator":                    `{"propertyName":"mapping"}`,
	})
}

func TestURLsAtTheAppBecomePathsAtTheGateway(t *testing.T) {
	doc := merge(t, api("3.0.3", `"paths":{},"externalDocs":{"url":"help"},"tags":[{"name":"t","externalDocs":{"url":"http://a.watt.local/t?q#f"}}],
		"components":{"securitySchemes":{
			"relative":{"type":"oauth2","flows":{"password":{"tokenUrl":"token","scopes":{"tokenUrl":"token"}}}},
			"absolute":{"type":"openIdConnect","openIdConnectUrl":"https://accounts.example.com/"}},
			"schemas":{"S":{"externalDocs":{"url":"/s"},"properties":{"externalDocs":{"type":"string"}}}},
			"examples":{"E":{"externalValue":"//a.watt.local/e"}}}`))
	doc.want(t, map[string]string{
		"/tags/0/externalDocs/url":                                `"/a/help"`,
		"/tags/1/externalDocs/url":                                `"/a/t?q#f"`,
		"/components/securitySchemes/a_relative/flows/password":   `{"scopes":{"tokenUrl":"token"},"tokenUrl":"/a/token"}`,
		"/components/securitySchemes/a_absolute/openIdConnectUrl": `"https://accounts.example.com/"`,
		"/components/schemas/a_S/externalDocs/url":                `"/a/s"`,
		"/components/examples/a_E/externalValue":                  `"/a/e"`,
	})
}

func TestDocumentsOfOtherVersionsAreBroughtToTheHighest(t *testing.T) {
	old := api("3.0.3", `"paths":{"/x":{"get":{"responses":{"200":{"description":"fine","content":{"application/json":{
		"schema":{"$ref":"#/components/schemas/S","type":7}}}}}}}},
		"components":{"schemas":{"S":{"type":"string","nullable":true},"N":{"type":"number","minimum":1,"exclusiveMinimum":true}}}`)
	merge(t, old, api("3.1.1", `"paths":{}`), api("3.1.0", `"paths":{}`)).want(t, map[string]string{
		"/openapi":                `"3.1.1"`,
		"/x-watt-missing":         "",
		"/components/schemas/a_S": `{"type":["string","null"]}`,
		"/components/schemas/a_N": `{"exclusiveMinimum":1,"type":"number"}`,
		"/paths/~1a~1x/get/responses/200/content/application~1json/schema": `{"$ref":"#/components/schemas/a_S"}`,
	})
	merge(t, old, api("3.0.1", `"paths":{}`)).want(t, map[string]string{
		"/openapi":                `"3.0.3"`,
		"/components/schemas/a_S": `{"nullable":true,"type":"string"}`,
	})
	merge(t, api("3.2.0", `"paths":{"/x":{"query":{`+ok+`},"additionalOperations":{"COPY":{"operationId":"copy",`+ok+`}}}}`)).want(t, map[string]string{
		"/openapi":                 `"3.2.0"`,
		"/paths/~1a~1x/query/tags": `["a"]`,
		"/paths/~1a~1x/additionalOperations/COPY": `{"operationId":"a_copy","responses":{"200":{"description":"fine"}},"tags":["a"]}`,
	})
}

func TestServersBesideACallbackAreDroppedToo(t *testing.T) {
	doc := merge(t, operations(20, `{`+ok+`,"servers":[{"url":"https://example.com"}],
		"callbacks":{"done":{"x":{"post":{`+ok+`,"servers":[{"url":"https://other"}]}}}}}`, `"components":{}`))
	for i := range 20 {
		path := fmt.Sprintf("/paths/~1a~1E%d/get/", i)
		doc.want(t, map[string]string{path + "servers": "", path + "callbacks/done/x/post/servers": `[{"url":"https://other"}]`})
	}
}

func TestNothingOfJSONIsLost(t *testing.T) {
	merge(t, api("3.1.0", `"paths":{},"components":{"schemas":{"S":{"const":null,"maximum":9223372036854775807,
		"default":[1.0,12345678901234567890,"<&>"],"x-any":{"y":[true,null]}}}}`)).want(t, map[string]string{
		"/components/schemas/a_S": `{"const":null,"default":[1.0,12345678901234567890,"\u003c\u0026\u003e"],` +
			`"maximum":9223372036854775807,"x-any":{"y":[true,null]}}`,
	})
}

func TestYAML(t *testing.T) {
	doc := merge(t, `
openapi: 3.0.3
info: {title: Dates, version: 2024-01-01}
x-errors: &errors
  404: {description: none}
paths:
  /x:
    get:
      operationId: on
      responses: {200: {description: "fine"}, <<: *errors}
    put:
      responses: *shared
`, `
openapi: 3.0.3
info: {title: Dates, version: 2024-01-01}
x-errors: &errors
  404: {description: none, content: {a/b: {schema: {$ref: '#/components/schemas/S'}}}}
paths:
  /x:
    get:
      operationId: on
      responses: {200: {description: "fine"}, <<: *errors}
    put:
      responses: *errors
components: {schemas: {S: {type: string, enum: [yes, NO, 'null', 2024-01-01]}}}
`, `
openapi: 3.0.3
info: {title: Keys, version: '1'}
x-fine: &fine 200
paths: {/x: {get: {responses: {*fine : {description: fine}}}}}
`)
	doc.want(t, map[string]string{
		"/x-watt-missing":               `[{"app":"a","reason":"invalid"}]`, // an alias of nothing
		"/paths/~1b~1x/get/operationId": `"b_on"`,
		"/paths/~1b~1x/get/responses":   `{"200":{"description":"fine"},"404":{"content":{"a/b":{"schema":{"$ref":"#/components/schemas/b_S"}}},"description":"none"}}`,
		"/paths/~1b~1x/put/responses":   `{"404":{"content":{"a/b":{"schema":{"$ref":"#/components/schemas/b_S"}}},"description":"none"}}`,
		"/components/schemas/b_S/enum":  `["yes","NO","null","2024-01-01"]`,
		"/paths/~1c~1x/get/responses":   `{"200":{"description":"fine"}}`,
	})
}

func TestTheSamePathOfTwoAppsIsReported(t *testing.T) {
	path := func(path, name string) string {
		return api("3.0.3", `"paths":{"`+path+`":{"get":{"parameters":[{"name":"`+name+`","in":"path","required":true,"schema":{}}],`+ok+`}}}`)
	}
	d := openapi.Document{Apps: []openapi.App{{Name: "one", Prefix: "/"}, {Name: "two"}, {Name: "three", Prefix: "/two/"}}}
	top := watttest.Start(t, watt.New(gateway(d,
		serving("one", path("/two/x/{id}", "id")), serving("two", path("/x/{name}", "name")), serving("three", path("/y/{name}", "name")))...))
	doc := ask(t, top)
	if got, want := doc.missing(), "two: clash /two/x/{name}"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	doc.want(t, map[string]string{
		"/paths/~1two~1x~1{id}/get/tags":   `["one"]`,
		"/paths/~1two~1x~1{name}":          "",
		"/paths/~1two~1y~1{name}/get/tags": `["three"]`,
		"/tags/1/name":                     `"three"`,
	})
}
