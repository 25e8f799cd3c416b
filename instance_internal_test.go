package watt

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/org/watt/internal/page"
)

func TestWhatChildrenAreShownOfAnAppsReturnIsTheLastWord(t *testing.T) {
	shared, err := page.Create(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	a := &app{name: "a", rt: &Runtime{nursery: &nursery{page: shared, slots: map[string]span{"a": {0, 1}}}}}
	failing, starting := &instance{app: a}, &instance{app: a}
	a.instances = []*instance{failing, starting}
	later := time.Now().Add(time.Hour)
	for range 50_000 {
		failing.back, starting.back = time.Time{}, later
		a.showBack()
		var both sync.WaitGroup
		both.Go(func() { failing.comesBack(later) })
		both.Go(func() { starting.comesBack(time.Time{}) })
		both.Wait()
		if shared.Slot(0).Back.Load() != 0 {
			t.Fatal("got an app away of which an instance is there")
		}
	}
}

// Who is told that it is ready looks for its process.
func TestAnInstanceThatIsReadyHasALife(t *testing.T) {
	rt := New(App{Name: "a", Handler: http.NotFoundHandler()})
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer rt.Shutdown(t.Context())
	restarted := make(chan error, 1)
	go func() {
		for range 10_000 {
			if err := rt.Restart("a", 0); err != nil {
				restarted <- err
				return
			}
		}
		restarted <- nil
	}()
	for in := rt.app("a").instance(0); ; {
		select {
		case err := <-restarted:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
		in.mu.Lock()
		state, life := in.state, in.life
		in.mu.Unlock()
		if state == stateReady && life == nil {
			t.Fatal("got an instance that is ready, and has none")
		}
	}
}
