package roundtrip

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
)

// Log is told of what nobody else hears of, such as panics that have become errors.
type Log interface {
	Printf(format string, args ...any)
}

// Guard returns body with the panics of its Read and Close made errors, and told to log unless that is nil. What these
// have met is a [BodyError]. It is for bodies that are read in goroutines which are not the caller's: there nobody else
// could deal with a panic, so that it would end the program.
func Guard(body io.ReadCloser, log Log) io.ReadCloser { return &guarded{body, log} }

// GuardBody returns req with its body guarded, also when it is sent again, and chunked if its trailers need that, unless it is
// in memory.
func GuardBody(req *http.Request, log Log) *http.Request {
	if _, memory := InMemory(req.Body); memory || !HasBody(req) {
		return req
	}
	out := *req
	out.Body = Guard(req.Body, log)
	if req.GetBody != nil {
		out.GetBody = func() (io.ReadCloser, error) {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			return Guard(body, log), nil
		}
	}
	ChunkTrailed(&out)
	return &out
}

// ChunkTrailed has a body of unknown length chunked that has trailers. Of one that its method hardly has, net/http would look
// for the first byte: an empty one would go without its trailers, and one that ends late fill them while their names are written.
func ChunkTrailed(req *http.Request) {
	if len(req.Trailer) > 0 && req.ContentLength <= 0 {
		req.TransferEncoding = []string{"chunked"}
	}
}

// BodyError is what reading the body of a request, or closing it, has met. It may look like a fault of the connection, and is none.
type BodyError struct{ Err error }

// Error returns the text of Err.
func (e *BodyError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *BodyError) Unwrap() error { return e.Err }

// ErrEnded is what becomes of a request whose body ends the goroutine that reads it, by [runtime.Goexit].
var ErrEnded error = &BodyError{errors.New("the body has ended its goroutine")}

type guarded struct {
	body io.ReadCloser
	log  Log
}

// Read implements [io.Reader].
func (g *guarded) Read(p []byte) (n int, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			n, err = 0, Panicked("the body", reason, g.log)
		}
		if err != nil && err != io.EOF { //nolint:errorlint // Read returns it bare
			err = &BodyError{err}
		}
	}()
	if n, err = g.body.Read(p); n < 0 || n > len(p) {
		panic(fmt.Sprintf("%d bytes read into %d", n, len(p))) // as whoever copies would
	}
	return n, err
}

// Close implements [io.Closer].
func (g *guarded) Close() (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = Panicked("the body", reason, g.log)
		}
		if err != nil {
			err = &BodyError{err}
		}
	}()
	return g.body.Close()
}

// Panicked returns the error for what has panicked, and tells log unless that is nil. It is called while the stack still shows where.
func Panicked(what string, reason any, log Log) error {
	if log != nil {
		log.Printf("http: %s has panicked: %v\n%s", what, reason, debug.Stack())
	}
	return fmt.Errorf("%s has panicked: %v", what, reason)
}
