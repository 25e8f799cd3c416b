package main

import (
	"bytes"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"
	"golang.org/x/net/html"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// TestWhatIsDescribedIsWhatTheShopAnswers asks for everything that can be asked for with GET.
func TestWhatIsDescribedIsWhatTheShopAnswers(t *testing.T) {
	t.Parallel()
	s := startShop(t, newTestShop(t))
	s.upload("?user=1", jpegOf(t, 300, 200))
	got := s.get("/openapi.json")
	doc, err := openapi3.NewLoader().LoadFromData(got.body)
	if err == nil {
		err = doc.Validate(t.Context())
	}
	if err != nil {
		t.Fatalf("%s: %v", got.body, err)
	}
	want := []string{
		"/home/{id}", "/orders/", "/orders/mine", "/pictures", "/pictures/{id}", "/pictures/{id}/{width}",
		"/support/chat", "/support/feed", "/token", "/users/{id}",
	}
	if paths := slices.Sorted(maps.Keys(doc.Paths.Map())); !slices.Equal(paths, want) || doc.Extensions["x-watt-missing"] != nil {
		t.Errorf("got %q without %v, want %q", paths, doc.Extensions, want)
	}
	for path, item := range doc.Paths.Map() {
		if item.Get == nil || strings.HasPrefix(path, "/support/") { // where a test of its own listens
			continue
		}
		path = strings.NewReplacer("{id}", "1", "{width}", "64").Replace(path) + "?user=1"
		req := s.request(http.MethodGet, path, http.NoBody)
		if item.Get.Security != nil {
			if got := s.get(path); item.Get.Responses.Value(strconv.Itoa(got.status)) == nil {
				t.Errorf("%s without a token: got %d", path, got.status)
			}
			req.Header.Set("Authorization", "Bearer "+tokenOf(t, s.url, "1"))
		}
		got := s.do(req)
		answer := item.Get.Responses.Value("200").Value
		media, _, _ := strings.Cut(got.header.Get("Content-Type"), ";")
		if got.status != http.StatusOK || answer.Content[media] == nil {
			t.Errorf("%s: got %d %s, want 200 and one of %v", path, got.status, media, slices.Collect(maps.Keys(answer.Content)))
			continue
		}
		if schema := answer.Content[media].Schema; schema != nil {
			if err := schema.Value.VisitJSON(decode[any](t, got)); err != nil {
				t.Errorf("%s: got %s: %v", path, got.body, err)
			}
		}
	}
}

// TestWhatTheShopAnswersIsDescribed looks for each of the gateway's routes in the document.
func TestWhatTheShopAnswersIsDescribed(t *testing.T) {
	t.Parallel()
	rt := newTestShop(t)
	s := startShop(t, rt)
	doc, err := openapi3.NewLoader().LoadFromData(s.get("/openapi.json").body)
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := newGateway(nil, perMinute)(t.Context(), rt.Env())
	if err != nil {
		t.Fatal(err)
	}
	described := func(method, route string) bool {
		prefix, all := strings.CutSuffix(route, "/*")
		for path, item := range doc.Paths.Map() {
			if all && strings.HasPrefix(path, prefix+"/") || path == route && item.GetOperation(method) != nil {
				return true
			}
		}
		return false
	}
	err = chi.Walk(gateway.(chi.Routes), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		route = strings.ReplaceAll(strings.ReplaceAll(route, ":[0-9]+", ""), "/*/", "/")
		if route != "/openapi.json" && route != "/docs" && !described(method, route) {
			t.Errorf("%s %s is not described", method, route)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// parsedPage is what a test wants to know of a page.
type parsedPage struct {
	ids, links []string
	names      []string // of elements, and what else is no text
	text       string
}

func parsePage(t *testing.T, body []byte) (p parsedPage) {
	t.Helper()
	root, err := html.Parse(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type == html.TextNode {
			p.text += n.Data + " "
		} else {
			p.names = append(p.names, n.Data)
		}
		for _, a := range n.Attr {
			switch a.Key {
			case "id":
				p.ids = append(p.ids, a.Val)
			case "href", "src":
				p.links = append(p.links, a.Val)
			}
		}
	}
	p.text = strings.Join(strings.Fields(p.text), " ")
	return p
}

func TestThePageForPeopleNeedsNothingElse(t *testing.T) {
	t.Parallel()
	s := startShop(t, newTestShop(t))
	got := s.get("/docs")
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("got %d %s", got.status, got.header)
	}
	if policy := got.header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'") {
		t.Errorf("got the policy %q", policy)
	}
	p := parsePage(t, got.body)
	if slices.Contains(p.names, "script") || !slices.Contains(p.names, "main") {
		t.Errorf("got the elements %q", p.names)
	}
	if ids := slices.Compact(slices.Sorted(slices.Values(p.ids))); len(ids) != len(p.ids) {
		t.Errorf("got an id twice in %q", p.ids)
	}
	for _, link := range p.links {
		id, within := strings.CutPrefix(link, "#")
		id, err := url.PathUnescape(id)
		if link != "/openapi.json" && (!within || err != nil || !slices.Contains(p.ids, id)) {
			t.Errorf("%s leads nowhere", link)
		}
	}
	for _, want := range []string{"get/users/{id}", "post/pictures", "get/pictures/{id}/{width}", "schema-store_Picture"} {
		if !slices.Contains(p.ids, want) {
			t.Errorf("got no id %s in %q", want, p.ids)
		}
	}
	for _, want := range []string{"The shop", "The orders of a user", "The picture's number.", "image/jpeg", "list of", "one of"} {
		if !strings.Contains(p.text, want) {
			t.Errorf("got no %q in %s", want, p.text)
		}
	}
}

func TestThePageSaysWhoIsMissing(t *testing.T) {
	shop := watttest.Start(t, newShop(config{addr: "127.0.0.1:0", data: t.TempDir()}))
	shop.Fail("gateway", "users", watt.ErrUnavailable)
	status, body := shop.Get("http://gateway.watt.local/docs")
	p := parsePage(t, []byte(body))
	if status != http.StatusOK || !strings.Contains(p.text, "Not described now: users (no-answer)") {
		t.Errorf("got %d %s", status, p.text)
	}
	if slices.Contains(p.ids, "get/users/{id}") || !slices.Contains(p.ids, "get/orders/") {
		t.Errorf("got %q, want all but users", p.ids)
	}
}
