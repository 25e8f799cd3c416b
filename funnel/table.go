package funnel

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/gob"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/org/watt"
)

// table keeps answers in a database. Its SQL is SQLite's and PostgreSQL's: numbered parameters, each once and in order,
// and bytea, which SQLite takes for a type like any other.
type table struct {
	made atomic.Bool

	// These belong to whoever has the turn in the batch.
	swept   int64 // when, in Unix seconds
	claimed int   // since then
}

// schema returns the statements that make the table. The doc comment of [Idempotency] has them too.
func schema() [2]string {
	return [...]string{
		`create table watt_idempotency (id text primary key, digest text not null,
			status integer not null, header bytea not null, body bytea not null, since bigint not null)`,
		`create index watt_idempotency_since on watt_idempotency (since)`,
	}
}

// ready makes the table if it is not there: not in a transaction of the batch's, which would hold its locks until
// others are done, nor beside one, which may lock everything.
func (t *table) ready(ctx context.Context, b *Batch) error {
	if t.made.Load() || b.DB == nil || ctx.Value(levelKey{b}) != nil { // the last would wait for itself
		return nil
	}
	if !there(ctx, b.DB) {
		err := b.between(ctx, func() error {
			if there(ctx, b.DB) {
				return nil
			}
			return create(ctx, b.DB)
		})
		if err != nil && !there(ctx, b.DB) { // nor was another process quicker
			return err
		}
	}
	t.made.Store(true)
	return nil
}

// there reports whether there is the table. Not everybody may make it who may use it.
func there(ctx context.Context, db *sql.DB) bool {
	_, err := db.ExecContext(ctx, `select 1 from watt_idempotency limit 0`)
	return err == nil
}

func create(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("funnel: %w: idempotency: making the table: %w", watt.ErrUnavailable, err)
	}
	defer func() { _ = tx.Rollback() }() // of what is not committed
	for _, statement := range schema() {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("funnel: idempotency: making the table: %w", err)
		}
	}
	return tx.Commit()
}

// claim takes id for the caller, or returns the answer that was kept for it after oldest. Whoever claims the same in
// another process waits here until the transaction is over. If it fails, the table may be gone.
func (t *table) claim(ctx context.Context, tx *sql.Tx, id, digest string, oldest time.Time) (known *answer, err error) {
	defer func() {
		if err != nil {
			t.made.Store(false)
			err = fmt.Errorf("funnel: idempotency: %w", unavailable(err))
		}
	}()
	if err := t.sweep(ctx, tx, oldest); err != nil {
		return nil, err
	}
	claimed, err := tx.ExecContext(ctx, `insert into watt_idempotency (id, digest, status, header, body, since) values ($1, $2, 0, '', '', $3)
		on conflict (id) do update set digest = excluded.digest, status = 0, since = excluded.since where watt_idempotency.since < $4`,
		id, digest, time.Now().Unix(), oldest.Unix())
	if err != nil {
		return nil, err
	}
	if n, err := claimed.RowsAffected(); n == 1 || err != nil {
		return nil, err
	}
	var a answer
	var header []byte
	row := tx.QueryRowContext(ctx, `select digest, status, header, body from watt_idempotency where id = $1`, id)
	if err := row.Scan(&a.digest, &a.status, &header, &a.body); err != nil {
		return nil, err
	}
	if err := gob.NewDecoder(bytes.NewReader(header)).Decode(&a.header); err != nil {
		return nil, fmt.Errorf("headers of an answer: %w", err)
	}
	return &a, nil
}

// sweep forgets some of what has expired: once a second, and more often if more is claimed, so that there goes twice as
// much as comes.
func (t *table) sweep(ctx context.Context, tx *sql.Tx, oldest time.Time) error {
	t.claimed++
	now := time.Now().Unix()
	if now <= t.swept && t.claimed < 500 {
		return nil
	}
	t.swept, t.claimed = now, 0
	_, err := tx.ExecContext(ctx, `delete from watt_idempotency where id in (select id from watt_idempotency where since < $1 limit 1000)`, oldest.Unix())
	return err
}

// keep keeps the answer of a claimed id.
func (t *table) keep(ctx context.Context, tx *sql.Tx, id string, a *answer) error {
	var header bytes.Buffer
	if err := gob.NewEncoder(&header).Encode(a.header); err != nil { // values are bytes, which JSON would not keep
		return fmt.Errorf("funnel: idempotency: headers of an answer: %w", err)
	}
	const update = `update watt_idempotency set status = $1, header = $2, body = $3 where id = $4`
	if _, err := tx.ExecContext(ctx, update, a.status, header.Bytes(), a.body, id); err != nil {
		return fmt.Errorf("funnel: idempotency: %w", err)
	}
	return nil
}
