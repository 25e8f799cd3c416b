// Package count has what is counted while requests are served and calls are made: blocks of plain atomic
// numbers of a fixed size and without pointers, so that they can lie in memory that processes share. Whoever
// counts neither allocates nor waits.
//
// Numbers that another process wrote are what it wrote: after a fault they may be anything. All readers take
// them through [Read] or [Span].
package count

import (
	"math"
	"sync/atomic"
	"time"
	"unsafe"
)

// Most is the largest number that is believed: beyond it floats, which metrics are, no longer count every one.
const Most = 1 << 53

// Read returns n, or 0 or Most if it is outside these two.
func Read(n *atomic.Int64) uint64 { return uint64(max(0, min(n.Load(), Most))) }

// Span returns a sum of nanoseconds, or 0 if it is below. It has no Most: what many do at the same time adds up to that
// within a day or two.
func Span(n *atomic.Int64) time.Duration { return time.Duration(max(0, n.Load())) }

// add adds each number of from to that of to.
func add[T any](to, from *T) {
	sums := words(to)
	for i := range words(from) {
		sum := max(0, sums[i].Load())
		sums[i].Store(sum + min(max(0, words(from)[i].Load()), math.MaxInt64-sum))
	}
}

// reset makes all numbers 0, one after the other.
func reset[T any](block *T) {
	for i := range words(block) {
		words(block)[i].Store(0)
	}
}

// words returns a block, which consists of them.
func words[T any](block *T) []atomic.Int64 {
	return unsafe.Slice((*atomic.Int64)(unsafe.Pointer(block)), unsafe.Sizeof(*block)/8)
}
