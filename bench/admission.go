package main

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/alitto/pond/v2"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/panjf2000/ants/v2"
	"golang.org/x/sync/semaphore"

	"github.com/org/watt/internal/admission"
)

// The admission group compares what bounds the work in progress.

const (
	slots    = 4           // how much work may be in progress
	backlog  = 1024        // how much may wait, where that can be said
	patience = time.Minute // how long it may wait, where that can be said
)

func admissionBenchmarks() []benchmark {
	return []benchmark{
		{
			name: "admission/uncontended", unit: "ns/op",
			contenders: bounders(1, func() {}),
			bars: []bar{
				atMost(100, "ns", valueOf(watt)),
				atMost(0, "allocs", allocsOf(watt)),
				atMost(1, "vs fastest with a time limit", ratio(valueOf(watt), bestOf(timed))),
			},
		}, {
			name: "admission/contended", unit: "ns/op",
			contenders: bounders(32, runtime.Gosched), // so that others come while work is in progress
		},
	}
}

// bounders let c goroutines do work, but not all at the same time. Those marked with a time limit
// take one as a setting of their own. A semaphore and a channel wait as long as the caller's context
// says, which for this purpose somebody would have to make; the pools wait for ever.
func bounders(c int, work func()) []contender {
	contend := func(name string, timed bool, open func(ctx context.Context, work func()) (enter func() op, end func())) contender {
		return contender{name: name, timed: timed, start: func(ctx context.Context) (session, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Hour) // every request has a deadline
			enter, end := open(ctx, work)
			ops := make([]op, c)
			for i := range ops {
				ops[i] = enter()
			}
			return repeat(ops, func() { cancel(); end() }), nil
		}}
	}
	return []contender{
		contend(watt, true, openWatt),
		contend("semaphore", false, openSemaphore),
		contend("channel", false, openChannel),
		contend("chi", true, openChi),
		contend("failsafe", true, openFailsafe),
		contend("ants", false, openAnts),
		contend("pond", false, openPond),
	}
}

// same lets all goroutines share one op.
func same(o op) (enter func() op, end func()) { return func() op { return o }, func() {} }

func openWatt(ctx context.Context, work func()) (enter func() op, end func()) {
	pool := admission.New[*int](admission.Limits{Workers: slots, Queue: backlog, Wait: patience})
	pool.Add().Open(new(int))
	return same(func(context.Context) error {
		ticket, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		work()
		ticket.Release()
		return nil
	})
}

func openSemaphore(ctx context.Context, work func()) (enter func() op, end func()) {
	s := semaphore.NewWeighted(slots)
	return same(func(context.Context) error {
		if err := s.Acquire(ctx, 1); err != nil {
			return err
		}
		work()
		s.Release(1)
		return nil
	})
}

func openChannel(ctx context.Context, work func()) (enter func() op, end func()) {
	busy := make(chan struct{}, slots)
	return same(func(context.Context) error {
		select {
		case busy <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		work()
		<-busy
		return nil
	})
}

func openChi(ctx context.Context, work func()) (enter func() op, end func()) {
	h := middleware.ThrottleBacklog(slots, backlog, patience)(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) {
			work()
			w.WriteHeader(http.StatusNoContent)
		}))
	return func() op {
		req := new(http.Request).WithContext(ctx)
		w := statusWriter{header: make(http.Header)}
		return func(context.Context) error {
			w.status = 0
			h.ServeHTTP(&w, req)
			if w.status != http.StatusNoContent {
				return fmt.Errorf("%w: %d", errWrongAnswer, w.status)
			}
			return nil
		}
	}, func() {}
}

// statusWriter keeps the status of an answer, at no cost.
type statusWriter struct {
	header http.Header
	status int
}

func (w *statusWriter) Header() http.Header         { return w.header }
func (w *statusWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *statusWriter) WriteHeader(status int)      { w.status = status }

func openFailsafe(ctx context.Context, work func()) (enter func() op, end func()) {
	b := bulkhead.New[any](slots)
	return same(func(context.Context) error {
		if err := b.AcquirePermitWithMaxWait(ctx, patience); err != nil {
			return err
		}
		work()
		b.ReleasePermit()
		return nil
	})
}

func openAnts(_ context.Context, work func()) (enter func() op, end func()) {
	pool, err := ants.NewPool(slots, ants.WithMaxBlockingTasks(backlog))
	if err != nil {
		return same(func(context.Context) error { return err })
	}
	return handOver(pool.Submit, work), pool.Release
}

func openPond(_ context.Context, work func()) (enter func() op, end func()) {
	pool := pond.NewPool(slots, pond.WithQueueSize(backlog))
	return handOver(pool.Go, work), pool.StopAndWait
}

// handOver has a pool's goroutine do the work, and waits for it.
func handOver(submit func(task func()) error, work func()) (enter func() op) {
	return func() op {
		done := make(chan struct{}, 1)
		task := func() { work(); done <- struct{}{} }
		return func(context.Context) error {
			if err := submit(task); err != nil {
				return err
			}
			<-done
			return nil
		}
	}
}
