package pyramid

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/org/watt"
)

// Why a part failed, if not because of its call.
var (
	errInvalid  = errors.New("what came is not JSON")
	errTooLarge = errors.New("what came is longer than MaxBytes")
	errPanicked = errors.New("it panicked")
	errEnded    = errors.New("it ended its goroutine")
)

// suffix ends the names of apps in URLs.
const suffix = ".watt.local"

// content is what became of a part that has not failed.
type content struct {
	json    []byte
	memory  *[]byte // which holds json, and can be used again after it; nil if it cannot
	partial string  // its own X-Watt-Partial, if it was composed too and something in it has failed
}

// fetch calls the part's app and returns its JSON as it came, in memory out of bodies unless that is nil.
func (p *part) fetch(ctx context.Context, u *url.URL, header http.Header, bodies *sync.Pool) (content, error) {
	req := http.Request{
		Method: http.MethodGet, URL: u, Host: u.Host, Header: header, Body: http.NoBody,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	resp, err := p.env.Client.Transport.RoundTrip(req.WithContext(ctx)) // not Client: it follows redirects
	if err != nil {
		return content{}, p.callError(err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		_, err := watt.JSON[struct{}](resp, nil)
		return content{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return content{json: []byte("null")}, nil
	}
	got := content{partial: strings.Join(resp.Header[headerPartial], ", ")}
	if bodies != nil {
		if got.memory, _ = bodies.Get().(*[]byte); got.memory == nil {
			got.memory = new([]byte)
		}
		got.json = (*got.memory)[:0]
	}
	got.json, err = read(got.json, resp.Body, resp.ContentLength, p.MaxBytes)
	if err == nil && !json.Valid(got.json) {
		err = errInvalid
	}
	if err != nil {
		return content{}, p.callError(err)
	}
	if bodies != nil {
		*got.memory = got.json
	}
	return got, nil
}

// callError returns err as a CallError, which it may be already: what went wrong is the app's.
func (p *part) callError(err error) error {
	if _, ok := errors.AsType[*watt.CallError](err); ok {
		return err
	}
	return &watt.CallError{Caller: p.env.App, App: p.App, Started: true, Err: err}
}

// announced is how much memory is made for a length that was only announced, in bytes.
const announced = 64 << 10

// read appends to buf, which is empty, all of body, which has size bytes, or -1 if that is not known, and at most most.
// Where size is known, and not large, it allocates once, or not at all.
func read(buf []byte, body io.Reader, size, most int64) ([]byte, error) {
	if size > most {
		return nil, errTooLarge
	}
	if size < 0 {
		size = min(most, 1<<10)
	}
	buf = slices.Grow(buf, int(min(size, announced))+1) // the last Read has only the end to tell
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, cap(buf))
		}
		room := int64(cap(buf))
		if most < room {
			room = most + 1
		}
		n, err := body.Read(buf[len(buf):room])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > most:
			return nil, errTooLarge
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return nil, err
		}
	}
}

// compute calls the part's function.
func (p *part) compute(r *http.Request) (content, error) {
	ctx := r.Context() // of which the function may make another one
	v, err := p.Func(r)
	if err != nil {
		_ = reasonOf(err) // a nil pointer that has become an error may panic when it is asked: here, and not later
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err) // gRPC has an error of its own for it
		}
		return content{}, err
	}
	body, err := encode(v)
	if err == nil && int64(len(body)) > p.MaxBytes {
		err = errTooLarge
	}
	return content{json: body}, err
}

// encode returns v in JSON, as it is if it is that already.
func encode(v any) ([]byte, error) {
	raw, ok := v.(json.RawMessage)
	switch {
	case ok && raw == nil:
		return []byte("null"), nil
	case ok && !json.Valid(raw):
		return nil, errInvalid
	case ok:
		return raw, nil
	}
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errInvalid, err)
	}
	return body, nil
}

// late is the error of a part whose time is up.
func (p *part) late() error {
	if p.Func != nil {
		return context.DeadlineExceeded
	}
	return p.callError(context.DeadlineExceeded)
}
