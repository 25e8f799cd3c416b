package main

import (
	"bytes"
	"context"
	_ "embed" // a picture to upload
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

//go:embed testdata/mandelbrot.jpg
var mandelbrot []byte

// visit is the load of many visitors, who come until ctx ends whatever the shop answers: mostly to read, now and then
// with a picture.
func visit(ctx context.Context, url string) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	var visitors sync.WaitGroup
	defer visitors.Wait()
	for _, v := range []struct {
		pause time.Duration // between two of them, on average
		come  func(context.Context) (*http.Request, error)
	}{
		{20 * time.Millisecond, reads(url + "/home/%d")},
		{30 * time.Millisecond, reads(url + "/users/%d")},
		{40 * time.Millisecond, reads(url + "/orders?user=%d")},
		{time.Second, func(ctx context.Context) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodPost, url+"/pictures?user=1", bytes.NewReader(mandelbrot))
		}},
	} {
		visitors.Go(func() {
			for pause(ctx, v.pause) {
				visitors.Go(func() { send(ctx, client, v.come) })
			}
		})
	}
}

// reads asks for a page of one of the three users.
func reads(format string) func(context.Context) (*http.Request, error) {
	return func(ctx context.Context) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf(format, 1+rand.N(3)), http.NoBody)
	}
}

func send(ctx context.Context, client *http.Client, come func(context.Context) (*http.Request, error)) {
	req, err := come(ctx)
	if err != nil {
		return
	}
	resp, err := client.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

// pause waits for a random time, and reports whether to go on.
func pause(ctx context.Context, average time.Duration) bool {
	select {
	case <-time.After(time.Duration(rand.ExpFloat64() * float64(average))):
		return true
	case <-ctx.Done():
		return false
	}
}
