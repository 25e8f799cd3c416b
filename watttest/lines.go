package watttest

import (
	"strings"
	"sync"
	"testing"
)

// lines writes to a test's log until the test ends: what is left behind may still write, and must not then.
type lines struct {
	mu   sync.Mutex
	tb   testing.TB
	over bool
}

// Write writes a line.
func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.tb.Log(strings.TrimSuffix(string(line), "\n"))
	}
	return len(line), nil
}

// Sync implements zapcore.WriteSyncer.
func (l *lines) Sync() error { return nil }

func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}
