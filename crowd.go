package watt

import (
	"runtime"
	"time"

	"github.com/org/watt/internal/hrtick"
)

// watchCrowd has the kernel look more often at who should run while there is a crowd: else the requests of this process wait
// for the kernel's next tick, however low the children's priority is.
func (rt *Runtime) watchCrowd() {
	var ticks hrtick.Ticks
	defer ticks.Close()
	look := time.NewTicker(beatEvery)
	defer look.Stop()
	var last time.Time
	for {
		select {
		case <-look.C:
		case <-rt.life.Done():
			return
		}
		switch now := time.Now(); {
		case rt.crowded():
			last = now
			ticks.Begin()
		case now.Sub(last) > crowdLasts:
			ticks.End()
		}
	}
}

// crowdLasts is how long a crowd is taken to be there after it was last seen: who looks between two short requests sees none.
const crowdLasts = 10 * beatEvery

// crowded reports whether there is a crowd: apps of this process have requests, while the children that are to give way have
// one for each processor, or more. Nobody knows of those that come to the Listen of an app with Serve.
func (rt *Runtime) crowded() bool {
	here, there := 0, 0
	for _, a := range rt.apps {
		c := a.conf()
		if c.Isolation != OwnProcess {
			here += a.pool.Stats().Busy
			continue
		}
		for i := range c.Instances {
			if c.Nice > 0 {
				there += min(few(&rt.nursery.slot(a.name, i).Busy), c.Workers)
			}
		}
	}
	return here > 0 && there >= runtime.NumCPU()
}
