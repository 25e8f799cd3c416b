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

func TestACallFromAnotherProcessGoesToNoneThatIsDoubted(t *testing.T) {
	shared, err := page.Create(2, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	a := &app{name: "a"}
	a.config.Store(&App{Name: "a", Isolation: OwnProcess})
	c := &child{page: shared, slots: map[string][]page.Slot{"a": shared.Slots(0, 2)}}
	x := &across{absent{inside{a}}, c}
	for i := range 2 {
		shared.Slot(i).State.Store(slotReady)
	}
	shared.Slot(1).Busy.Store(100)
	x.idlest(nil).doubt()
	if got := x.idlest(nil); got.instance != 1 {
		t.Errorf("got instance %d, want the busy one", got.instance)
	}
	x.idlest(nil).doubt()
	if got := x.idlest(nil); got.instance != -1 {
		t.Errorf("got instance %d, want whichever the parent takes", got.instance)
	}
	shared.Slot(0).Beat.Add(1)
	if got := x.idlest(nil); got.instance != 0 {
		t.Errorf("got instance %d, want the one that has shown itself", got.instance)
	}
}
