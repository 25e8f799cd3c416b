package watt

import (
	"context"
	"errors"
	"net"
	"net/http"
)

// side is an instance in another process, as those who call it see it.
type side interface {
	// key identifies the connections that are kept to it.
	key() any
	// connect opens one.
	connect(ctx context.Context, caller string) (net.Conn, error)
}

// cross sends a request to one of several instances in other processes: to the one that pick prefers, and if
// that refuses it or is gone before it has begun, once to another.
func (c *call) cross(req *http.Request, pick func(ctx context.Context, not side) (side, error)) (*http.Response, error) {
	to, err := pick(c.ctx, nil)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := c.try(req, to)
	if err == nil || !untouched(err) {
		return resp, err
	}
	again := repeatable(req)
	if again == nil {
		return nil, err
	}
	if other, none := pick(c.ctx, to); none == nil {
		return c.try(again, other)
	}
	return nil, err
}

func (c *call) try(req *http.Request, to side) (*http.Response, error) {
	return c.withTimer(req, c.mesh.kept(to.key(), to.connect).RoundTrip)
}

// untouched reports whether err is the refusal of a door, or means that there was none.
func untouched(err error) bool {
	call, refused := errors.AsType[*CallError](err)
	return refused && !call.Started && !errors.Is(err, context.DeadlineExceeded) || undialled(err)
}

// repeatable returns a request that can be sent once more, or nil.
func repeatable(req *http.Request) *http.Request {
	if req.Body == nil || req.Body == http.NoBody {
		return req
	}
	if req.GetBody == nil {
		return nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil
	}
	again := req.WithContext(req.Context())
	again.Body = body
	return again
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}
