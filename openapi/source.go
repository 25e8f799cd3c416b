package openapi

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/org/watt"
)

// Reasons why an app is left out.
const (
	noAnswer    = "no-answer"
	noDocument  = "no-document"
	tooLarge    = "too-large"
	invalid     = "invalid"
	unsupported = "unsupported"
	clash       = "clash"
)

// missingError is why an app is left out. Strangers may know all but err.
type missingError struct {
	reason string
	path   string // of a clash
	err    error
}

// Error returns the reason and what is behind it.
func (e *missingError) Error() string { return e.reason + ": " + e.err.Error() }

// Unwrap returns what is behind the reason.
func (e *missingError) Unwrap() error { return e.err }

// missing returns an error with a reason and, in the words of a format, what is behind it.
func missing(reason, format string, args ...any) error {
	return &missingError{reason: reason, err: fmt.Errorf(format, args...)}
}

// reasonOf returns what an error has to say of an app that is left out.
func reasonOf(err error) *missingError {
	if m, ok := errors.AsType[*missingError](err); ok {
		return m
	}
	return &missingError{reason: invalid, err: err}
}

// source is where one app's document comes from. One goroutine at a time uses it.
type source struct {
	app      string
	prefix   string // without a slash at the end
	url      *url.URL
	own      []byte // the document, if nobody is asked for it
	maxBytes int64
	client   http.RoundTripper // which follows no redirect: an app must not send the gateway elsewhere

	data     []byte // what was loaded last
	part     *part  // made of data
	reported string // the reason that was logged last
}

func newSource(env *watt.Env, app App, maxBytes int64) *source {
	u, err := url.Parse("http://" + app.Name + ".watt.local" + cmp.Or(app.Path, "/openapi.json"))
	if err != nil {
		panic("openapi: New: " + err.Error())
	}
	return &source{
		app: app.Name, prefix: strings.TrimRight(cmp.Or(app.Prefix, "/"+app.Name), "/"), url: u, own: bytes.Clone(app.Data),
		maxBytes: maxBytes, client: env.Client.Transport,
	}
}

// load returns the app's part of the merged document, the same as before if its document is.
func (s *source) load(ctx context.Context) (_ *part, err error) {
	defer recovered(&err)
	data := s.own
	if data == nil {
		if data, err = s.fetch(ctx); err != nil {
			return nil, err
		}
	}
	if s.part != nil && bytes.Equal(data, s.data) {
		return s.part, nil
	}
	p, err := newPart(ctx, s, data)
	if err != nil {
		return nil, err
	}
	s.data, s.part = data, p
	return p, nil
}

func (s *source) fetch(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url.String(), http.NoBody)
	if err != nil {
		return nil, missing(noAnswer, "%w", err)
	}
	req.Header.Set("Accept", "application/json, application/yaml;q=0.9, */*;q=0.1")
	resp, err := s.client.RoundTrip(req)
	if err != nil {
		return nil, missing(noAnswer, "%w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, missing(noDocument, "answered %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, s.maxBytes+1))
	switch {
	case err != nil:
		return nil, missing(noAnswer, "%w", err)
	case int64(len(data)) > s.maxBytes:
		return nil, missing(tooLarge, "more than %d bytes", s.maxBytes)
	}
	return data, nil
}

// recovered makes an error of a panic: in a goroutine of ours it would end the program.
func recovered(err *error) {
	if reason := recover(); reason != nil {
		*err = fmt.Errorf("panic: %v\n%s", reason, debug.Stack())
	}
}
