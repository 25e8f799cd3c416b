package page

import (
	"math"
	"sync/atomic"
	"unsafe"

	"github.com/org/watt/internal/count"
)

// SlotSize is how many bytes a slot takes: whole cache lines, also on machines that fetch them in pairs,
// so that no child slows down another's counting. What siblings look at is apart from what is only counted.
const (
	SlotSize  = 4096
	shownSize = 128
)

// Slot is what one instance, or an app of the parent's, tells of itself. Durations are in nanoseconds, counters start
// at 0 with the child and only grow.
//
// What a child wrote is what a child wrote: after a fault it may be any number, and two fields never
// belong to the same moment. Whoever reads must come to no harm by that: take numbers through [Within]
// before they become lengths, indexes or divisors, and see that a counter that went back does not
// become a huge difference.
type Slot struct {
	State atomic.Int64 // what it is doing; the meaning is the users'
	Beat  atomic.Int64 // changes as long as the child lives
	doubt atomic.Int64 // 1 + the beat when a connection to it was found broken

	Busy       atomic.Int64 // requests in progress
	Queued     atomic.Int64 // requests waiting
	Room       atomic.Int64 // how many more would be run, or wait and be run in time
	Takes      atomic.Int64 // how long a request takes that has to wait; 0 if it need not, or nothing is known
	RetryAfter atomic.Int64 // what a request that is refused now is told
	Back       atomic.Int64 // of the app as a whole, in its first slot: when it may be back, in Unix nanoseconds; 0 if calls may wait for it

	Conns       atomic.Int64 // long-lived connections
	PublicConns atomic.Int64
	Streams     atomic.Int64 // long-lived requests, which Conns has too
	Upgraded    atomic.Int64 // upgraded connections, which Conns has too
	Overloaded  atomic.Int64 // 1 if it is, else 0

	_ [shownSize - 14*8]byte

	Admission count.Admission
	Served    count.Served // the child counts in it

	_ [SlotSize - shownSize - unsafe.Sizeof(count.Admission{}) - unsafe.Sizeof(count.Served{})]byte
}

// Reset makes all fields 0, one after the other. It is for a slot whose child has ended, or has not
// started yet.
func (s *Slot) Reset() {
	words := (*[SlotSize / 8]atomic.Int64)(unsafe.Pointer(s))
	for i := range words {
		words[i].Store(0)
	}
}

// Doubt tells everybody that a connection to the child was found broken: it may have ended, and nobody has noticed yet.
// It is over when the child shows itself again.
func (s *Slot) Doubt() { s.doubt.Store(s.Beat.Load() + 1) }

// Doubted reports whether that was so since the child last showed itself.
func (s *Slot) Doubted() bool { return s.doubt.Load() == s.Beat.Load()+1 }

// Load is how many requests the instance has to do with, those that wait included.
func (s *Slot) Load() int64 { return Within(&s.Busy, math.MaxInt32) + Within(&s.Queued, math.MaxInt32) }

// Within returns the field's value, or 0 or most if it is outside these two.
func Within(field *atomic.Int64, most int64) int64 { return max(0, min(field.Load(), most)) }
