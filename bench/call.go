package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// deadline is what every call has, and none reaches.
const deadline = 10 * time.Second

// send is [http.Client.Do], or what stands for it.
type send func(*http.Request) (*http.Response, error)

// url is where the mesh, and whoever plays it, finds host.
func url(host string) string { return "http://" + host + ".watt.local/" }

// get asks for url and verifies that the answer is want.
func get(s send, url string, want []byte) op {
	buffer := make([]byte, chunkSize)
	return func(ctx context.Context) error {
		return call(ctx, s, http.MethodGet, url, http.NoBody, func(body io.Reader) error {
			rest := want
			for {
				n, err := body.Read(buffer)
				if n > len(rest) || !alike(buffer[:n], rest[:n]) {
					return errWrongAnswer
				}
				rest = rest[n:]
				if errors.Is(err, io.EOF) && len(rest) == 0 {
					return nil
				}
				if err != nil {
					return fmt.Errorf("%d bytes missing: %w", len(rest), err)
				}
			}
		})
	}
}

// alike compares two slices of the same length: all of it if short, and otherwise the ends, because
// the comparing of a megabyte would cost as much as its transport.
func alike(a, b []byte) bool {
	const end = 1024
	if len(a) <= 2*end {
		return bytes.Equal(a, b)
	}
	rest := len(a) - end
	return bytes.Equal(a[:end], b[:end]) && bytes.Equal(a[rest:], b[rest:])
}

// post sends body to url and has its length confirmed.
func post(s send, url string, body []byte) op {
	want := strconv.Itoa(len(body))
	return func(ctx context.Context) error {
		return call(ctx, s, http.MethodPost, url, bytes.NewReader(body), func(body io.Reader) error {
			if got, err := io.ReadAll(body); err != nil || string(got) != want {
				return fmt.Errorf("%w: %q, %w", errWrongAnswer, got, err)
			}
			return nil
		})
	}
}

// fanOut calls three servers at the same time.
func fanOut(s send, want []byte) op {
	var gets []op
	for _, host := range hosts() {
		gets = append(gets, get(s, url(host), want))
	}
	return func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		for _, get := range gets {
			group.Go(func() error { return get(ctx) })
		}
		return group.Wait()
	}
}

// call sends one request with a deadline, and has the body of a 200 read.
func call(ctx context.Context, s send, method, url string, body io.Reader, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	resp, err := s(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s", errWrongAnswer, resp.Status)
	}
	return read(resp.Body)
}
