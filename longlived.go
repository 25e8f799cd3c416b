package watt

import (
	"context"
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

// becomeLongLived trades the worker for a place under MaxConns.
func (q *request) becomeLongLived() error {
	q.mu.Lock()
	if !q.holds || q.placed {
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
	q.holds, q.longLived, q.outlived = false, true, true
	q.app.streams.Add(1)
	q.mu.Unlock()
	q.discard()
	return nil
}

// takePlace takes a place under MaxConns for the request's connection, unless the request has one, which is then the
// connection's. From then on the request takes no other. If no connection has it by then, end gives it back.
func (q *request) takePlace() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.longLived || q.placed || q.upgraded {
		return nil
	}
	if err := q.app.conns.enter(); err != nil {
		return err
	}
	q.placed = true
	return nil
}

// losePlace leaves that place to the connection, which gives it back when it is closed.
func (q *request) losePlace() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.placed = false
}

// hijacked gives the worker back: the connection has a place of its own.
func (q *request) hijacked() {
	q.mu.Lock()
	held, draining := q.holds, q.draining
	if q.longLived {
		q.app.streams.Add(-1)
	}
	q.holds, q.longLived, q.placed, q.upgraded, q.outlived = false, false, false, true, true
	q.mu.Unlock()
	if held {
		q.discard()
	}
	if draining {
		q.cancel(errDraining)
	}
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
	ends := q.longLived || q.upgraded
	q.mu.Unlock()
	if ends {
		q.cancel(errDraining)
	}
}
