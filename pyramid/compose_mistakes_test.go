package pyramid_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// composeMistakes starts an app that composes parts, may call users, and not orders. It returns the
// error of the start.
func composeMistakes(t *testing.T, parts pyramid.Parts) string {
	t.Helper()
	entry := homeApp(parts)
	entry.Calls = []string{"users"}
	rt := watt.New(entry, telling("users", "1"), telling("orders", "1"))
	err := rt.Start(t.Context())
	if err == nil {
		rt.Shutdown(context.Background())
		return ""
	}
	return err.Error()
}

func someFunc(*http.Request) (any, error) { return 1, nil }

func TestMistakesInPartsAreErrorsOfTheStart(t *testing.T) {
	users := func(path string) pyramid.Part { return pyramid.Part{App: "users", Path: path} }
	for want, part := range map[string]pyramid.Part{
		"it needs App and Path, or Func":                    {},
		"it has both App or Path and Func":                  {App: "users", Path: "/", Func: someFunc},
		"it has both App or Path and Func ":                 {Path: "/", Func: someFunc},
		`App: "" is not the name of an app`:                 {Path: "/"},
		`App: "users.watt.local" is not the name of an app`: {App: "users.watt.local", Path: "/"},
		"no such app": {App: "nobody", Path: "/"},
		`call not allowed: add "orders" to Calls`:             {App: "orders", Path: "/"},
		`Path "": it does not begin with a slash`:             users(""),
		`Path "x": it does not begin with a slash`:            users("x"),
		`Path "/a#b": it has a fragment`:                      users("/a#b"),
		`Path "/{id": {id is not a parameter`:                 users("/{id"),
		`Path "/{i/d}": {i is not a parameter`:                users("/{i/d}"),
		`Path "/{}": {} is not a parameter`:                   users("/{}"),
		`Path "/{id:[0-9]+}": {id:[0-9]+} is not a parameter`: users("/{id:[0-9]+}"),
		`Path "/id}": "id}" cannot stand in a path`:           users("/id}"),
		`Path "/%2": "%2" cannot stand in a path`:             users("/%2"),
		`Path "/a/../b": ".." leads elsewhere`:                users("/a/../b"),
		`Path "/%2E": "%2E" leads elsewhere`:                  users("/%2E"),
		`Path "/?a b": "a b" cannot stand in a query`:         users("/?a b"),
		`Path "/?a=%2": "a=%2" cannot stand in a query`:       users("/?a=%2"),
		`Path "/?a={b": {b is not a parameter`:                users("/?a={b"),
		"Default: what came is not JSON: json: unsupported":   {Func: someFunc, Default: math.Inf(1)},
		"it is Optional and has a Default":                    {Func: someFunc, Optional: true, Default: 1},
		"Timeout is negative: -1ns":                           {Func: someFunc, Timeout: -1},
		"MaxBytes is negative: -1":                            {Func: someFunc, MaxBytes: -1},
		"Coalesce is for calls of an App, not for Func":       {Func: someFunc, Coalesce: true},
	} {
		got := composeMistakes(t, pyramid.Parts{"odd": part, "fine": {Func: someFunc}})
		if !strings.Contains(got, `part "odd": `) || !strings.Contains(got, strings.TrimSpace(want)) || strings.Contains(got, "fine") {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for want, parts := range map[string]pyramid.Parts{
		"there are no parts":                       nil,
		`part "": the name is empty or not UTF-8`:  {"": {Func: someFunc}},
		`part "\xff": the name is empty or not UT`: {"\xff": {Func: someFunc}},
	} {
		if got := composeMistakes(t, parts); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAllMistakesComeInOneMessage(t *testing.T) {
	got := composeMistakes(t, pyramid.Parts{
		"a": {App: "nobody", Path: "x", Timeout: -1},
		"b": {},
	})
	for _, want := range []string{"pyramid: Compose: ", `part "a": App: `, `part "a": Path "x": `, `part "a": Timeout is`, `part "b": it needs`} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}

func TestAnAppThatIsDownIsNoMistake(t *testing.T) {
	parts := pyramid.Parts{"a": {App: "users", Path: "/"}}
	rt := watt.New(telling("users", "1"))
	pyramid.Compose(rt.Env(), parts) // which has not started
	defer func() {
		if got := fmt.Sprint(recover()); got != "pyramid: Compose: env is nil" {
			t.Errorf("got panic %q", got)
		}
	}()
	pyramid.Compose(nil, parts)
}

func TestAnotherMetricWithTheNameIsAMistake(t *testing.T) {
	rt := watt.New(telling("users", "1"))
	rt.Env().Metrics.MustRegister(prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "watt_compose_part_seconds", Help: "Time that the parts of composed answers took, by what became of them.",
	}, []string{"part", "outcome"}))
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, "watt_compose_part_seconds: there is another metric") {
			t.Errorf("got panic %q", got)
		}
	}()
	pyramid.Compose(rt.Env(), pyramid.Parts{"a": {Func: someFunc}})
}
