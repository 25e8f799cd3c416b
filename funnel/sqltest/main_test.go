package sqltest_test

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/org/watt/funnel"
)

// options are how an app should open SQLite: one writer at a time, which others wait for.
const options = "?_journal_mode=wal&_busy_timeout=5000&_txlock=immediate&_foreign_keys=on"

// open opens a database with a table of notes.
func open(tb testing.TB, file string, more ...string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("sqlite", "file:"+file+strings.Join(append([]string{options}, more...), "&"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	must(tb, db, `create table if not exists notes (id integer primary key, text text unique)`)
	return db
}

// file returns the name of a database that is not there yet.
func file(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(tb.TempDir(), "test.db")
}

func must(tb testing.TB, db *sql.DB, statement string) {
	tb.Helper()
	if _, err := db.ExecContext(context.Background(), statement); err != nil {
		tb.Fatalf("%s: %v", statement, err)
	}
}

// count returns what a query counts.
func count(tb testing.TB, db *sql.DB, query string, args ...any) (n int) {
	tb.Helper()
	if err := db.QueryRowContext(context.Background(), query, args...).Scan(&n); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	return n
}

// write returns a function for Do that writes a note.
func write(text string) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `insert into notes (text) values ($1)`, text)
		return err
	}
}

// held is a call of Do whose fn is held until it is let go, so that others gather behind it.
type held struct {
	letGo func()
	done  chan error
}

func hold(tb testing.TB, b *funnel.Batch, fn func(context.Context, *sql.Tx) error) *held {
	tb.Helper()
	inside, release := make(chan struct{}), make(chan struct{})
	h := &held{letGo: func() { close(release) }, done: make(chan error, 1)}
	go func() {
		h.done <- b.Do(context.Background(), func(ctx context.Context, tx *sql.Tx) error {
			close(inside)
			<-release
			return fn(ctx, tx)
		})
	}()
	select {
	case <-inside:
	case <-time.After(patience):
		tb.Fatal("fn was not called")
	}
	return h
}

// doing is Do in a goroutine of its own.
func doing(b *funnel.Batch, fn func(context.Context, *sql.Tx) error) chan error {
	c := make(chan error, 1)
	go func() { c <- b.Do(context.Background(), fn) }()
	return c
}

// patience bounds what a test waits for.
const patience = 20 * time.Second

func result(tb testing.TB, c <-chan error) error {
	tb.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patience):
		tb.Fatal("Do has not returned")
		return nil
	}
}

// corrupt makes a file something else than a database.
func corrupt(tb testing.TB, name string) {
	tb.Helper()
	if err := os.WriteFile(name, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		tb.Fatal(err)
	}
}
