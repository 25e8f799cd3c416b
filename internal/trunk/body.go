package trunk

import (
	"context"
	"encoding/binary"
	"io"
	"maps"
	"net/http"
	"sync"
)

// body is that of an answer.
type body struct {
	call *call
	resp *http.Response
	stop func() bool // ends the watch over the caller's context; nil if there is none
	read int64       // bytes that the callee has had no credit for; of the one who reads

	mu   sync.Mutex
	rest string // of an answer that has come whole, what was not read
	err  error  // what Read returns from now on
}

func newBody(ctx context.Context, x *call, resp *http.Response) *body {
	b := &body{call: x, resp: resp, rest: x.answer.body}
	if x.in == nil {
		return b
	}
	stop := context.AfterFunc(ctx, func() {
		if b.end(context.Cause(ctx)) == nil {
			b.giveUp()
		}
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stop = stop; b.err != nil {
		stop()
	}
	return b
}

// Read reads the body. It blocks until there is some of it, or will be no more.
func (b *body) Read(p []byte) (int, error) {
	if b.call.in == nil {
		return b.held(p)
	}
	if err := b.ended(); err != nil {
		return 0, err
	}
	n, err := b.call.in.Read(p)
	b.credit(n)
	switch err {
	case nil:
		return n, nil
	case io.EOF: //nolint:errorlint // an inflow returns it bare
		if err = b.call.failed(); err == nil {
			err = io.EOF
			b.trailers()
		}
	}
	if earlier := b.end(err); earlier != nil {
		err = earlier
	}
	return n, err
}

// held reads what has come with the head.
func (b *body) held(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx := b.call.req.Context(); b.err == nil && ctx.Err() != nil {
		b.err = context.Cause(ctx)
	}
	if b.err != nil {
		return 0, b.err
	}
	n := copy(p, b.rest)
	if b.rest = b.rest[n:]; len(b.rest) == 0 {
		b.err = io.EOF
	}
	return n, b.err
}

// credit lets the callee send as much as was read, once that is worth a frame.
func (b *body) credit(n int) {
	if b.read += int64(n); b.read < window/4 {
		return
	}
	frame := binary.AppendUvarint(begin(nil, kindCredit, b.call.id), uint64(b.read))
	b.call.room.Add(b.read)
	b.read = 0
	b.call.conn.out.tell(end(frame, 0))
}

// trailers makes what has come after the body the trailers of the answer.
func (b *body) trailers() {
	b.call.mu.Lock()
	defer b.call.mu.Unlock()
	if b.resp.Trailer == nil && len(b.call.trailer) > 0 {
		b.resp.Trailer = make(http.Header)
	}
	maps.Copy(b.resp.Trailer, b.call.trailer)
}

// ended returns why nothing more can be read.
func (b *body) ended() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// end makes Read return err from now on. It returns what Read has returned before, if it has come to an end.
func (b *body) end(err error) (earlier error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	b.err = err
	if b.stop != nil {
		b.stop()
	}
	return nil
}

// Close gives up what was not read.
func (b *body) Close() error {
	if b.end(http.ErrBodyReadAfterClose) == nil && b.call.in != nil {
		b.giveUp()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest, b.err = "", http.ErrBodyReadAfterClose
	return nil
}

// giveUp ends the reading, and has the callee told.
func (b *body) giveUp() {
	b.call.in.close()
	b.call.giveUp()
}
