package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver

	"github.com/org/watt/funnel"
)

// writers is how many write at the same time.
const writers = 64

// openDatabase makes a database on a disk, which drop removes.
func openDatabase(ctx context.Context) (db *sql.DB, drop func(), err error) {
	dir, err := onDisk()
	if err != nil {
		return nil, nil, err
	}
	drop = func() {
		if db != nil {
			_ = db.Close()
		}
		_ = os.RemoveAll(dir)
	}
	db, err = sql.Open("sqlite", "file:"+filepath.Join(dir, "bench.db")+
		"?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=busy_timeout(10000)&_txlock=immediate")
	if err == nil {
		_, err = db.ExecContext(ctx, `create table sums (id integer primary key, sum text, client text)`)
	}
	if err != nil {
		drop()
		return nil, nil, err
	}
	return db, drop, nil
}

// onDisk makes a directory where fsync has to reach a disk.
func onDisk() (string, error) {
	for _, parent := range []string{os.TempDir(), "/var/tmp"} {
		if inMemoryOnly(parent) {
			continue
		}
		if dir, err := os.MkdirTemp(parent, "bench"); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%s and /var/tmp are in memory: set TMPDIR to a directory on a disk", os.TempDir())
}

// write is one way to write a sum.
type write func(ctx context.Context, sum string) error

// batched writes together with whoever writes at the time.
func batched(db *sql.DB) write {
	b := &funnel.Batch{DB: db}
	return func(ctx context.Context, sum string) error {
		return b.Do(ctx, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, insertSum, sum, "")
			return err
		})
	}
}

// oneByOne writes in a transaction of its own. Writers wait for each other here, since SQLite has them poll, and is
// slower so.
func oneByOne(db *sql.DB) write {
	var turn sync.Mutex
	return func(ctx context.Context, sum string) error {
		turn.Lock()
		defer turn.Unlock()
		_, err := db.ExecContext(ctx, insertSum, sum, "")
		return err
	}
}

// writing has many write at the same time, and measures the disk beside it.
func writing(way func(*sql.DB) write) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		db, drop, err := openDatabase(ctx)
		if err != nil {
			return session{}, err
		}
		do := way(db)
		var written atomic.Int64
		ops := make([]op, writers)
		for i := range ops {
			ops[i] = func(ctx context.Context) error {
				defer written.Add(1)
				return do(ctx, "sum")
			}
		}
		return session{close: drop, measure: func(ctx context.Context, d time.Duration) (sample, error) {
			s, err := repeatFor(ctx, ops, d)
			if err != nil {
				return s, err
			}
			var kept int64
			if err := db.QueryRowContext(ctx, `select count(*) from sums`).Scan(&kept); err != nil || kept != written.Load() {
				return s, fmt.Errorf("%w: %d of %d writes kept, %w", errWrongAnswer, kept, written.Load(), err)
			}
			fsync, err := timeFsync(min(d, 200*time.Millisecond))
			s.allocs, s.also = math.NaN(), []float64{fsync}
			return s, err
		}}, nil
	}
}

// timeFsync returns how long it takes to make a page durable, in ms at the median.
func timeFsync(d time.Duration) (ms float64, err error) {
	dir, err := onDisk()
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	f, err := os.Create(filepath.Join(dir, "page"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var took []float64
	for began := time.Now(); time.Since(began) < d || len(took) == 0; {
		start := time.Now()
		if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start).Seconds()*1000)
	}
	return median(took), nil
}
