package funnel

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"
)

// table keeps answers in a database. Its SQL is SQLite's and PostgreSQL's: numbered parameters, each once and in order,
// and bytea, which SQLite takes for a type like any other.
type table struct {
	made  atomic.Bool
	swept atomic.Int64 // when, in Unix seconds
}

// schema returns the statements that make the table.
func schema() [2]string {
	return [...]string{
		`create table if not exists watt_idempotency (
			id text primary key, digest text not null, status integer not null, header text not null, body bytea not null, since bigint not null)`,
		`create index if not exists watt_idempotency_since on watt_idempotency (since)`,
	}
}

// claim takes id for the caller, or returns the answer that was kept for it after oldest. Whoever claims the same in another
// process waits here until the transaction is over.
func (t *table) claim(ctx context.Context, tx *sql.Tx, id, digest string, oldest time.Time) (*answer, error) {
	if err := t.prepare(ctx, tx, oldest); err != nil {
		return nil, err
	}
	claimed, err := tx.ExecContext(ctx, `insert into watt_idempotency (id, digest, status, header, body, since) values ($1, $2, 0, '', '', $3)
		on conflict (id) do update set digest = excluded.digest, status = 0, since = excluded.since where watt_idempotency.since < $4`,
		id, digest, time.Now().Unix(), oldest.Unix())
	if err != nil {
		return nil, fmt.Errorf("funnel: idempotency: %w", err)
	}
	if n, err := claimed.RowsAffected(); n == 1 || err != nil {
		return nil, err
	}
	var a answer
	var header []byte
	row := tx.QueryRowContext(ctx, `select digest, status, header, body from watt_idempotency where id = $1`, id)
	if err := row.Scan(&a.digest, &a.status, &header, &a.body); err != nil {
		return nil, fmt.Errorf("funnel: idempotency: %w", err)
	}
	if err := json.Unmarshal(header, &a.header); err != nil {
		return nil, fmt.Errorf("funnel: idempotency: headers of an answer: %w", err)
	}
	return &a, nil
}

// prepare makes the table if it may not be there, and from time to time forgets some of what has expired.
func (t *table) prepare(ctx context.Context, tx *sql.Tx, oldest time.Time) error {
	if !t.made.Load() {
		for _, statement := range schema() {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("funnel: idempotency: %w", err)
			}
		}
	}
	now := time.Now().Unix()
	if last := t.swept.Load(); now <= last || !t.swept.CompareAndSwap(last, now) {
		return nil
	}
	const some = `delete from watt_idempotency where id in (select id from watt_idempotency where since < $1 limit 1000)`
	if _, err := tx.ExecContext(ctx, some, oldest.Unix()); err != nil {
		return fmt.Errorf("funnel: idempotency: %w", err)
	}
	return nil
}

// keep keeps the answer of a claimed id.
func (t *table) keep(ctx context.Context, tx *sql.Tx, id string, a *answer) error {
	header, err := json.Marshal(a.header)
	if err != nil {
		return fmt.Errorf("funnel: idempotency: headers of an answer: %w", err)
	}
	const update = `update watt_idempotency set status = $1, header = $2, body = $3 where id = $4`
	if _, err := tx.ExecContext(ctx, update, a.status, string(header), a.body, id); err != nil {
		return fmt.Errorf("funnel: idempotency: %w", err)
	}
	return nil
}
