//go:build linux

package watt_test

import (
	"context"
	"net"
	"testing"

	"github.com/org/watt"
	"github.com/org/watt/watttest"
)

// consumer takes jobs from elsewhere, in a process of its own: nobody calls it.
func consumer() *watt.Runtime {
	return watt.New(watt.App{Name: "consumer", Isolation: watt.OwnProcess, Serve: func(ctx context.Context, _ *watt.Env, _ net.Listener) error {
		<-ctx.Done()
		return nil
	}})
}

func TestAServeAppInAProcessOfItsOwnThatNobodyCallsIsReadyWhenItRuns(t *testing.T) {
	rt := consumer()
	watttest.Start(t, rt)
	if err := rt.Ready(); err != nil {
		t.Error(err)
	}
}
