package watt

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// A child shows in the page that it lives. One that has not for a while is stopped, or cannot run: it keeps what it
// has, and is given nothing more until it shows itself again. To be busy is no reason to be restarted.
const (
	beatEvery   = 50 * time.Millisecond
	lookEvery   = 500 * time.Millisecond
	silentAfter = 4 // looks: a machine that slept as a whole has had one
)

// pulse watches over one child.
type pulse struct {
	own  *own
	stop chan struct{}
	once sync.Once
	done chan struct{}
}

func newPulse(o *own) *pulse {
	return &pulse{own: o, stop: make(chan struct{}), done: make(chan struct{})}
}

// watch looks until end, or until the child has ended, which may be long before its life is over: its output may be stuck.
func (p *pulse) watch() {
	defer close(p.done)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last, same := p.own.slot.Beat.Load(), 0
	for {
		select {
		case <-tick.C:
		case <-p.stop:
			return
		case <-p.own.gone:
			return
		}
		beat := p.own.slot.Beat.Load()
		switch {
		case beat == last:
			if same++; same == silentAfter {
				p.own.log.Warn("shows no sign of life: it gets nothing more until it does", zap.Duration("for", silentAfter*lookEvery))
				p.own.setSilent(true)
			}
		case same >= silentAfter:
			p.own.log.Warn("shows itself again")
			p.own.setSilent(false)
			fallthrough
		default:
			last, same = beat, 0
		}
	}
}

// end ends the watch, and returns when nothing more comes of it.
func (p *pulse) end() {
	p.once.Do(func() { close(p.stop) })
	<-p.done
}
