package funnel

import (
	"container/list"
	"sync"
	"time"
)

// memory keeps answers, oldest first.
type memory struct {
	mu    sync.Mutex
	known map[string]*list.Element // of *memo, by id
	order list.List
	bytes int64
}

type memo struct {
	*answer
	id   string
	size int64
	at   time.Time
}

// memoSize is about what an answer takes beside its headers and body.
const memoSize = 1 << 10

// get returns the answer that was kept for id, or nil. It forgets what is older than ttl.
func (m *memory) get(id string, ttl time.Duration) *answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	for first := m.order.Front(); first != nil && time.Since(first.Value.(*memo).at) >= ttl; first = m.order.Front() {
		m.dropLocked(first)
	}
	if known := m.known[id]; known != nil {
		return known.Value.(*memo).answer
	}
	return nil
}

// put keeps an answer, and forgets the oldest where they are more than most bytes.
func (m *memory) put(id string, a *answer, most int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = make(map[string]*list.Element)
	}
	size := a.size() + memoSize
	m.known[id] = m.order.PushBack(&memo{a, id, size, time.Now()})
	for m.bytes += size; m.bytes > most && m.order.Len() > 1; {
		m.dropLocked(m.order.Front())
	}
}

func (m *memory) dropLocked(e *list.Element) {
	old := m.order.Remove(e).(*memo)
	delete(m.known, old.id)
	m.bytes -= old.size
}
