package watt

import (
	"strings"
	"sync/atomic"
)

// longAnswer is how long an answer may be, in bytes, before it had better have a connection of its own: over a trunk a
// megabyte takes two to three times as long.
const longAnswer = 16 << 10

// longMemory is for how many short answers a long one is remembered. One that is long and goes over a trunk costs as much
// more as many short ones do that have a connection of their own.
const longMemory = 64

// lengths is what is known of the answers that an app gives another: whether those to paths with one first segment were
// long lately, and all together. Segments may share a place, which costs time and nothing else.
type lengths struct {
	all  length
	some [64]length
}

// length is for how many more answers a kind counts as long. It is below zero if none of late was, and zero if nothing is known.
type length struct{ atomic.Int32 }

func (l *length) note(long bool) {
	switch n := l.Load(); {
	case long && n < longMemory:
		l.Store(longMemory)
	case !long && n >= 0: // it is no matter if others do so at the same time
		l.Store(n - 1)
	}
}

// of returns what kind the answer to a request for a path is.
func (l *lengths) of(path string) *length {
	segment, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	hash := uint32(2166136261) // FNV-1a
	for i := range len(segment) {
		hash = (hash ^ uint32(segment[i])) * 16777619
	}
	return &l.some[hash%uint32(len(l.some))]
}

// long reports whether an answer of a kind is expected to be long.
func (l *lengths) long(kind *length) bool {
	if n := kind.Load(); n != 0 {
		return n > 0
	}
	return l.all.Load() > 0
}

// note notes whether an answer is long.
func (l *lengths) note(kind *length, long bool) {
	kind.note(long)
	l.all.note(long)
}
