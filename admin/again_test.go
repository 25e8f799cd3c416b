package admin_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/admin"
	"github.com/org/watt/watttest"
)

// TestAnInstanceThatComesBackHasNotEndedAgain: what an instance has counted outlives it.
func TestAnInstanceThatComesBackHasNotEndedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan struct{})
		rt := watt.New(watt.App{Name: "app", Instances: 2, MaxRestarts: -1, Serve: func(ctx context.Context, env *watt.Env, _ net.Listener) error {
			if env.Instance == 0 {
				<-ctx.Done()
				return nil
			}
			select {
			case <-ends:
				return errors.New("on purpose")
			case <-ctx.Done():
				return nil
			}
		}})
		watttest.Start(t, rt)
		h := admin.Handler(rt, admin.Options{Token: token})
		look := func() admin.Report { return fetched[admin.Report](t, h, "/status") }
		look()
		for range 5 {
			ends <- struct{}{}
		}
		time.Sleep(10 * time.Minute)
		resize := func(body string) { acted(t, h, "PATCH", "/apps/app", body) }
		resize(`{"instances": 1}`)
		time.Sleep(time.Minute)
		resize(`{"instances": 2}`)
		time.Sleep(time.Second)
		if r := look(); len(r.Advice) > 0 || r.Apps[0].Ended[1] != 0 {
			t.Errorf("got %v and %v", r.Advice, r.Apps[0].Ended)
		}
	})
}
