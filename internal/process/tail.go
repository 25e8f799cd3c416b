package process

import (
	"io"
	"strings"
	"sync"
)

// tailSize is how much is kept of what passes, in bytes.
const tailSize = 64 << 10

// tail keeps the end of what passes.
type tail struct {
	next io.Writer
	mu   sync.Mutex
	buf  []byte
}

// Write implements [io.Writer]. It never fails: what does not pass is lost, as it would be if its process wrote to where it
// goes, which must not see its pipe break instead.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	last := p[max(0, len(p)-tailSize):]
	if over := len(t.buf) + len(last) - tailSize; over > 0 {
		t.buf = t.buf[:copy(t.buf, t.buf[over:])]
	}
	t.buf = append(t.buf, last...)
	t.mu.Unlock()
	_, _ = t.next.Write(p)
	return len(p), nil
}

// text returns what was kept, without the space around it.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}
