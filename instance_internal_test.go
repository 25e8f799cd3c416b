package watt

import (
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
