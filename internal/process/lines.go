package process

import (
	"bytes"
	"io"
	"sync"
)

// longestLine is how much of a line is given at once, in bytes.
const longestLine = 4 << 10

// lines gives what passes to somebody else, line by line.
type lines struct {
	next io.Writer
	give func(line string)

	mu   sync.Mutex
	rest []byte // of a line that has not ended
}

// Lines returns a writer that passes everything on to next, and then gives its lines, without their ends, to give; long
// ones in pieces. A last line that never ends is not given. Writing never fails, as that of a tail does not.
func Lines(next io.Writer, give func(line string)) io.Writer { return &lines{next: next, give: give} }

// Write implements [io.Writer].
func (l *lines) Write(p []byte) (int, error) {
	_, _ = l.next.Write(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		end := bytes.IndexByte(l.rest, '\n')
		switch {
		case end >= 0 && end <= longestLine:
			l.give(string(bytes.TrimSuffix(l.rest[:end], []byte("\r"))))
			l.rest = l.rest[end+1:]
		case len(l.rest) > longestLine:
			l.give(string(l.rest[:longestLine]))
			l.rest = l.rest[longestLine:]
		default:
			l.rest = append([]byte(nil), l.rest...) // and not all that there was
			return len(p), nil
		}
	}
}
