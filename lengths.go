package watt

import (
	"strings"
	"sync/atomic"
)

// longAnswer is how long an answer may be, in bytes, before it had better have a connection of its own: over a trunk a
// megabyte takes two to three times as long.
const longAnswer = 16 << 10

// longMemory is for how many short answers a long one is remembered. A long answer that goes over a trunk costs as much
// time as many short ones that needlessly have a connection of their own.
const longMemory = 64

// lengths remembers whether the answers that an app gives another were long lately: those to paths with the same first
// segment, and all together. Two segments may share an entry, which at worst costs time.
type lengths struct {
	all  length
	some [64]length
}

// length says what to expect of an answer. Above zero: a long one, until so many have been short. Below zero: a short one,
// as all were lately. Zero: nothing is known.
type length struct{ atomic.Int32 }

func (l *length) note(long bool) {
	switch n := l.Load(); {
	case long && n < longMemory:
		l.Store(longMemory)
	case !long && n >= 0: // it is no matter if others do so at the same time
		l.Store(n - 1)
	}
}

// of returns the length of answers to requests for a path.
func (l *lengths) of(path string) *length {
	segment, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	hash := uint32(2166136261) // FNV-1a
	for i := range len(segment) {
		hash = (hash ^ uint32(segment[i])) * 16777619
	}
	return &l.some[hash%uint32(len(l.some))]
}

// long reports whether an answer is expected to be long.
func (l *lengths) long(known *length) bool {
	if n := known.Load(); n != 0 {
		return n > 0
	}
	return l.all.Load() > 0
}

// note notes whether an answer was long.
func (l *lengths) note(known *length, long bool) {
	known.note(long)
	l.all.note(long)
}

// noteLength notes, once, whether the answer is long, if that matters.
func (c *call) noteLength(long bool) {
	if c.length != nil {
		c.edge.lengths.note(c.length, long)
		c.length = nil
	}
}
