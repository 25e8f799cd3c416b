package count_test

import (
	"math"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/org/watt/internal/count"
)

// TestBucketsAreThoseOfPrometheus compares with the client library, at each limit and beside it.
func TestBucketsAreThoseOfPrometheus(t *testing.T) {
	for i := count.First; i < count.Last; i++ {
		at := time.Duration(count.Limit(i) * float64(time.Second))
		for d := at - 2; d <= at+2; d++ {
			var times count.Times
			times.Add(d)
			_, got := times.Read()
			if want := max(count.First, min(theirs(t, d), count.Last)); got[want] != 1 {
				t.Errorf("%v: got buckets %v, want %d", d, got, want)
			}
		}
	}
}

// theirs returns the bucket into which the client library puts d.
func theirs(t *testing.T, d time.Duration) int {
	t.Helper()
	h := prometheus.NewHistogram(prometheus.HistogramOpts{NativeHistogramBucketFactor: 1.19, NativeHistogramZeroThreshold: prometheus.NativeHistogramZeroThresholdZero})
	h.Observe(d.Seconds())
	var m dto.Metric
	if err := h.Write(&m); err != nil || m.GetHistogram().GetSchema() != count.Schema {
		t.Fatalf("got schema %d (%v), want %d", m.GetHistogram().GetSchema(), err, count.Schema)
	}
	return int(m.GetHistogram().GetPositiveSpan()[0].GetOffset())
}

func TestWhatIsTooShortOrTooLongIsInTheOuterBuckets(t *testing.T) {
	var times count.Times
	for _, d := range []time.Duration{-time.Hour, 0, 1, 900, 2 * time.Hour, math.MaxInt64} {
		times.Add(d)
	}
	if _, got := times.Read(); got[count.First] != 4 || got[count.Last] != 2 {
		t.Errorf("got %v, want 4 in the first and 2 in the last", got)
	}
}

func TestMethodsAndStatusesBeyondTheKnownOnesAreTheRest(t *testing.T) {
	var s count.Served
	s.Answered("GET", 204)
	s.Answered("BREW", 418)
	s.Answered("get", 0)
	s.Answered("POST", 999)
	s.Answered("POST", -1000)
	got := s.Answers()
	if len(got) != 3 || got["GET"]["2xx"] != 1 || got["other"]["4xx"] != 1 || got["other"]["other"] != 1 || got["POST"]["other"] != 2 {
		t.Errorf("got %v", got)
	}
}

// TestNumbersOfAnotherProcessDoNoHarm adds a block full of nonsense to one that has counted.
func TestNumbersOfAnotherProcessDoNoHarm(t *testing.T) {
	for _, nonsense := range []int64{-1, math.MinInt64, math.MaxInt64} {
		var sum, mad count.Served
		sum.Panics.Store(7)
		words := unsafe.Slice((*int64)(unsafe.Pointer(&mad)), unsafe.Sizeof(mad)/8)
		for i := range words {
			words[i] = nonsense
		}
		for range 3 {
			sum.Add(&mad)
		}
		if got := count.Read(&sum.Panics); got < 7 || got > count.Most {
			t.Errorf("%d: got %d panics", nonsense, got)
		}
		for _, class := range sum.Answers() {
			for _, n := range class {
				if n > count.Most {
					t.Errorf("%d: got %d answers", nonsense, n)
				}
			}
		}
	}
}

// TestLongTimesAddUp has what 256 busy workers take in a year.
func TestLongTimesAddUp(t *testing.T) {
	const half = 128 * 365 * 24 * time.Hour
	var times, sum count.Served
	times.Duration.Add(half)
	sum.Add(&times)
	sum.Add(&times)
	if took, _ := sum.Duration.Read(); took != 2*half {
		t.Errorf("got %v, want %v", took, 2*half)
	}
	sum.Add(&sum) // more than there is room for
	if took, _ := sum.Duration.Read(); took < 2*half {
		t.Errorf("got %v after more", took)
	}
}

func TestNothingIsLostWhenManyCount(t *testing.T) {
	var c, sum count.Calls
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				c.Ended(time.Millisecond, count.Died)
			}
		})
	}
	all.Wait()
	sum.Add(&c)
	sum.Add(&c)
	took, buckets := sum.Duration.Read()
	if took != 16*time.Second || len(buckets) != 1 || sum.Errors()["died"] != 16000 {
		t.Errorf("got %v, %v and %v", took, buckets, sum.Errors())
	}
}

// counted counts a request, and the call that it came by, as the root does.
func counted(s *count.Served, c *count.Calls) {
	began := time.Now()
	s.Wait.Add(time.Since(began))
	s.Answered("GET", 200)
	s.Bytes.Add(600)
	s.Duration.Add(time.Since(began))
	c.Received.Add(600)
	c.Ended(time.Since(began), count.None)
}

func TestCountingAllocatesNothing(t *testing.T) {
	s, c := new(count.Served), new(count.Calls)
	if n := testing.AllocsPerRun(1000, func() { counted(s, c) }); n != 0 {
		t.Errorf("got %v allocations for a request", n)
	}
}

// BenchmarkRequest is what counting adds to a request: 300 ns at most.
func BenchmarkRequest(b *testing.B) {
	s, c := new(count.Served), new(count.Calls)
	b.ReportAllocs()
	for b.Loop() {
		counted(s, c)
	}
}
