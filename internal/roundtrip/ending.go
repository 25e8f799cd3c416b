package roundtrip

import (
	"context"
	"net/http"
	"sync"
)

// Ending is why the body of an answer cannot be read any more. The zero value is that of one that can be.
type Ending struct {
	mu   sync.Mutex
	err  error
	stop func() bool // ends the watch over a context; nil if there is none
}

// Err returns what Read has to return from now on, or nil.
func (e *Ending) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// End makes err that. If the body has come to an end before, it returns why, and changes nothing.
func (e *Ending) End(err error) (earlier error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return e.err
	}
	e.err = err
	if e.stop != nil {
		e.stop()
	}
	return nil
}

// Close is End for a body that is closed, whatever Read has returned before. It reports whether that comes early.
func (e *Ending) Close() (early bool) {
	early = e.End(http.ErrBodyReadAfterClose) == nil
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = http.ErrBodyReadAfterClose
	return early
}

// Watch has the body end with ctx, and x abandoned then if that comes early.
func (e *Ending) Watch(ctx context.Context, x interface{ Abandon() }) {
	stop := context.AfterFunc(ctx, func() {
		if e.End(context.Cause(ctx)) == nil {
			x.Abandon()
		}
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stop = stop; e.err != nil {
		stop()
	}
}
