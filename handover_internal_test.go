package watt

import (
	"net/http"
	"testing"

	"github.com/org/watt/internal/page"
)

func TestARequestIsNotHandedOnAndNotOverIfItNeedsItsConnection(t *testing.T) {
	d := &door{inside: inside{&app{rt: &Runtime{child: &child{handover: new(handover)}}}}}
	for name, c := range map[string]struct {
		peer   peer
		header http.Header
		want   bool
	}{
		"of a client's or a caller's": {peer{}, nil, true},
		"of a sibling's":              {peer{handed: true}, nil, false},
		"for another protocol":        {peer{}, http.Header{"Upgrade": {"test"}}, false},
		"gRPC":                        {peer{}, http.Header{"Content-Type": {"application/grpc"}}, false},
	} {
		if m := d.mover(&http.Request{Header: c.header}, &c.peer); (m != nil) != c.want {
			t.Errorf("%s: got %t, want %t", name, m != nil, c.want)
		}
	}
	if m := (&door{inside: inside{&app{rt: new(Runtime)}}}).mover(new(http.Request), new(peer)); m != nil {
		t.Error("in the parent, which has no siblings, it is handed over")
	}
}

func TestASiblingIsNotKeptForARequestThatGoesNowhere(t *testing.T) {
	to := &neighbour{slot: new(page.Slot)}
	to.slot.State.Store(slotReady)
	h := &handover{child: &child{app: new(app)}, siblings: []*neighbour{to}}
	h.child.app.config.Store(&App{Workers: 1})
	for name, moved := range map[string]bool{"handed over": true, "run here, or given up, in the same moment": false} {
		m := &move{handover: h}
		select {
		case <-m.waits():
		default:
			t.Fatalf("%s: the idle sibling is not chosen", name)
		}
		if got := m.result(moved); (got == to) != moved {
			t.Errorf("%s: got sibling %p", name, got)
		}
		if moved {
			to.handed.Add(-1) // as whoever has handed it over does
		}
		if n := to.handed.Load(); n != 0 {
			t.Errorf("%s: the sibling is about to have %d", name, n)
		}
	}
}
