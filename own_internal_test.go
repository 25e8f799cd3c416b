//go:build unix

package watt

import (
	"context"
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/org/watt/internal/cgroup"
	"github.com/org/watt/internal/control"
	"github.com/org/watt/internal/page"
)

// deaf returns an instance whose child takes nothing more, and the child's side of the control socket.
func deaf(t *testing.T) (*own, *control.Conn) {
	t.Helper()
	mine, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	child, err := control.Open(theirs)
	if err != nil {
		t.Fatal(err)
	}
	o := &own{
		place: &processes{app: &app{rt: new(Runtime)}}, slot: new(page.Slot), conn: mine, life: t.Context(),
		dials: make(chan struct{}, maxDials), saying: make(chan struct{}, 1),
	}
	t.Cleanup(func() {
		mine.Close()
		child.Close()
		o.place.app.rt.owned.Wait()
	})
	for err == nil {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err = mine.Send(ctx, control.Message{Kind: sayLame})
		cancel()
	}
	return o, child
}

func TestAChildThatDoesNotReadIsHeardWhateverIsRefused(t *testing.T) {
	o, child := deaf(t)
	for range maxDials {
		o.dials <- struct{}{}
	}
	const more = 100
	began := time.Now()
	for id := range uint64(more) {
		ask, _ := control.New(sayDial, dialling{ID: id})
		if err := o.heard(ask); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v, want that nobody waits", took)
	}
	for id := uint64(0); id < more; {
		m, _, err := child.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind != sayDialled {
			continue
		}
		var answer dialled
		if err := json.Unmarshal(m.Data, &answer); err != nil || answer.ID != id || answer.Kind == 0 {
			t.Fatalf("got %s, %v, want the refusal of %d", m.Data, err, id)
		}
		id++
	}
}

func TestWhatComputesHasAProcessForEachProcessorAndComesLast(t *testing.T) {
	a := (&App{Profile: CPUBound, Isolation: OwnProcess}).withDefaults()
	if want := max(1, int(math.Round(cgroup.CPUs()))); a.Instances != want || a.Workers != 1 || a.Nice != 10 {
		t.Errorf("got %d instances, %d workers, niceness %d, want %d, 1 and 10", a.Instances, a.Workers, a.Nice, want)
	}
}
