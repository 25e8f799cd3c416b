package watt

import (
	"context"
	"net"
	"time"
)

// LongLived gives the worker of the request that ctx belongs to back: for long polls and streams
// that wait more than they work. From now on the request counts under the app's MaxConns, and its
// context ends when the app's drain begins. Timeout goes on: a poll that waits for longer needs more of it. While MaxConns
// is reached it keeps its worker. Upgraded connections and answers of type text/event-stream are long-lived by
// themselves.
func LongLived(ctx context.Context) {
	if q := requestOf(ctx); q != nil {
		_ = q.becomeLongLived()
	}
}

// holding is what a request has of what its app has only so many of: workers, and seats, which MaxConns counts.
type holding int8

const (
	nothing        holding = iota // it waits still, is with a sibling, or is over
	aWorker                       // it has been admitted
	aWorkerAndSeat                // which is its connection's, if that is hijacked
	aSeat                         // it is long-lived
	upgraded                      // its connection was hijacked, and has the seat
)

func (h holding) worker() bool { return h == aWorker || h == aWorkerAndSeat }
func (h holding) seat() bool   { return h == aSeat || h == aWorkerAndSeat }

// becomeLongLived trades the worker for a seat.
func (q *request) becomeLongLived() error {
	q.mu.Lock()
	if q.holds != aWorker {
		q.mu.Unlock()
		return nil
	}
	if q.draining { // too late to settle down
		q.mu.Unlock()
		q.cancel(errDraining)
		return nil
	}
	if err := q.app.conns.enter(); err != nil {
		q.mu.Unlock()
		return err
	}
	q.holds = aSeat
	q.app.streams.Add(1)
	q.mu.Unlock()
	q.discard()
	return nil
}

// takeSeat takes a seat for the request's connection, unless the request has one, which is then the connection's. From then
// on the request takes no other. If the connection is not hijacked, end gives it back.
func (q *request) takeSeat() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.holds != aWorker {
		return nil
	}
	if err := q.app.conns.enter(); err != nil {
		return err
	}
	q.holds = aWorkerAndSeat
	return nil
}

// hijacked gives the worker back: the connection has the seat.
func (q *request) hijacked() {
	q.mu.Lock()
	held, draining := q.holds, q.draining
	q.holds = upgraded
	q.mu.Unlock()
	if held.worker() {
		q.discard()
	}
	if held == aSeat {
		q.app.streams.Add(-1)
	}
	if draining {
		q.cancel(errDraining)
	}
}

// tookOver notes the connection that was hijacked.
func (q *request) tookOver(conn net.Conn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.answer.hijacked = conn
}

// connection returns the connection that was hijacked, or nil.
func (q *request) connection() net.Conn {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.answer.hijacked
}

// discard gives the worker back early.
func (q *request) discard() {
	q.app.waits.over.Add(int64(q.downstream.stop(time.Now())))
	q.ticket.Discard()
}

// drain ends the request if it is long-lived, and keeps it from becoming so.
func (q *request) drain() {
	q.mu.Lock()
	q.draining = true
	ends := q.holds == aSeat || q.holds == upgraded
	q.mu.Unlock()
	if ends {
		q.cancel(errDraining)
	}
}
