package direct

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/org/watt/internal/pipe"
	"github.com/org/watt/internal/roundtrip"
)

// answerBody is the body of the answer as the caller reads it.
type answerBody struct {
	x       *Exchange
	pipe    *pipe.Conn // of an answer that was not handed over whole; the caller's end
	left    int64      // what must come yet; -1 if it is not known
	trailer http.Header
	cut     atomic.Bool // the handler has ended before the end of its answer
	ending  roundtrip.Ending
	held    pipe.Held // what was handed over whole
}

// begin is called when the caller is about to get the answer. If that is whole, what was held back is its body.
func (b *answerBody) begin(x *Exchange, length int64, whole bool) {
	b.x, b.left = x, length
	if !whole {
		b.pipe, _ = x.ends()
		return
	}
	b.held.Hold(x.Buffers, x.out.memory, len(x.out.buf))
	x.out.memory, x.out.buf = nil, nil
}

// watch lets the end of the caller's context end the reading.
func (b *answerBody) watch() {
	if b.pipe != nil {
		b.ending.Watch(b.x.caller.Context(), b.x)
	}
}

// Read reads the body. It blocks until there is some.
func (b *answerBody) Read(p []byte) (int, error) {
	if err := b.ended(); err != nil {
		return 0, err
	}
	n, err := b.next(p)
	if b.left >= 0 {
		if b.left -= int64(n); b.left == 0 {
			err = io.EOF
		}
	}
	switch {
	case err == nil:
		return n, nil
	case err != io.EOF: //nolint:errorlint // Read returns it bare
	case b.left > 0, b.left < 0 && b.cut.Load():
		err = io.ErrUnexpectedEOF
	case b.x.answer.TransferEncoding != nil && b.trailer != nil:
		b.x.answer.Trailer = merge(b.x.answer.Trailer, b.trailer)
	}
	if earlier := b.ending.End(err); earlier != nil {
		return n, earlier
	}
	b.x.complete()
	return n, err
}

// next reads from where the body is.
func (b *answerBody) next(p []byte) (int, error) {
	if b.pipe == nil {
		return b.held.Read(p)
	}
	if b.left >= 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	return b.pipe.Read(p)
}

// ended returns why nothing more can be read.
func (b *answerBody) ended() error {
	err := b.ending.Err()
	if ctx := b.x.caller.Context(); err == nil && b.pipe == nil && ctx.Err() != nil { // nobody watches for that
		err = context.Cause(ctx)
	}
	return err
}

// Close gives up what was not read, and has the handler told if it is still at it.
func (b *answerBody) Close() error {
	if b.ending.Close() && b.pipe != nil {
		b.x.Abandon()
	}
	b.held.Drop()
	return nil
}
