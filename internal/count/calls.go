package count

import (
	"sync/atomic"
	"time"
)

// Calls is what is counted of one app's calls of another, when they end.
type Calls struct {
	Sent     atomic.Int64 // bytes of requests' bodies
	Received atomic.Int64 // bytes of answers
	Duration Times        // of all, failed ones included, up to the end of the answer
	errors   [Kinds]atomic.Int64

	_ [5]int64 // to whole cache lines
}

// Kind says why a call has failed.
type Kind int

// The kinds.
const (
	None Kind = iota
	Overloaded
	Unavailable
	Timeout
	Canceled
	Died
	Other

	Kinds = int(Other) + 1
)

// String returns the kind as one word, fit for a metric's label.
func (k Kind) String() string {
	return [Kinds]string{"", "overloaded", "unavailable", "timeout", "canceled", "died", "other"}[k]
}

// Ended counts a call.
func (c *Calls) Ended(took time.Duration, failed Kind) {
	c.Duration.Add(took)
	if failed != None {
		c.errors[failed].Add(1)
	}
}

// Errors returns the failed calls by kind; only those that there were.
func (c *Calls) Errors() map[string]uint64 {
	all := make(map[string]uint64)
	for i := range c.errors {
		if n := Read(&c.errors[i]); n > 0 {
			all[Kind(i).String()] = n
		}
	}
	return all
}

// Add adds what other has counted.
func (c *Calls) Add(other *Calls) { add(c, other) }

// Reset makes all numbers 0, one after the other.
func (c *Calls) Reset() { reset(c) }
