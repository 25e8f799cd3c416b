package funnel

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/org/watt"
)

// transaction is one batch. It belongs to whoever has the turn, until done is closed; then it does not change.
type transaction struct {
	batch *Batch
	tx    *sql.Tx // nil: not begun
	began time.Time
	size  int   // calls that were in it, or waited for it to begin
	lost  error // why nothing of it can be kept
	done  chan struct{}
	err   error // everybody's, once done is closed
}

func newTransaction(b *Batch) *transaction { return &transaction{batch: b, done: make(chan struct{})} }

// begin begins the transaction for the first call. That it could not is everybody's error, unless it was the
// call's own ctx that did not wait for it.
func (t *transaction) begin(ctx context.Context) error {
	if t.tx != nil || t.lost != nil {
		return t.lost
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t.began = time.Now()
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	begun := context.AfterFunc(ctx, cancel) // ctx ends the beginning, and not the transaction
	tx, err := t.batch.DB.BeginTx(own, nil)
	if !begun() {
		if err == nil {
			_ = tx.Rollback() // or it has ended by itself
		}
		return context.Cause(ctx)
	}
	if err != nil {
		cancel()
		t.lose("begin", fmt.Errorf("beginning a transaction: %w", err))
		return t.lost
	}
	t.tx = tx
	return nil
}

// full reports whether nobody else can come in. One that did not begin has the same news for all who wait for it.
func (t *transaction) full() bool {
	if t.lost != nil && t.tx == nil {
		t.size++
	}
	most := t.batch.MaxSize
	if most <= 0 {
		most = defaultMaxSize
	}
	return t.size >= most || t.lost != nil && t.tx != nil
}

// lose notes why nothing can be kept.
func (t *transaction) lose(at string, why error) {
	if t.lost == nil {
		t.lost = why
		t.batch.counted().lost.WithLabelValues(at).Inc()
	}
}

// end ends the transaction, and tells everybody in it.
func (t *transaction) end() {
	defer close(t.done)
	switch {
	case t.lost != nil:
		if t.tx != nil {
			_ = t.tx.Rollback() // or it has ended by itself
		}
		t.err = fmt.Errorf("funnel: %w: nothing was done: %w", watt.ErrUnavailable, t.lost)
	case t.tx != nil:
		if err := t.tx.Commit(); err != nil {
			t.err = fmt.Errorf("funnel: commit: %w", unavailable(err))
			t.batch.counted().lost.WithLabelValues("commit").Inc()
			return
		}
		t.batch.counted().committed(t)
	}
}

// unavailable says of an error that nothing was done, and the same will work later, if it is a conflict between
// transactions, such as those of two processes that have each other's keys: SQLSTATE 40.
func unavailable(err error) error {
	var state interface{ SQLState() string } // of PostgreSQL's drivers
	if errors.As(err, &state) && strings.HasPrefix(state.SQLState(), "40") {
		return fmt.Errorf("%w: %w", watt.ErrUnavailable, err)
	}
	return err
}

// errTorn is the error of a call in which the database ended the transaction: outside of one, as SQLite is then, each
// statement counts.
var errTorn = errors.New("funnel: the transaction ended while fn ran: what fn did before is undone, what it did after that may be kept")

// run runs fn in a savepoint, at a depth of nesting.
func (t *transaction) run(ctx context.Context, depth int, fn func(context.Context, *sql.Tx) error) (err error) {
	savepoint := "watt" + strconv.Itoa(depth)
	own := context.WithoutCancel(ctx)
	if err := t.exec(own, "savepoint "+savepoint); err != nil {
		t.lose("savepoint", err)
		return t.lost
	}
	inner := newLevel(ctx, t, depth+1)
	kept := false
	defer func() {
		inner.close()
		if !kept && t.exec(own, "rollback to "+savepoint, "release "+savepoint) != nil {
			t.lose("rollback", fmt.Errorf("it was undone when a call in it failed: %w", cause(err)))
			err = fmt.Errorf("%w (%w)", cause(err), errTorn)
		}
	}()
	if err := fn(context.WithValue(own, levelKey{t.batch}, inner), t.tx); err != nil {
		return err
	}
	inner.close()
	if err := t.exec(own, "release "+savepoint); err != nil {
		return fmt.Errorf("funnel: fn has ignored that a statement failed: %w", err)
	}
	kept = true
	return nil
}

// cause returns the error with which a call has failed.
func cause(err error) error {
	if err == nil {
		return errors.New("a panic")
	}
	return err
}

func (t *transaction) exec(ctx context.Context, statements ...string) error {
	if t.lost != nil {
		return t.lost
	}
	for _, s := range statements {
		if _, err := t.tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// level is what the context of a call in a transaction carries: calls made with that join at the next depth, one
// at a time.
type level struct {
	transaction *transaction
	depth       int
	until       context.Context //nolint:containedctx // bounds waits on contexts that do not end by themselves

	turn chan struct{} // taken by sending
	over bool
}

// levelKey is the key of a batch's level in a context.
type levelKey struct{ batch *Batch }

var errOver = errors.New("funnel: the transaction that this context belongs to is over")

// newLevel returns the level for those that join a call made with ctx.
func newLevel(ctx context.Context, t *transaction, depth int) *level {
	l := &level{transaction: t, depth: depth, until: ctx, turn: make(chan struct{}, 1)}
	if outer, ok := ctx.Value(levelKey{t.batch}).(*level); ok && ctx.Done() == nil {
		l.until = outer.until
	}
	return l
}

// do runs fn when its turn has come, if that is before the end of ctx, and of what the transaction's call was for.
func (l *level) do(ctx context.Context, fn func(context.Context, *sql.Tx) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := l.enter(ctx); err != nil {
		return err
	}
	defer func() { <-l.turn }()
	if l.over {
		return errOver
	}
	return l.transaction.run(ctx, l.depth, fn)
}

// enter waits for the turn. If that is free, nothing else counts: what has begun goes on after its caller has left.
func (l *level) enter(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.until.Done():
		return l.ended()
	}
}

func (l *level) ended() error { return context.Cause(l.until) }

// close waits for a call that has joined, and lets no more do so.
func (l *level) close() {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	l.over = true
}

// joining returns ctx, with which calls of Do join the transaction that inside belongs to.
func (b *Batch) joining(ctx, inside context.Context) context.Context {
	return context.WithValue(ctx, levelKey{b}, inside.Value(levelKey{b}))
}
