//go:build unix

package watt

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/cgroup"
	"github.com/org/watt/internal/control"
	"github.com/org/watt/internal/page"
	"github.com/org/watt/internal/process"
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
		place: &processes{sums: sums{app: &app{rt: new(Runtime)}}}, slot: new(page.Slot), conn: mine, life: t.Context(),
		saying: make(chan struct{}, 1),
	}
	o.dials = dials{child: o, waiting: make(chan struct{}, maxDials)}
	t.Cleanup(func() {
		mine.Close()
		child.Close()
		o.place.app.rt.owned.Wait()
	})
	for range 2 { // the first time may have been up before there was a try
		for err = nil; err == nil; {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			err = mine.Send(ctx, control.Message{Kind: sayLame})
			cancel()
		}
	}
	return o, child
}

func TestAChildThatDoesNotReadIsHeardWhateverIsRefused(t *testing.T) {
	o, child := deaf(t)
	for range maxDials {
		o.dials.waiting <- struct{}{}
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

// readAll has a child read what it is told.
func readAll(child *control.Conn) {
	for _, _, err := child.Receive(); err == nil; _, _, err = child.Receive() {
	}
}

// tellInVain tells an instance something that it has not much time to read.
func tellInVain(t *testing.T, o *own) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := o.say(ctx, sayLame, nil); err == nil {
		t.Error("it was told")
	}
	if !o.slot.Doubted() {
		t.Error("it is not doubted")
	}
}

// started returns a process that does not end by itself.
func started(t *testing.T) *process.Process {
	t.Helper()
	starter := process.NewStarter()
	t.Cleanup(starter.Close)
	p, err := starter.Start(process.Spec{
		Env:     append(os.Environ(), "WATT_TEST_MAIN=orphan", birthVariable+`={"parent": 1}`), // which waits for that parent
		Control: os.Stdin, Stdout: io.Discard, Stderr: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill(nil) })
	return p
}

func TestAChildThatDoesNotListenIsEndedUnlessItIsSilent(t *testing.T) {
	o, child := deaf(t)
	o.process = started(t)
	alive := func(when string) {
		select {
		case <-o.process.Done():
			t.Fatalf("%s, it has ended: %v", when, o.process.Exit())
		case <-time.After(50 * time.Millisecond):
		}
	}
	tellInVain(t, o)
	alive("soon")
	longAgo := time.Now().Add(-unreadMost).UnixNano()
	o.unread.Store(longAgo)
	o.slot.State.Store(slotSilent)
	tellInVain(t, o)
	alive("while it is silent")
	o.slot.State.Store(slotReady)
	tellInVain(t, o)
	<-o.process.Done()
	if exit := o.process.Exit(); exit.Err == nil {
		t.Errorf("it has ended by itself: %v", exit)
	}
	go readAll(child)
	if err := o.say(t.Context(), sayLame, nil); err != nil {
		t.Fatal(err)
	}
	if since := o.unread.Load(); since != 0 {
		t.Errorf("it has read, and is said not to since %v", time.Unix(0, since))
	}
}

func TestAChildThatShowsItselfAgainIsNotEndedForWhatItLeftUnreadInItsSilence(t *testing.T) {
	o, _ := deaf(t)
	a := o.place.app
	a.change, a.pool = make(chan struct{}), admission.New[*generation](admission.Limits{Workers: 1})
	a.config.Store(&App{Name: "a"})
	o.process = started(t)
	longAgo := time.Now().Add(-unreadMost).UnixNano()
	for range 200 {
		o.setSilent(true)
		o.unread.Store(longAgo)
		began, shown, tried := make(chan struct{}), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(tried)
			close(began)
			for ; !closed(shown); runtime.Gosched() {
				o.unheard()
			}
		}()
		<-began
		o.setSilent(false)
		close(shown)
		<-tried
	}
	o.process.Kill(nil)
	<-o.process.Done()
	if exit := o.process.Exit(); exit.Err != nil {
		t.Errorf("it was ended: %v", exit)
	}
}

func TestAnInstanceThatDrainsIsGivenNoConnection(t *testing.T) {
	o, child := deaf(t)
	o.closed.Store(true)
	for _, kind := range []string{sayConn, sayPublic} {
		if err := o.say(t.Context(), kind, nil); !errors.Is(err, errDraining) {
			t.Errorf("%s: got %v, want that it drains", kind, err)
		}
	}
	go readAll(child)
	if err := o.say(t.Context(), sayDrain, draining{}); err != nil {
		t.Errorf("got %v from what else it is told", err)
	}
}

func TestAnInstanceThatIsDoubtedIsTakenOnlyIfThereIsNoOther(t *testing.T) {
	a := new(app)
	p := &processes{sums: sums{app: a}}
	var all []*own
	for i := range 2 {
		o := &own{place: p, index: i, slot: new(page.Slot), process: new(process.Process)}
		all = append(all, o)
		a.instances = append(a.instances, &instance{app: a, life: o})
	}
	doubted, busy := all[0], all[1]
	doubted.slot.Doubt()
	busy.slot.Busy.Store(100)
	if got := p.idlest(nil); got != busy {
		t.Errorf("got instance %d, want the busy one", got.index)
	}
	if got := p.idlest(busy); got != doubted {
		t.Errorf("got %v, want the one that is doubted", got)
	}
	doubted.slot.Beat.Add(1)
	if got := p.idlest(nil); got != doubted {
		t.Errorf("got instance %d, want the idle one, which has shown itself", got.index)
	}
}

func TestWhatComputesHasAProcessForEachProcessorAndComesLast(t *testing.T) {
	a := (&App{Profile: CPUBound, Isolation: OwnProcess}).withDefaults()
	if want := max(1, int(math.Round(cgroup.CPUs()))); a.Instances != want || a.Workers != 1 || a.Nice != 10 {
		t.Errorf("got %d instances, %d workers, niceness %d, want %d, 1 and 10", a.Instances, a.Workers, a.Nice, want)
	}
}

// A child that has had its say, and has ended, may be found to have done both at once.
func TestAChildThatWasReadyHasStartedThoughItHasEnded(t *testing.T) {
	o := &own{process: started(t), ready: make(chan error, 1)}
	o.process.Kill(nil)
	<-o.process.Done()
	failed := errors.New("no database")
	for range 20 {
		for _, said := range []error{nil, failed} {
			o.ready <- said
			if err := o.becomesReady(t.Context()); !errors.Is(err, said) {
				t.Fatalf("got %v of one that has said %v", err, said)
			}
		}
	}
}

// late is a context whose deadline has passed, and whose timer has not struck yet.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now(), true }

func TestWhyADrainWasCutIsToldWhereTheTimerIsLate(t *testing.T) {
	o := &own{process: started(t), drained: make(chan drained, 1)}
	o.process.Kill(nil)
	<-o.process.Done()
	o.drained <- drained{"it was cut"}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("DrainTimeout has passed")
	defer time.AfterFunc(20*time.Millisecond, func() { cancel(why) }).Stop()
	if err, over := o.follow(late{ctx}, t.Context()); !over || !errors.Is(err, why) {
		t.Errorf("got %v, %v, want that %v", err, over, why)
	}
}
