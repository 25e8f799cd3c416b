package admission_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/org/watt/internal/admission"
)

// served is how long those waited who were served, and how many were not.
type served struct {
	waits  []time.Duration
	failed int
}

// visit is one request: it has patience, and then needs a worker for service.
func (s *served) visit(p *admission.Pool[string], patience, service time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	ticket, err := p.Acquire(ctx)
	if err != nil {
		s.failed++
		return
	}
	s.waits = append(s.waits, time.Since(began))
	<-time.After(service)
	ticket.Release()
}

func (s *served) worst() time.Duration {
	if len(s.waits) == 0 {
		return 0
	}
	return slices.Max(s.waits)
}

const (
	service  = 20 * time.Millisecond
	capacity = 100 // a second, with two workers
)

// callers visit the pool for d, each again as soon as it is done. What begins in the time before counts is not counted.
func callers(p *admission.Pool[string], n int, d, counts time.Duration) *served {
	all := make([]*served, n)
	began := time.Now()
	var done sync.WaitGroup
	for i := range all {
		all[i] = new(served)
		done.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for time.Since(began) < d {
				s := all[i]
				if time.Since(began) < counts {
					s = new(served)
				}
				s.visit(p, time.Hour, service/2+time.Duration(random.Int64N(int64(service))))
			}
		})
	}
	done.Wait()
	return sum(all)
}

func sum(all []*served) *served {
	var s served
	for _, one := range all {
		s.waits, s.failed = append(s.waits, one.waits...), s.failed+one.failed
	}
	return &s
}

// arrivals visit the pool for d, so many a second, whoever is still there.
func arrivals(p *admission.Pool[string], rate float64, d, patience time.Duration) *served {
	var all []*served
	var done sync.WaitGroup
	random := rand.New(rand.NewPCG(2, 3))
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-time.After(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		one := new(served)
		all = append(all, one)
		done.Go(func() { one.visit(p, patience, service) })
	}
	done.Wait()
	return sum(all)
}

func TestWhoCanBeServedInTimeInOrderIs(t *testing.T) {
	for _, n := range []int{4, 24, 64} { // who take turns, with a queue that is never empty
		inBubble(t, admission.Limits{Workers: 2, Queue: 64, Wait: time.Second}, func(r rig) {
			s := callers(r.Pool, n, 10*time.Second, 0)
			if inOrder := time.Duration(n) * service / 2 * 3 / 2; s.failed > 0 || s.worst() > inOrder {
				r.Errorf("%d callers: %d were shed, and one waited %v, want %v at most", n, s.failed, s.worst(), inOrder)
			}
		})
	}
}

func TestAfterAnOverloadEverybodyIsServedAgain(t *testing.T) {
	const wait = time.Second
	inBubble(t, admission.Limits{Workers: 2, Queue: 64, Wait: wait}, func(r rig) {
		const overload = 10 * time.Second
		go arrivals(r.Pool, 4*capacity, overload, time.Hour)
		if s := callers(r.Pool, 24, 2*overload, overload+2*wait); len(s.waits) == 0 || s.failed > 0 || s.worst() > wait/2 {
			r.Errorf("%d were shed, and one waited %v", s.failed, s.worst())
		}
	})
}

func TestInOverloadWorkersWorkForThoseWhoAreStillThere(t *testing.T) {
	const patience = 250 * time.Millisecond
	for _, load := range []float64{1, 1.25, 2, 4} {
		inBubble(t, admission.Limits{Workers: 2, Queue: 64, Wait: time.Second}, func(r rig) {
			s := arrivals(r.Pool, load*capacity, 10*time.Second, patience)
			slices.Sort(s.waits)
			late := 0
			for _, wait := range s.waits {
				if wait+service > patience {
					late++
				}
			}
			if good := len(s.waits) - late; good < 9*capacity {
				r.Errorf("at %v times the capacity: %d of %d served in time", load, good, 10*capacity)
			}
			if median := s.waits[len(s.waits)/2]; load > 1.5 && median > service {
				r.Errorf("at %v times the capacity: half of those who were served waited for more than %v", load, median)
			}
		})
	}
}
