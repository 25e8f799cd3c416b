package watt_test

import (
	"net/http"
	"runtime"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/org/watt"
)

// hungry is an app that computes in this process.
func hungry(name string, workers int) watt.App {
	return watt.App{
		Name: name, Workers: workers, Profile: watt.CPUBound, Isolation: watt.InProcess, Handler: http.NotFoundHandler(),
	}
}

func TestAppsThatComputeInThisProcessShareWhatItCanSpare(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	twice := hungry("b", 0)
	twice.Instances = 2
	many := hungry("b", 0)
	many.Instances = 8
	tested := many
	tested.Isolation = 0
	for what, test := range map[string]struct {
		apps []watt.App
		want []int
		warn int
	}{
		"one":                      {[]watt.App{hungry("a", 0)}, []int{7}, 0},
		"two, one of them twice":   {[]watt.App{hungry("a", 0), twice}, []int{2, 2}, 0},
		"one that has said how":    {[]watt.App{hungry("a", 4), hungry("b", 0)}, []int{4, 3}, 0},
		"one that has said it all": {[]watt.App{hungry("a", 7), hungry("b", 0)}, []int{7, 1}, 1},
		"more than it can spare":   {[]watt.App{many}, []int{1}, 1},
		"as much, for a test only": {[]watt.App{tested}, []int{1}, 0},
		"one that is elsewhere":    {[]watt.App{hungry("a", 0), {Name: "b", URL: "http://b", Profile: watt.CPUBound}}, []int{7, 7}, 0},
		"one that does not":        {[]watt.App{hungry("a", 0), working("b", nil)}, []int{7, 64}, 0},
	} {
		core, logged := observer.New(zap.WarnLevel)
		rt := watt.New(test.apps...)
		rt.Logger = zap.New(core)
		before := rt.Status()
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, s := range rt.Status() {
			if s.Workers != test.want[i] || before[i].Workers != s.Workers {
				t.Errorf("%s: got %d workers for %q, %d before the start, want %d", what, s.Workers, s.Name, before[i].Workers, test.want[i])
			}
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if got := logged.FilterMessageSnippet("CPU-bound").Len(); got != test.warn {
			t.Errorf("%s: got %d warnings, want %d", what, got, test.warn)
		}
	}
}

func TestAnAppThatIsGivenItsDefaultAgainTakesWhatOthersLeave(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	rt := start(t, hungry("a", 0), hungry("b", 0), working("c", nil)) // 3 for each of the two
	for _, want := range []struct{ given, instances, workers int }{{6, 1, 6}, {0, 1, 4}, {0, 2, 2}, {0, 8, 1}} {
		if err := rt.Update("a", func(a *watt.App) { a.Workers, a.Instances = want.given, want.instances }); err != nil {
			t.Fatal(err)
		}
		if got := statusOf(t, rt, "a").Workers; got != want.workers {
			t.Errorf("got %d workers for %+v", got, want)
		}
	}
}
