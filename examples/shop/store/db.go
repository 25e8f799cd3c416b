package store

import (
	"context"
	"database/sql"
	_ "embed" // the schema is a file
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver
)

//go:embed schema.sql
var schema string

// open opens the database in file, and makes it if it is not there.
func open(ctx context.Context, file string) (*sql.DB, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: filepath.ToSlash(file)}).EscapedPath()+
		"?_journal_mode=wal&_busy_timeout=5000&_foreign_keys=on&_txlock=immediate&_error_rc=1")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(Connections)
	db.SetMaxIdleConns(Connections)
	if err := seed(ctx, db); err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

// seed fills a new database.
func seed(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var version int
	if err := tx.QueryRowContext(ctx, `pragma user_version`).Scan(&version); err != nil || version > 0 {
		return err
	}
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return err
	}
	return tx.Commit()
}
