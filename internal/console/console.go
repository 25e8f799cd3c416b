// Package console logs for people who have said nothing about logging.
package console

import (
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// New returns a logger that writes warnings and errors to w, in zap's console form.
func New(w zapcore.WriteSyncer) *zap.Logger {
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	return zap.New(core{zapcore.NewCore(encoder, zapcore.Lock(w), zapcore.WarnLevel)})
}

// core writes a stack below its line, as net/http does, and not into it.
type core struct{ zapcore.Core }

// With implements [zapcore.Core].
func (c core) With(fields []zapcore.Field) zapcore.Core { return core{c.Core.With(fields)} } //nolint:ireturn // as zapcore has it

// Check implements [zapcore.Core].
func (c core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements [zapcore.Core].
func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	i := slices.IndexFunc(fields, func(f zapcore.Field) bool { return f.Key == "stack" })
	if i < 0 {
		return c.Core.Write(e, fields)
	}
	if stack, ok := fields[i].Interface.([]byte); ok {
		e.Stack = strings.TrimSpace(string(stack))
		fields = slices.Concat(fields[:i], fields[i+1:])
	}
	return c.Core.Write(e, fields)
}
