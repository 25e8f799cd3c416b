package sqltest_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
)

// failing is SQLite whose statements may fail: before they are done, and after that.
type failing struct {
	sqlite driver.Driver
	source string
	fail   func(statement string) (before, after error)
}

func openFailing(tb testing.TB, name string, fail func(statement string) (before, after error)) *sql.DB {
	tb.Helper()
	db := sql.OpenDB(&failing{open(tb, name).Driver(), "file:" + name + options, fail})
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// Driver implements [driver.Connector].
func (f *failing) Driver() driver.Driver { return f.sqlite }

// Connect implements [driver.Connector].
func (f *failing) Connect(context.Context) (driver.Conn, error) {
	conn, err := f.sqlite.Open(f.source)
	if err != nil {
		return nil, err
	}
	return &failingConn{conn.(sqliteConn), f}, nil
}

type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ExecerContext
	driver.QueryerContext
	driver.SessionResetter
}

type failingConn struct {
	sqliteConn
	of *failing
}

// BeginTx implements [driver.ConnBeginTx].
func (c *failingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	before, after := c.of.fail("begin")
	if before != nil {
		return nil, before
	}
	tx, err := c.sqliteConn.BeginTx(ctx, opts)
	if err == nil && after != nil {
		return nil, errors.Join(after, tx.Rollback())
	}
	return &failingTx{tx, c.of}, err
}

// ExecContext implements [driver.ExecerContext].
func (c *failingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	before, after := c.of.fail(query)
	if before != nil {
		return nil, before
	}
	result, err := c.sqliteConn.ExecContext(ctx, query, args)
	return result, errors.Join(err, after)
}

type failingTx struct {
	driver.Tx
	of *failing
}

// Commit implements [driver.Tx].
func (t *failingTx) Commit() error {
	before, after := t.of.fail("commit")
	if before != nil {
		return errors.Join(before, t.Rollback())
	}
	return errors.Join(t.Tx.Commit(), after)
}

// prompt is SQLite whose transactions begin at once, and then call begun.
type prompt struct {
	driver.Connector
	begun func()
}

// Connect implements [driver.Connector].
func (p *prompt) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := p.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &promptConn{conn.(sqliteConn), p}, nil
}

type promptConn struct {
	sqliteConn
	of *prompt
}

// BeginTx implements [driver.ConnBeginTx].
func (c *promptConn) BeginTx(_ context.Context, opts driver.TxOptions) (driver.Tx, error) {
	defer c.of.begun()
	return c.sqliteConn.BeginTx(context.Background(), opts)
}

func TestATransactionThatBeginsTogetherWithTheEndOfTheContextIsNobodys(t *testing.T) {
	name := file(t)
	ctx, cancel := context.WithCancel(t.Context())
	quiet := func(string) (before, after error) { return nil, nil }
	b := &funnel.Batch{DB: sql.OpenDB(&prompt{&failing{open(t, name).Driver(), "file:" + name + options, quiet}, cancel})}
	defer b.DB.Close()
	called := false
	err := b.Do(ctx, func(context.Context, *sql.Tx) error {
		called = true
		return nil
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, watt.ErrUnavailable) || called {
		t.Errorf("got %v, called: %t, want the end of the context", err, called)
	}
	if err := b.Do(t.Context(), write("next")); err != nil {
		t.Errorf("the next: %v", err)
	}
}

func TestACommitThatIsDoneAndSaidToHaveFailedIsFoundByItsKey(t *testing.T) {
	for _, why := range []error{errOnPurpose, driver.ErrBadConn} {
		commits := 0
		s := newStore(openFailing(t, file(t), func(statement string) (before, after error) {
			if statement == "commit" {
				if commits++; commits == 2 { // the first is the table's
					return nil, why
				}
			}
			return nil, nil
		}))
		if got := s.post(t.Context(), "k", "tea"); got.Code != http.StatusInternalServerError {
			t.Errorf("got %d, want 500", got.Code)
		}
		if got := s.post(t.Context(), "k", "tea"); got.Body.String() != "note 1" || got.Header().Get("Idempotent-Replayed") != "true" {
			t.Errorf("got %d %s, want the answer of what was done", got.Code, got.Body)
		}
	}
}

// nowAndThen has a statement fail.
func nowAndThen(string) (before, after error) {
	switch rand.N(90) {
	case 0:
		return errOnPurpose, nil
	case 1:
		return nil, errOnPurpose
	case 2:
		return driver.ErrBadConn, nil
	}
	return nil, nil
}

func TestWhateverFailsInADatabaseIsToldToTheRightCaller(t *testing.T) {
	name := file(t)
	db := open(t, name)
	b := &funnel.Batch{MaxSize: 4, DB: openFailing(t, name, func(statement string) (before, after error) {
		before, after = nowAndThen(statement)
		if statement == "commit" {
			after = nil // or nobody could know
		}
		return before, after
	})}
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 25 {
				text := fmt.Sprint(w, " ", i)
				ctx, cancel := context.WithCancel(context.Background())
				if rand.N(4) == 0 {
					time.AfterFunc(rand.N(time.Millisecond), cancel)
				}
				err := b.Do(ctx, func(ctx context.Context, _ *sql.Tx) error { return b.Do(ctx, write(text)) })
				cancel()
				if got := count(t, db, `select count(*) from notes where text = ?`, text); (err == nil) != (got == 1) {
					t.Errorf("got %v, and %d notes", err, got)
				}
			}
		})
	}
	all.Wait()
}

func TestKeysAreDoneOnceWhateverFailsInADatabase(t *testing.T) {
	name := file(t)
	db := open(t, name)
	stores := []*store{newStore(openFailing(t, name, nowAndThen)), newStore(openFailing(t, name, nowAndThen))} // as in two processes
	var all sync.WaitGroup
	for c := range 4 {
		all.Go(func() {
			for i := range 20 {
				key := fmt.Sprintf("%d-%d", c/2, i) // of two clients
				for began := time.Now(); stores[rand.N(2)].post(context.Background(), key, key).Code != http.StatusCreated; {
					if time.Since(began) > patience {
						t.Errorf("%s: not within %v", key, patience)
						return
					}
				}
			}
		})
	}
	all.Wait()
	if got := count(t, db, `select count(*) from notes`); got != 2*20 {
		t.Errorf("got %d notes, want %d", got, 2*20)
	}
}
