package funnel

import (
	"container/list"
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"
)

// Batch is group commit: it gathers the writes of callers that come at the same time into one transaction, so that they
// share the price of making it durable. Set DB; the other fields may be left zero, and none may change after the first
// Do. A Batch has no goroutine and needs no Close; those who call Do do the work. It wants one connection of DB at a
// time, and is a [prometheus.Collector], for env.Metrics.Register.
//
// It is made for databases that undo part of a transaction by savepoints: SQLite and PostgreSQL, among others. SQLite
// wants WAL, a busy_timeout, which is how long a Batch waits for other writers, in milliseconds, and _txlock=immediate.
// For modernc.org/sqlite, all of it is
//
//	sql.Open("sqlite", "file:store.db?_pragma=journal_mode(wal)&_pragma=busy_timeout(5000)&_txlock=immediate")
type Batch struct {
	// DB is the database.
	DB *sql.DB

	// Name is the label name of the metrics, where an app registers more than one Batch.
	Name string

	// MaxSize is how many calls of Do may share a transaction. If zero, 128.
	MaxSize int

	// MaxDelay is how long a transaction stays open for calls that are yet to come, from its beginning. If zero, it
	// ends as soon as nobody waits: what gathers while one transaction is committed makes the next, which is best where
	// commits are slow, or many write at once. More pays only where few write and commits are dear.
	MaxDelay time.Duration

	mu      sync.Mutex
	taken   bool          // somebody has the turn
	waiting list.List     // of *waiter, in order
	came    chan struct{} // not nil while the one who has the turn waits for others

	once    sync.Once
	metrics *batchMetrics
}

// waiter waits for its turn in a transaction, which comes over the channel.
type waiter chan *transaction

const defaultMaxSize = 128

var errNoDB = errors.New("funnel: Batch.DB is not set")

// Do calls fn with a transaction, in order with the calls of others, and returns when it is known what became of it:
// nil if it was committed. fn runs in the goroutine of its caller, alone.
//
//   - An error of fn undoes what fn did, and nothing else; Do returns it as it is. A panic of fn does likewise and
//     goes on to the caller. In PostgreSQL, the error of a statement that fn ignores is one of fn's too.
//   - If the transaction cannot begin, or was lost, everybody in it gets an error that wraps [watt.ErrUnavailable]
//     ([watt.WriteError] answers it with 503) and the cause: nothing of it was done. It is lost when a failed statement
//     of somebody's made the database undo all of it, as SQLite does when the disk is full. That call gets an error of
//     its own, which does not say so: what fn did after that statement may be kept.
//   - An error of the commit is everybody's too. Nothing was done, unless the connection to the database broke in that
//     very moment. It wraps ErrUnavailable if it is a conflict with another transaction (SQLSTATE 40).
//   - An error of ctx (its cause) means that fn was not called, or did not begin to work with the database. The end of
//     ctx counts until the call's turn has come, and the transaction has begun. After that, Do waits for the outcome,
//     which is at most MaxSize calls away.
//
// fn gets a context with the values of ctx, which does not end with it: a statement that is canceled would cost
// everybody the transaction. For the same reason fn should be quick, do nothing but work with the database, by tx
// alone, return the first error of a statement (after which SQLite may be outside of any transaction), and leave Commit
// and Rollback alone. Whoever waits is bounded by the app's Workers, not here.
//
// Do called with the context that fn got, or that a handler got from an [Idempotency] with this Batch, joins the
// transaction that is open: fn gets a savepoint of its own, and nil means done so far, to be committed with the rest.
// Where others have joined too, it waits for its turn, until ctx ends, or that of the outermost call.
//
// A Do inside of fn with any other context than fn's waits for itself until that context ends (with context.Background,
// for ever), and all other writers with it.
func (b *Batch) Do(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	if l, ok := ctx.Value(levelKey{b}).(*level); ok {
		return l.do(ctx, fn)
	}
	if b.DB == nil {
		return errNoDB
	}
	t, err := b.enter(ctx)
	if err != nil {
		return err
	}
	in, err := b.ride(ctx, t, fn)
	if !in {
		return err
	}
	<-t.done
	if t.err != nil && (err == nil || errors.Is(err, t.lost)) && !errors.Is(err, errTorn) {
		return t.err
	}
	return err
}

// ride runs fn in t, and gives the turn away, even if fn panics. It reports whether t's end is the call's too: not if ctx
// did not wait for its beginning.
func (b *Batch) ride(ctx context.Context, t *transaction, fn func(context.Context, *sql.Tx) error) (in bool, err error) {
	defer b.leave(t)
	if err := t.begin(ctx); err != nil {
		return t.lost != nil, err
	}
	t.size++
	return true, t.run(ctx, 0, fn)
}

// between calls fn when the call's turn has come, with no transaction open.
func (b *Batch) between(ctx context.Context, fn func() error) error {
	t, err := b.enter(ctx)
	if err != nil {
		return err
	}
	if t.tx != nil {
		t.end()
		t = newTransaction(b)
	}
	defer b.leave(t)
	return fn()
}

// enter waits for the call's turn.
func (b *Batch) enter(ctx context.Context) (*transaction, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	b.mu.Lock()
	if !b.taken {
		b.taken = true
		b.mu.Unlock()
		return newTransaction(b), nil
	}
	turn := make(waiter, 1)
	place := b.waiting.PushBack(turn)
	if b.came != nil {
		close(b.came)
		b.came = nil
	}
	b.mu.Unlock()
	select {
	case t := <-turn:
		return t, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	select {
	case t := <-turn: // in the same moment
		b.mu.Unlock()
		b.leave(t)
	default:
		b.waiting.Remove(place)
		b.mu.Unlock()
	}
	return nil, context.Cause(ctx)
}

// leave gives the turn to the next, in the same transaction if there is room, or else after its end in a new one.
func (b *Batch) leave(t *transaction) {
	for {
		b.mu.Lock()
		if t.full() {
			b.mu.Unlock()
			break
		}
		if b.nextLocked(t) {
			b.mu.Unlock()
			return
		}
		wait := b.MaxDelay - time.Since(t.began)
		if t.tx == nil || wait <= 0 {
			b.mu.Unlock()
			break
		}
		came := make(chan struct{})
		b.came = came
		b.mu.Unlock()
		await(came, wait)
	}
	t.end()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.came = nil
	if b.waiting.Len() == 0 {
		b.taken = false
		return
	}
	b.nextLocked(newTransaction(b))
}

// nextLocked gives the turn to whoever has waited longest, if anybody waits.
func (b *Batch) nextLocked(t *transaction) bool {
	first := b.waiting.Front()
	if first == nil {
		return false
	}
	b.waiting.Remove(first).(waiter) <- t
	return true
}

func await(c <-chan struct{}, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
	}
}
