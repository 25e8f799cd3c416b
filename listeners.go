package watt

import (
	"net"

	"github.com/org/watt/internal/count"
)

// perListener returns what is known of the public side's listeners.
func (a *app) perListener() []ListenerStatus {
	switch p := a.place.(type) {
	case *processes:
		return p.listeners()
	case *door:
		if p.public != nil {
			return []ListenerStatus{a.listenerStatus(p.public.listener)}
		}
	case *relay:
		if p.listener != nil {
			return []ListenerStatus{a.listenerStatus(p.listener)}
		}
	}
	return nil
}

func (a *app) listenerStatus(ln net.Listener) ListenerStatus {
	n, err := queued(ln)
	if err != nil {
		n = -1
	}
	return ListenerStatus{Accepted: count.Read(&a.tallies.instance(0).Accepted), Queued: n, Chosen: true}
}

// listeners returns those of the instances.
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
