package roundtrip_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/org/watt/internal/roundtrip"
)

type abandoned int

func (a *abandoned) Abandon() { *a++ }

func TestOnlyTheFirstEndOfABodyCountsAndItsEndByTheContextAbandonsIt(t *testing.T) {
	cause := errors.New("the caller has gone")
	for name, test := range map[string]struct {
		before, after func(e *roundtrip.Ending, cancel context.CancelCauseFunc) // the watch has begun
		want          error
		abandoned     abandoned
	}{
		"read to the end": {nil, func(e *roundtrip.Ending, _ context.CancelCauseFunc) { e.End(io.EOF) }, io.EOF, 0},
		"the context":     {nil, func(_ *roundtrip.Ending, cancel context.CancelCauseFunc) { cancel(cause) }, cause, 1},
		"before":          {func(_ *roundtrip.Ending, cancel context.CancelCauseFunc) { cancel(cause) }, nil, cause, 1},
		"closed before": {
			func(e *roundtrip.Ending, _ context.CancelCauseFunc) { e.Close() },
			func(_ *roundtrip.Ending, cancel context.CancelCauseFunc) { cancel(cause) }, http.ErrBodyReadAfterClose, 0,
		},
		"closed after": {
			func(_ *roundtrip.Ending, cancel context.CancelCauseFunc) { cancel(cause) },
			func(e *roundtrip.Ending, _ context.CancelCauseFunc) { synctest.Wait(); e.Close() }, http.ErrBodyReadAfterClose, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				var e roundtrip.Ending
				var n abandoned
				if test.before != nil {
					test.before(&e, cancel)
				}
				e.Watch(ctx, &n)
				if test.after != nil {
					test.after(&e, cancel)
				}
				synctest.Wait()
				if err := e.Err(); !errors.Is(err, test.want) || n != test.abandoned {
					t.Errorf("got %v, abandoned %d times", err, n)
				}
				if earlier := e.End(io.ErrUnexpectedEOF); !errors.Is(earlier, test.want) {
					t.Errorf("a second end has found %v", earlier)
				}
			})
		})
	}
}
