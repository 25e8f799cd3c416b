package wire

import (
	"errors"
	"io"
	"syscall"
)

// Read reads the answer's body. When it has come to the end, the connection is free again.
func (x *exchange) Read(p []byte) (int, error) {
	if err := x.ending.Err(); err != nil {
		return 0, err
	}
	n, err := x.answer.Read(p)
	if err == nil {
		return n, nil
	}
	if x.toEnd && errors.Is(err, syscall.ECONNRESET) && x.unread() {
		err = io.EOF
	}
	if err == io.EOF { //nolint:errorlint // Read returns it bare
		x.finish(true)
	} else {
		x.finish(false)
		err = x.why(x.req.Context(), err)
	}
	if earlier := x.ending.End(err); earlier != nil {
		err = earlier
	}
	return n, err
}

// unread reports whether the server has ended the connection before it has read the whole request, as it does where it has
// refused its headers. Then the system says so after what the server has answered, in place of the end.
func (x *exchange) unread() bool {
	_, failed := x.c.out.progress()
	return failed
}

// Close gives up what was not read of the answer, and with it the connection.
func (x *exchange) Close() error {
	x.finish(false)
	_ = x.ending.Close()
	return nil
}

// upgraded is the connection after 101 Switching Protocols. As with net/http it is the caller's, and outlives the
// request's context: that is often the handshake's alone.
type upgraded struct{ x *exchange }

// Read reads what the other side sends in the new protocol.
func (u *upgraded) Read(p []byte) (int, error) { return u.x.c.br.Read(p) }

// Write sends p in the new protocol.
func (u *upgraded) Write(p []byte) (int, error) { return u.x.c.nc.Write(p) }

// CloseWrite ends this direction alone.
func (u *upgraded) CloseWrite() error {
	if half, ok := u.x.c.nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close ends both directions.
func (u *upgraded) Close() error {
	u.x.finish(false)
	return nil
}
