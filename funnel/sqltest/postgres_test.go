//go:build postgres

package sqltest_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
)

// These tests need PostgreSQL, as Debian installs it: go test -tags postgres -run PostgreSQL ./funnel/sqltest.

func TestPostgreSQL(t *testing.T) {
	c := startCluster(t)
	for name, test := range map[string]func(*testing.T, *postgres){
		"a key is done once": onceInPostgreSQL,
		"one that ignores an error does not fail the others":  ignoredErrorInPostgreSQL,
		"processes that start together make the table":        tableInPostgreSQL,
		"processes that start together have the table":        startInPostgreSQL,
		"an app that may not create tables":                   roleInPostgreSQL,
		"an app that may not create tables lacks the table":   noTableInPostgreSQL,
		"keys in other order are done, or told to come again": orderInPostgreSQL,
		"a commit that conflicts is told to come again":       conflictInPostgreSQL,
	} {
		t.Run(name, func(t *testing.T) { test(t, c.create(t)) })
	}
}

// cluster is a PostgreSQL server of a test's own, behind a socket in a directory.
type cluster struct{ dir string }

func startCluster(t *testing.T) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "postgres") // not t.TempDir: nobody else may enter that
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	as := unprivileged(t, dir)
	command := func(ctx context.Context, name string, args ...string) (*exec.Cmd, *bytes.Buffer) {
		cmd, log := exec.CommandContext(ctx, program(t, name), args...), new(bytes.Buffer)
		cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = dir, as, log, log
		return cmd, log
	}
	data := filepath.Join(dir, "data")
	initdb, log := command(t.Context(), "initdb", "-D", data, "-U", "owner", "-A", "trust", "-E", "UTF8", "--no-sync")
	if err := initdb.Run(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, log)
	}
	ctx, stop := context.WithCancel(context.Background())
	server, log := command(ctx, "postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-F", "-c", "deadlock_timeout=100ms")
	server.Cancel = func() error { return server.Process.Signal(syscall.SIGINT) } // cuts connections, and cleans up
	server.WaitDelay = patience
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = server.Wait(); close(ended) }()
	t.Cleanup(func() {
		stop()
		<-ended
		if t.Failed() {
			t.Logf("postgres: %s", log)
		}
	})
	c := &cluster{dir}
	c.wait(t, ended)
	return c
}

// unprivileged gives dir to a user whom PostgreSQL lets run it: nobody instead of root, or else the test's own.
func unprivileged(t *testing.T, dir string) *syscall.SysProcAttr {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// program returns where a program of PostgreSQL's is, which Debian does not put into the PATH.
func program(t *testing.T, name string) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		t.Fatalf("no %s in /usr/lib/postgresql: apt-get install postgresql", name)
	}
	return slices.Max(found)
}

func (c *cluster) source(dbname, role string) string {
	return fmt.Sprintf("host=%s dbname=%s user=%s", c.dir, dbname, role)
}

// wait waits until the server takes connections.
func (c *cluster) wait(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	db := connect(t, c.source("postgres", "owner"))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		err := db.PingContext(t.Context())
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			t.Fatal("the server has ended")
		}
		if time.Since(began) > patience {
			t.Fatal(err)
		}
	}
}

// postgres is a database in a cluster.
type postgres struct {
	of   *cluster
	name string
}

// create makes a database with a table of notes.
func (c *cluster) create(t *testing.T) *postgres {
	t.Helper()
	d := &postgres{c, fmt.Sprint("test", time.Now().UnixNano())}
	must(t, connect(t, c.source("postgres", "owner")), `create database `+d.name)
	must(t, d.open(t), `create table notes (id serial primary key, text text unique)`)
	return d
}

// open opens the database, as a process of its own would.
func (d *postgres) open(t *testing.T) *sql.DB {
	t.Helper()
	return connect(t, d.of.source(d.name, "owner"))
}

func connect(t *testing.T, source string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func onceInPostgreSQL(t *testing.T, d *postgres) {
	s := newStore(d.open(t))
	for _, replayed := range []string{"", "true"} {
		got := s.post(t.Context(), "k", "tea")
		if got.Code != http.StatusCreated || got.Body.String() != "note 1" || got.Header().Get("Location") != "/notes/1" || got.Header().Get("Idempotent-Replayed") != replayed {
			t.Errorf("got %d %s %v", got.Code, got.Body, got.Header())
		}
	}
	if got := s.post(t.Context(), "k", "coffee"); got.Code != http.StatusUnprocessableEntity || s.notes(t) != 1 {
		t.Errorf("got %d and %d notes, want 422 and 1", got.Code, s.notes(t))
	}
	s.status = http.StatusConflict
	if got := s.post(t.Context(), "k2", "milk"); got.Code != http.StatusConflict || s.notes(t) != 1 {
		t.Errorf("got %d and %d notes, want 409 and 1", got.Code, s.notes(t))
	}
}

func ignoredErrorInPostgreSQL(t *testing.T, d *postgres) {
	db := d.open(t)
	b := &funnel.Batch{DB: db}
	ignore := func(ctx context.Context, tx *sql.Tx) error {
		_ = write("first")(ctx, tx) // is there already
		return nil
	}
	rest, first := behind(t, b, write("a"), ignore, write("b"))
	if err := errors.Join(first, rest[0], rest[2]); err != nil {
		t.Errorf("got %v of those that were good", err)
	}
	if rest[1] == nil || errors.Is(rest[1], watt.ErrUnavailable) {
		t.Errorf("got %v, want an error of its own", rest[1])
	}
	if n := count(t, db, `select count(*) from notes`); n != 3 {
		t.Errorf("got %d notes, want 3", n)
	}
}

// startTogether has n stores of a database take their first requests at once, and returns what was answered with an
// error.
func startTogether(t *testing.T, d *postgres, n int) (failed []string) {
	t.Helper()
	start := make(chan struct{})
	answers := make([]*httptest.ResponseRecorder, n)
	var all sync.WaitGroup
	for i := range n {
		s := newStore(d.open(t))
		if err := s.db.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(i, " at ", time.Now().UnixNano())
		all.Go(func() {
			<-start
			answers[i] = s.post(t.Context(), "k"+strconv.Itoa(i), text)
		})
	}
	close(start)
	all.Wait()
	for _, got := range answers {
		if got.Code != http.StatusCreated {
			failed = append(failed, fmt.Sprint(got.Code, " ", strings.TrimSpace(got.Body.String())))
		}
	}
	return failed
}

func tableInPostgreSQL(t *testing.T, d *postgres) {
	for range 5 {
		if failed := startTogether(t, d, 8); failed != nil {
			t.Errorf("got %v", failed)
		}
		must(t, d.open(t), `drop table watt_idempotency`)
		must(t, d.open(t), `delete from notes`)
	}
}

func startInPostgreSQL(t *testing.T, d *postgres) {
	newStore(d.open(t)).post(t.Context(), "before", "before")
	for range 10 {
		if failed := startTogether(t, d, 4); failed != nil {
			t.Errorf("got %v", failed)
		}
		must(t, d.open(t), `delete from watt_idempotency`)
	}
}

// restricted opens the database as a role that may do what a store does, and not create tables.
func (d *postgres) restricted(t *testing.T) *sql.DB {
	t.Helper()
	owner, role := d.open(t), "role_of_"+d.name
	must(t, owner, `revoke create on schema public from public`) // as is the default since PostgreSQL 15
	must(t, owner, `create role `+role+` login`)
	must(t, owner, `grant select, insert, update, delete on all tables in schema public to `+role)
	must(t, owner, `grant usage on all sequences in schema public to `+role)
	return connect(t, d.of.source(d.name, role))
}

func roleInPostgreSQL(t *testing.T, d *postgres) {
	newStore(d.open(t)).post(t.Context(), "before", "before")
	s := newStore(d.restricted(t))
	if got := s.post(t.Context(), "k", "tea"); got.Code != http.StatusCreated {
		t.Errorf("got %d %s, want 201", got.Code, got.Body)
	}
}

func noTableInPostgreSQL(t *testing.T, d *postgres) {
	s := newStore(d.restricted(t))
	if got := s.post(t.Context(), "k", "tea"); got.Code != http.StatusInternalServerError || s.notes(t) != 0 {
		t.Errorf("got %d %s, want 500, as nobody else will help", got.Code, got.Body)
	}
}

func orderInPostgreSQL(t *testing.T, d *postgres) {
	one, two := newStore(d.open(t)), newStore(d.open(t))
	for i, s := range []*store{one, two} {
		s.post(t.Context(), "before", strconv.Itoa(i))
		s.gate = make(chan struct{})
	}
	answers := make(chan *httptest.ResponseRecorder)
	ask := func(s *store, key string) {
		go func() { answers <- s.post(context.Background(), key, key) }()
	}
	ask(one, "a")
	ask(two, "b")
	<-one.inside
	<-two.inside
	ask(one, "b")
	ask(two, "a")
	waiting(t, one.batch, 1)
	waiting(t, two.batch, 1)
	close(one.gate)
	close(two.gate)
	for range 4 {
		select {
		case got := <-answers:
			if got.Code == http.StatusServiceUnavailable && got.Header().Get("Retry-After") != "" {
				continue
			}
			if got.Code != http.StatusCreated {
				t.Errorf("got %d %s, want it done or told to come again", got.Code, got.Body)
			}
		case <-time.After(patience):
			t.Fatal("they wait for each other")
		}
	}
	if n := one.notes(t); n != 3 {
		t.Errorf("got %d notes, want each once", n)
	}
}

// conflictInPostgreSQL has two transactions that each read what the other writes, so that one cannot be committed.
func conflictInPostgreSQL(t *testing.T, d *postgres) {
	must(t, d.open(t), `alter database `+d.name+` set default_transaction_isolation = serializable`)
	var done []chan error
	gates := []chan struct{}{make(chan struct{}), make(chan struct{})}
	inside := make(chan struct{})
	for i, gate := range gates {
		done = append(done, doing(&funnel.Batch{DB: d.open(t)}, func(ctx context.Context, tx *sql.Tx) error {
			var n int
			err := tx.QueryRowContext(ctx, `select count(*) from notes`).Scan(&n)
			if err == nil {
				err = write(strconv.Itoa(i))(ctx, tx)
			}
			inside <- struct{}{}
			<-gate
			return err
		}))
	}
	<-inside
	<-inside
	for i, gate := range gates {
		close(gate)
		if err := result(t, done[i]); (err == nil) != (i == 0) || i > 0 && (!errors.Is(err, watt.ErrUnavailable) || !strings.Contains(err.Error(), "commit: ")) {
			t.Errorf("got %v of transaction %d, want the second to be told to come again", err, i)
		}
	}
}
