package pyramid_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/org/watt"
	"github.com/org/watt/pyramid"
)

// counted returns how many parts are counted, by part and outcome, and their seconds.
func counted(t *testing.T, rt *watt.Runtime) map[string]string {
	t.Helper()
	families, err := rt.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, family := range families {
		if family.GetName() != "watt_compose_part_seconds" {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["watt_app"] != "home" {
				t.Errorf("got labels %v", labels)
			}
			h := m.GetHistogram()
			got[labels["part"]+" "+labels["outcome"]] = fmt.Sprint(h.GetSampleCount(), " ", h.GetSampleSum())
		}
	}
	return got
}

func TestStatusAndTimeOfEachPartAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(2 * time.Second)
			w.WriteHeader(http.StatusTeapot)
		}
		quick := pyramid.Part{Func: func(*http.Request) (any, error) { time.Sleep(time.Second); return 1, nil }}
		deaf := func(*http.Request) (any, error) { time.Sleep(9 * time.Second); return 1, nil }
		entry := watt.App{Name: "home", New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			r := chi.NewRouter()
			r.Handle("/home/a", pyramid.Compose(env, pyramid.Parts{
				"quick": quick, "app": {App: "a", Path: "/", Optional: true}, "deaf": {Timeout: 4 * time.Second, Func: deaf, Default: 0},
			}))
			r.Handle("/home/b", pyramid.Compose(env, pyramid.Parts{
				"quick": quick, "app": {App: "a", Path: "/"}, "deaf": {Func: deaf},
			}))
			return r, nil
		}}
		h := startHome(t, entry, handling("a", fails))
		wantAnswer(t, h.ask(t.Context(), http.MethodGet, "/home/a"), "app;reason=status, deaf;reason=timeout", `{"deaf":0,"quick":1}`)
		wantProblem(t, h.ask(t.Context(), http.MethodGet, "/home/b"), 418, "a")
		got := counted(t, h.rt)
		for series, want := range map[string]string{
			"quick ok": "2 2", "app status": "2 4", "deaf timeout": "1 4", "deaf canceled": "1 2", "app ok": "0 0", "deaf ok": "0 0",
		} {
			if got[series] != want {
				t.Errorf("%s: got %q, want %q", series, got[series], want)
			}
		}
		if len(got) != 6 {
			t.Errorf("got %v", got)
		}
	})
}

func TestAClientThatLeavesIsCountedAsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, pyramid.Parts{
			"deaf": {Func: func(*http.Request) (any, error) { time.Sleep(9 * time.Second); return 1, nil }},
			"p": {Func: func(r *http.Request) (any, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}},
		})
		ctx, leave := context.WithCancel(t.Context())
		r := h.asking(ctx, "/home/7")
		time.Sleep(time.Second)
		leave()
		<-r
		time.Sleep(9 * time.Second) // what comes late changes nothing
		if got := counted(t, h.rt); got["p canceled"] != "1 1" || got["deaf canceled"] != "1 1" {
			t.Errorf("got %v", got)
		}
		if got := h.rt.Status()[0].PerInstance[0].Requests["GET"]; got["2xx"] != 0 {
			t.Errorf("got %v, and there was no whole answer", got)
		}
	})
}
