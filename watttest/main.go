package watttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/org/watt"
)

// Main runs the tests of a package whose topologies have instances in processes of their own: a child of a test
// binary runs TestMain, and finds there the topology that it belongs to. Each function returns one, the same
// every time; a child calls them in order until one has the apps of its parent.
//
//	func TestMain(m *testing.M) { watttest.Main(m, newShop) }
//
// What a test's Update changes is not known there. A child runs what the function says, and no fake; and where an app has
// become of another kind, as one with a URL that gets a Handler, no child starts. A test that does so either has its
// topology from a function of its own, given to Main, too, or sets Isolation to InProcess.
func Main(m *testing.M, topologies ...func() *watt.Runtime) {
	if !watt.IsChild() {
		_ = os.Setenv("WATT_TEST_PROCESSES", "1")
		os.Exit(m.Run()) //nolint:forbidigo // it stands for main
	}
	err := errors.New("watttest: Main was given no topology")
	for _, topology := range topologies {
		err = topology().Run(context.Background()) // it returns only from others' topologies
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1) //nolint:forbidigo // likewise
}
