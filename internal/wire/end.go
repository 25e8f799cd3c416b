package wire

import (
	"context"
	"errors"
	"time"

	"github.com/org/watt/internal/roundtrip"
)

// wrote is called when the request is out, or could not be written.
func (x *exchange) wrote(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.written = true
	if err != nil {
		x.cut = true
		x.blame(err)
	}
	if x.late != nil {
		x.releaseLocked()
	}
}

// blame decides what becomes of an exchange whose request could not be written because of err. If the connection has
// failed, or the server has refused the body, the answer may say why. Else it is the request's own fault, and nobody will
// answer.
func (x *exchange) blame(err error) {
	if _, failed := x.c.out.progress(); failed || x.over {
		return
	}
	if reason := x.body.failed(); errors.Is(reason, errNotWanted) {
		return
	} else if reason != nil {
		err = reason // Request.Write has wrapped it so that it cannot be recognized
	}
	x.fault = err
	x.c.close()
}

// why returns the reason behind err, which is what reading the answer has met.
func (x *exchange) why(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		x.lost = false
		return context.Cause(ctx)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fault != nil {
		x.lost = false
		return x.fault
	}
	return err
}

// faultless reports whether nothing is wrong with the request.
func (x *exchange) faultless() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.fault == nil
}

// finish is called when the answer was read to its end, or is given up.
func (x *exchange) finish(whole bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over || x.late != nil {
		return
	}
	x.keep = x.keep && whole
	if x.written || !x.keep {
		x.releaseLocked()
		return
	}
	x.late = time.AfterFunc(roundtrip.LateBody, x.tooLate)
}

func (x *exchange) tooLate() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.keep = false
	x.releaseLocked()
}

// releaseLocked keeps the connection for the next request, or closes it.
func (x *exchange) releaseLocked() {
	if x.over {
		return
	}
	x.over = true
	if x.late != nil {
		x.late.Stop()
	}
	if x.stop() && x.keep && !x.cut && x.c.br.Buffered() == 0 {
		x.pool.put(x.c)
		return
	}
	x.c.close()
	if x.body != nil && !x.written { // else Request.Write has closed it
		x.body.abandon()
	}
}
