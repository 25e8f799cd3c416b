package watttest_test

import (
	"strings"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

func TestMain(m *testing.M) { watttest.Main(m, apart) }

// apart has a caller in a process of its own.
func apart() *watt.Runtime {
	caller := echo("a", "c")
	caller.Isolation = watt.OwnProcess
	return watt.New(caller, echo("c"))
}

func TestAFaultThatCannotStrikeFailsTheTest(t *testing.T) {
	for _, fault := range []func(top *watttest.Topology){
		func(top *watttest.Topology) { top.Fail("a", "c", watt.ErrOverloaded) },
		func(top *watttest.Topology) { top.Delay("a", "c", 1) },
	} {
		rec := &recorder{TB: t}
		failures := rec.run(func(r *recorder) { fault(watttest.Start(r, apart())) })
		if len(failures) != 1 || !strings.Contains(failures[0], "processes of its own") {
			t.Errorf("got failures %q", failures)
		}
	}
}
