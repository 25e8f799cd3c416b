package watt

import (
	"net"

	"github.com/org/watt/internal/count"
)

func (d *door) listeners() []ListenerStatus {
	if d.public == nil {
		return nil
	}
	return d.only(d.public.listener)
}

func (s *relay) listeners() []ListenerStatus {
	if s.listener == nil {
		return nil
	}
	return s.only(s.listener)
}

// only tells of the one listener of an app in this process.
func (p inside) only(ln net.Listener) []ListenerStatus {
	n, err := queued(ln)
	if err != nil {
		n = -1
	}
	return []ListenerStatus{{Accepted: count.Read(&p.app.tallies.instance(0).Accepted), Queued: n, Chosen: true}}
}

// listeners tells of those of the instances.
func (p *processes) listeners() []ListenerStatus {
	if p.public == nil {
		return nil
	}
	var all []ListenerStatus
	for i := range maxProcesses {
		if p.public.port.listener(i) == nil {
			continue
		}
		n, err := p.public.port.queued(i)
		if err != nil {
			n = -1
		}
		all = append(all, ListenerStatus{
			Instance: i, Accepted: count.Read(&p.served(i).Accepted), Queued: n, Chosen: p.public.port.chosen(i),
		})
	}
	return all
}
