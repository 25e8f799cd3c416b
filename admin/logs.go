package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"
)

const (
	keptLines   = 1000
	keptBytes   = 8 << 20 // of them, the last aside
	behindLines = 256     // that a reader may be late; it misses others
)

// Logs keeps the last thousand lines of a log, fewer if they are long, and shows them at /logs. It is a [zapcore.Core]:
// make it a part of the runtime's Logger with [zapcore.NewTee]. The zero value takes lines from level info on. What
// instances in processes of their own write does not pass the runtime's Logger: for that, set its Output to the method
// Output.
type Logs struct {
	// Level says what is kept. If nil, info and above. It may be the AtomicLevel of the rest of the Logger.
	Level zapcore.LevelEnabler

	mu      sync.Mutex
	lines   []Line // the oldest first
	bytes   int    // of them, about
	readers map[chan Line]bool
}

// Line is a line of the log.
type Line struct {
	Time  time.Time
	Level zapcore.Level
	App   string // whose logger it was: the first field app
	Text  string
	// Fields as they were when it was written; of several with one name, the last.
	Fields map[string]json.RawMessage
}

// logsWith is Logs for a logger that has fields of its own.
type logsWith struct {
	*Logs
	fields []zapcore.Field
}

// Enabled implements [zapcore.Core].
func (l *Logs) Enabled(level zapcore.Level) bool {
	if l.Level == nil {
		return level >= zapcore.InfoLevel
	}
	return l.Level.Enabled(level)
}

// With implements [zapcore.Core].
func (l *Logs) With(fields []zapcore.Field) zapcore.Core { return &logsWith{l, fields} } //nolint:ireturn // as zapcore has it

// Check implements [zapcore.Core].
func (l *Logs) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return (&logsWith{l, nil}).Check(e, checked)
}

// Write implements [zapcore.Core].
func (l *Logs) Write(e zapcore.Entry, fields []zapcore.Field) error {
	l.add(lineOf(e, fields))
	return nil
}

// Sync implements [zapcore.Core].
func (l *Logs) Sync() error { return nil }

// With implements [zapcore.Core].
func (l *logsWith) With(fields []zapcore.Field) zapcore.Core { //nolint:ireturn // likewise
	return &logsWith{l.Logs, slices.Concat(l.fields, fields)}
}

// Check implements [zapcore.Core].
func (l *logsWith) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if l.Enabled(e.Level) {
		return checked.AddCore(e, l)
	}
	return checked
}

// Write implements [zapcore.Core].
func (l *logsWith) Write(e zapcore.Entry, fields []zapcore.Field) error {
	return l.Logs.Write(e, slices.Concat(l.fields, fields))
}

// Output takes a line that an instance in a process of its own has written, whatever Level says, for
// [watt.Runtime].Output.
func (l *Logs) Output(app string, instance int, line string) {
	l.add(Line{Time: time.Now(), App: app, Text: line, Fields: map[string]json.RawMessage{"instance": json.RawMessage(strconv.Itoa(instance))}})
}

func lineOf(e zapcore.Entry, fields []zapcore.Field) Line {
	line := Line{Time: e.Time, Level: e.Level, Text: e.Message, Fields: make(map[string]json.RawMessage, len(fields))}
	all := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		if f.Key == "app" && line.App == "" { // the logger's own comes first
			line.App = f.String
		}
		f.AddTo(all)
	}
	for name, value := range all.Fields {
		line.Fields[name] = textOf(value)
	}
	return line
}

// textOf returns a field's value as JSON, or else the error as a string. Printing what cannot be encoded might never
// end: it may contain itself.
func textOf(value any) json.RawMessage {
	text, err := encoded(value)
	if err == nil {
		return text
	}
	switch value.(type) {
	case float32, float64, complex64, complex128: // NaN, for one
		text, _ = json.Marshal(fmt.Sprint(value))
	default:
		text, _ = json.Marshal(err.Error())
	}
	return text
}

// encoded is [json.Marshal], which lets panics of a MarshalJSON through.
func encoded(value any) (text json.RawMessage, err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("panic while encoding a %T", value)
		}
	}()
	return json.Marshal(value)
}

// length returns how many bytes a line has, about.
func (l *Line) length() int {
	n := len(l.Text)
	for name, value := range l.Fields {
		n += len(name) + len(value)
	}
	return n
}

func (l *Logs) add(line Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	l.bytes += line.length()
	for len(l.lines) > keptLines || len(l.lines) > 1 && l.bytes > keptBytes {
		l.bytes -= l.lines[0].length()
		l.lines[0] = Line{} // what is behind the slice is kept, too
		l.lines = l.lines[1:]
	}
	for reader := range l.readers {
		select {
		case reader <- line:
		default: // it is too slow
		}
	}
}

// read returns the lines there are, and a channel of those to come, until stop.
func (l *Logs) read() (lines []Line, more chan Line, stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	more = make(chan Line, behindLines)
	if l.readers == nil {
		l.readers = make(map[chan Line]bool)
	}
	l.readers[more] = true
	return slices.Clone(l.lines), more, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.readers, more)
	}
}

func (h *handler) logs(w http.ResponseWriter, r *http.Request) {
	if h.options.Logs == nil {
		plain(w, http.StatusNotFound, "admin.Options.Logs is not set")
		return
	}
	app := r.URL.Query().Get("app")
	lines, more, stop := h.options.Logs.read()
	defer stop()
	s := newStream(w)
	for _, line := range lines {
		if app == "" || line.App == app {
			s.send(line)
		}
	}
	for s.flush() {
		select {
		case line := <-more:
			if app == "" || line.App == app {
				s.send(line)
			}
		case <-r.Context().Done():
			return
		case <-h.watch.ended():
			return
		}
	}
}
