//go:build unix

package process

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"sync"
)

// tailSize is how much is kept of what passes, in bytes.
const tailSize = 64 << 10

// beginSize is how much is kept of last words that would be lost otherwise, in bytes.
const beginSize = 8 << 10

// tail keeps the end of what passes, and the beginning of last words that many stacks have followed.
type tail struct {
	next io.Writer

	mu     sync.Mutex
	buf    []byte
	inLine bool   // buf does not begin with a line
	begin  []byte // of the last words that were in buf, and are not any more
}

// Write implements [io.Writer]. It never fails: what does not pass is lost, as it would be if its process wrote to where it
// goes, which must not see its pipe break instead.
func (t *tail) Write(p []byte) (int, error) {
	t.keep(p)
	_, _ = t.next.Write(p)
	return len(p), nil
}

// keep is Write for what does not pass.
func (t *tail) keep(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for part := range slices.Chunk(p, tailSize/2) {
		if over := len(t.buf) + len(part) - tailSize; over > 0 {
			t.dropLocked(over)
		}
		t.buf = append(t.buf, part...)
	}
}

// dropLocked forgets the first n bytes, which are not all. Of last words that begin there it forgets the rest of their line too,
// which begin keeps, up to beginSize.
func (t *tail) dropLocked(n int) {
	for at := 0; at < n; {
		rest, size := t.buf[at:], 0
		if words := beginWords.FindIndex(rest); !t.inLine && words != nil {
			t.begin = slices.Clone(rest[:min(len(rest), beginSize)])
			size = words[1]
			n = max(n, at+min(size, beginSize)) // the rest of a long line is still to be seen
		}
		if end := bytes.IndexByte(rest[size:], '\n'); end >= 0 {
			size += end + 1
		} else {
			size = len(rest)
		}
		at, t.inLine = at+size, false
	}
	t.inLine = t.buf[n-1] != '\n'
	t.buf = t.buf[:copy(t.buf, t.buf[n:])]
}

// cut stands for what is not kept of a line, so that the rest does not look like last words.
const cut = "…"

// text returns what was kept, without the space around it. What looks like stacks, and has no last words, follows those.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	end := t.endLocked()
	own, _, _ := bytes.Cut(end, []byte(otherThreads))
	if t.begin != nil && bytes.Contains(own, []byte("\ngoroutine ")) && !lastWords.Match(own) {
		end = append(append(t.begin, "\n"+cut...), end[min(len(end), len(t.begin)+len("\n"+cut)):]...)
	}
	return strings.TrimSpace(string(end))
}

// endLocked returns the end, in which one can tell if its first line was cut.
func (t *tail) endLocked() []byte {
	if !t.inLine {
		return t.buf
	}
	if rest := bytes.IndexByte(t.buf[:len(cut)], '\n'); rest >= 0 {
		return t.buf[rest+1:]
	}
	return append([]byte(cut), t.buf[len(cut):]...)
}
