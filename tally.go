package watt

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/watt/internal/admission"
	"github.com/org/watt/internal/count"
	"github.com/org/watt/internal/roundtrip"
)

// tallies are what an app's instances count in, by number. A tally outlives the generations, and an instance that
// was removed: what has been counted never goes back. In a child, the one there is lies in the page.
type tallies struct {
	mu       sync.Mutex
	of       map[int]*count.Served
	restarts map[int]map[string]uint64 // by cause
}

func (t *tallies) instance(index int) *count.Served {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of[index] == nil {
		t.putLocked(index, new(count.Served))
	}
	return t.of[index]
}

func (t *tallies) put(index int, tally *count.Served) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.putLocked(index, tally)
}

func (t *tallies) putLocked(index int, tally *count.Served) {
	if t.of == nil {
		t.of = make(map[int]*count.Served)
	}
	t.of[index] = tally
}

// restarted counts a restart of an instance.
func (t *tallies) restarted(index int, cause string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.restarts == nil {
		t.restarts = make(map[int]map[string]uint64)
	}
	if t.restarts[index] == nil {
		t.restarts[index] = make(map[string]uint64)
	}
	t.restarts[index][cause]++
}

// restartsOf returns how often an instance was restarted, by cause.
func (t *tallies) restartsOf(index int) map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[string]uint64)
	maps.Copy(all, t.restarts[index])
	return all
}

// panics returns how many handlers have panicked.
func (t *tallies) panics() (n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tally := range t.of {
		n += count.Read(&tally.Panics)
	}
	return n
}

// counted returns req with what is read of its body counted: the length that it says may be a stranger's word. What is in
// memory is counted at once, and stays what it is.
func (c *call) counted(req *http.Request) *http.Request {
	if !roundtrip.HasBody(req) {
		return req
	}
	if n, memory := roundtrip.InMemory(req.Body); memory {
		c.edge.calls.Sent.Add(n)
		return req
	}
	out := *req
	out.Body = &countedBody{req.Body, &c.edge.calls.Sent}
	return &out
}

type countedBody struct {
	io.ReadCloser
	sent *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.sent.Add(int64(n))
	return n, err
}

// kindOf says why a call has failed with err.
func kindOf(err error) count.Kind {
	for _, k := range []struct {
		is   error
		kind count.Kind
	}{
		{ErrInstanceDied, count.Died},
		{ErrOverloaded, count.Overloaded},
		{ErrUnavailable, count.Unavailable},
		{context.DeadlineExceeded, count.Timeout},
		{context.Canceled, count.Canceled},
	} {
		if errors.Is(err, k.is) {
			return k.kind
		}
	}
	return count.Other
}

// storeAdmission stores what the app's pool, and the app itself, have counted.
func (a *app) storeAdmission(pool *admission.Stats, to *count.Admission) {
	to.Admitted.Store(int64(pool.Admitted))
	to.QueueFull.Store(int64(pool.Shed[admission.NoQueue] + pool.Shed[admission.QueueFull]))
	to.WaitTooLong.Store(int64(pool.Shed[admission.WaitTooLong]))
	to.PushedOut.Store(int64(pool.Shed[admission.PushedOut]))
	to.Deadline.Store(int64(pool.Shed[admission.Deadline]))
	to.Gone.Store(int64(pool.Abandoned))
	to.Refused.Store(int64(pool.Refused))
	to.Abandoned.Store(int64(a.abandoned.Load()))
	to.ConnsShed.Store(int64(a.connsShed.Load()))
	to.QueueWait.Store(int64(pool.QueueWait))
	to.BusyTime.Store(int64(pool.BusyTime))
	to.DownstreamTime.Store(int64(a.waits.sum()))
}

// loadAdmission loads what storeAdmission has stored.
func (s *Status) loadAdmission(c *count.Admission) {
	s.Admitted, s.QueueFull, s.WaitTooLong = count.Read(&c.Admitted), count.Read(&c.QueueFull), count.Read(&c.WaitTooLong)
	s.PushedOut, s.Deadline = count.Read(&c.PushedOut), count.Read(&c.Deadline)
	s.Gone, s.Refused, s.Abandoned = count.Read(&c.Gone), count.Read(&c.Refused), count.Read(&c.Abandoned)
	s.ConnsShed = count.Read(&c.ConnsShed)
	s.QueueWait, s.BusyTime, s.DownstreamTime = count.Span(&c.QueueWait), count.Span(&c.BusyTime), count.Span(&c.DownstreamTime)
}

// loadServed loads what an instance has counted.
func (a *app) loadServed(s *InstanceStatus) {
	tally := a.place.served(s.Instance)
	s.Requests, s.Duration, s.QueueWait = tally.Answers(), timesOf(&tally.Duration), timesOf(&tally.Wait)
	s.SentBytes, s.Panics, s.HandedOver = count.Read(&tally.Bytes), count.Read(&tally.Panics), count.Read(&tally.HandedOver)
}

func (a *app) perCaller() []CallerStatus {
	all := []CallerStatus{callerStatus("", a.rt.mesh.edges[a.name].calls)}
	for _, caller := range a.callers {
		all = append(all, callerStatus(caller.name, caller.place.called(a.name)))
	}
	return all
}

func callerStatus(caller string, calls *count.Calls) CallerStatus {
	return CallerStatus{
		Caller: caller, Errors: calls.Errors(), Duration: timesOf(&calls.Duration),
		SentBytes: count.Read(&calls.Sent), ReceivedBytes: count.Read(&calls.Received),
	}
}

func timesOf(counted *count.Times) Times {
	var t Times
	t.Sum, t.Buckets = counted.Read()
	for _, n := range t.Buckets {
		t.Count += n
	}
	t.P50, t.P99 = t.quantile(0.5), t.quantile(0.99)
	return t
}

// quantile returns the upper end of the bucket that has it, 0 if nothing was counted.
func (t *Times) quantile(q float64) time.Duration {
	rank := uint64(math.Ceil(q * float64(t.Count)))
	for i := count.First; i <= count.Last; i++ {
		if n := t.Buckets[i]; n < rank {
			rank -= n
		} else if rank > 0 {
			return time.Duration(count.Limit(i) * float64(time.Second))
		}
	}
	return 0
}
