package count

import "sync/atomic"

// Served is what is counted of the requests that one instance serves.
type Served struct {
	answers [methods][classes]atomic.Int64

	Panics     atomic.Int64
	HandedOver atomic.Int64 // requests that siblings have served
	Accepted   atomic.Int64 // public connections
	Bytes      atomic.Int64 // of answers

	Duration Times // of answered requests, waiting for a worker included
	Wait     Times // for a worker
}

// The methods and the classes of statuses that are told apart; the first of both is the rest.
const (
	methods = 9
	classes = 6
)

func methodName(i int) string {
	return [methods]string{"other", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}[i]
}

func className(i int) string {
	return [classes]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}[i]
}

func methodIndex(method string) int {
	switch method {
	case "GET":
		return 1
	case "HEAD":
		return 2
	case "POST":
		return 3
	case "PUT":
		return 4
	case "PATCH":
		return 5
	case "DELETE":
		return 6
	case "OPTIONS":
		return 7
	case "TRACE":
		return 8
	}
	return 0
}

// Answered counts a request by its method and the status of its answer, which is 0 if there is none.
func (s *Served) Answered(method string, status int) {
	class := status / 100
	if class < 0 || class >= classes {
		class = 0
	}
	s.answers[methodIndex(method)][class].Add(1)
}

// Answers returns the requests by method and class of status; only those that there were.
func (s *Served) Answers() map[string]map[string]uint64 {
	all := make(map[string]map[string]uint64)
	for i := range s.answers {
		for j := range s.answers[i] {
			n := Read(&s.answers[i][j])
			if n == 0 {
				continue
			}
			if all[methodName(i)] == nil {
				all[methodName(i)] = make(map[string]uint64)
			}
			all[methodName(i)][className(j)] = n
		}
	}
	return all
}

// Add adds what other has counted.
func (s *Served) Add(other *Served) { add(s, other) }
