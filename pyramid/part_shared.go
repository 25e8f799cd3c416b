package pyramid

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/singleflight"
)

// shared lets identical calls be one.
type shared struct {
	running *sync.WaitGroup // of goroutines; the calls have some of their own
	group   singleflight.Group

	mu      sync.Mutex
	flights map[string]*flight // those that group knows, by the same keys
}

// flight is one call that several may wait for. Its context is not the first one's, which may leave: it
// ends when nobody waits any more.
type flight struct {
	ctx     context.Context //nolint:containedctx // the call's, which belongs to all who wait
	cancel  context.CancelFunc
	ended   chan struct{} // closed if the call has ended its goroutine: group tells nobody then
	waiting int           // guarded by shared's mutex
}

// do returns what call returns, or what the same call that is in progress does. It returns early when
// ctx ends. Whoever calls it must not change the bytes.
func (s *shared) do(ctx context.Context, key string, call func(context.Context) (content, error)) (content, error) {
	f, answer := s.join(ctx, key, call)
	defer s.leave(key, f)
	select {
	case res := <-answer:
		what, _ := res.Val.(content)
		return what, res.Err
	case <-f.ended:
		return content{}, errEnded
	case <-ctx.Done():
		return content{}, ctx.Err()
	}
}

// join finds the flight or begins one. What group knows changes with flights, under the mutex, so that
// nobody joins what is ending because all have left.
func (s *shared) join(ctx context.Context, key string, call func(context.Context) (content, error)) (*flight, <-chan singleflight.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flights[key]
	if f == nil {
		f = &flight{ended: make(chan struct{})}
		f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
		if s.flights == nil {
			s.flights = make(map[string]*flight)
		}
		s.flights[key] = f
		s.running.Add(1)
	}
	f.waiting++
	return f, s.group.DoChan(key, func() (any, error) {
		answered := false
		defer func() { s.land(key, f, answered) }()
		what, err := call(f.ctx)
		answered = true
		return what, err
	})
}

// leave is called by each who waited. The last one ends the call.
func (s *shared) leave(key string, f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		s.forgetLocked(key, f)
	}
}

// land is called when the call has ended, be it without an answer.
func (s *shared) land(key string, f *flight, answered bool) {
	defer s.running.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLocked(key, f)
	if !answered {
		close(f.ended)
	}
}

func (s *shared) forgetLocked(key string, f *flight) {
	if s.flights[key] == f {
		delete(s.flights, key)
		s.group.Forget(key)
	}
	f.cancel()
}

// sameness is a key that calls of one app share if nothing that they send differs, but for what tells
// one request from another.
func sameness(u *url.URL, header http.Header) string {
	key := append(make([]byte, 0, 256), u.RequestURI()...)
	for _, name := range slices.Sorted(maps.Keys(header)) {
		if name == "Traceparent" || name == "Tracestate" || name == "X-Request-Id" {
			continue
		}
		for _, value := range header[name] {
			key = append(append(key, '\n'), name...)
			key = append(strconv.AppendInt(append(key, ':'), int64(len(value)), 10), ':')
			key = append(key, value...)
		}
	}
	return string(key)
}
