package count

import (
	"math"
	"sync/atomic"
	"time"
)

// The buckets of [Times] are those of Prometheus's native histograms with schema 2: four to each power of two.
// Bucket i has what is longer than 2^((i-1)/4) and not longer than 2^(i/4) seconds. The first also has all
// that is shorter (than a microsecond), the last all that is longer (than 68 minutes).
const (
	Schema = 2
	First  = -20 * 4
	Last   = 12*4 + 1
)

// Times is a distribution of durations.
type Times struct {
	sum     atomic.Int64 // nanoseconds
	buckets [Last - First + 1]atomic.Int64
}

// Add counts a duration. Negative ones count as 0.
func (t *Times) Add(d time.Duration) {
	d = max(0, d)
	t.sum.Add(int64(d))
	t.buckets[max(First, min(bucket(d), Last))-First].Add(1)
}

// bucket returns the number of d's bucket, as Prometheus's client library finds it.
func bucket(d time.Duration) int {
	fraction, exponent := math.Frexp(float64(d) / float64(time.Second))
	i := 4 * (exponent - 1)
	switch {
	case d == 0:
		return First
	case fraction > 0.8408964152537144: // 2^(-1/4)
		return i + 4
	case fraction > 0.7071067811865475:
		return i + 3
	case fraction > 0.5946035575013605:
		return i + 2
	case fraction > 0.5:
		return i + 1
	}
	return i
}

// Limit returns the longest duration, in seconds, that bucket i has.
func Limit(i int) float64 {
	quarter := [4]float64{0.5, 0.5946035575013605, 0.7071067811865475, 0.8408964152537144}
	return math.Ldexp(quarter[i&3], i>>2+1)
}

// Read returns the sum of all durations, and how many each bucket has. Only buckets that have some are there.
func (t *Times) Read() (sum time.Duration, buckets map[int]uint64) {
	buckets = make(map[int]uint64)
	for i := range t.buckets {
		if n := Read(&t.buckets[i]); n > 0 {
			buckets[First+i] = n
		}
	}
	return Span(&t.sum), buckets
}
