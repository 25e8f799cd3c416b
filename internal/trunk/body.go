package trunk

import (
	"context"
	"encoding/binary"
	"io"
	"maps"
	"net/http"

	"github.com/org/watt/internal/roundtrip"
)

// body is that of an answer.
type body struct {
	call   *call
	resp   *http.Response
	ending roundtrip.Ending

	// Of the one who reads:
	read int64 // bytes for which the callee has had no credit
}

func (b *body) begin(ctx context.Context, x *call, resp *http.Response) {
	b.call, b.resp = x, resp
	if x.in != nil {
		b.ending.Watch(ctx, b)
	}
}

// Read reads the body. It blocks until there is some of it, or will be no more.
func (b *body) Read(p []byte) (int, error) {
	if err := b.ended(); err != nil {
		return 0, err
	}
	n, err := b.next(p)
	if err != nil {
		if earlier := b.ending.End(err); earlier != nil {
			err = earlier
		}
	}
	return n, err
}

// ended returns why nothing more can be read.
func (b *body) ended() error {
	err := b.ending.Err()
	if ctx := b.call.req.Context(); err == nil && b.call.in == nil && ctx.Err() != nil { // nobody watches for that
		err = context.Cause(ctx)
	}
	return err
}

// next reads from where the body is.
func (b *body) next(p []byte) (int, error) {
	if b.call.in == nil {
		return b.call.held.Read(p)
	}
	n, err := b.call.in.Read(p)
	b.credit(n)
	if err == io.EOF { //nolint:errorlint // an inflow returns it bare
		if failed := b.call.failed(); failed != nil {
			return n, failed
		}
		b.trailers()
	}
	return n, err
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

// Close gives up what was not read.
func (b *body) Close() error {
	if b.ending.Close() && b.call.in != nil {
		b.Abandon()
	}
	b.call.held.Drop()
	return nil
}

// Abandon drops what may still come, and has the callee told.
func (b *body) Abandon() {
	b.call.in.close()
	b.call.giveUp()
}
