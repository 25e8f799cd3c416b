// Command funnel hashes what it is sent in one process per processor, all behind one port, and keeps the results in an
// SQLite file that a single app writes. A page at 127.0.0.1:9090 shows what goes on.
//
//	go run ./examples/funnel
//	curl -H 'Idempotency-Key: "1"' --data-binary @go.mod 127.0.0.1:8080/sums
package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"os/signal"
	"syscall"

	_ "modernc.org/sqlite"

	"github.com/org/watt"
	"github.com/org/watt/admin"
	"github.com/org/watt/funnel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	rt := newFunnel("127.0.0.1:8080", "sums.db")
	rt.Admin = &http.Server{Addr: "127.0.0.1:9090", Handler: admin.Handler(rt, admin.Options{})}
	if err := rt.Run(ctx); err != nil { // in each hasher's process, main runs again up to here
		log.Fatal(err)
	}
}

func newFunnel(listen, file string) *watt.Runtime {
	return watt.New(funnel.New(
		watt.App{Name: "hash", Listen: listen, New: newHash},
		watt.App{Name: "store", New: newStore(file)},
	))
}

func newHash(_ context.Context, env *watt.Env) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New() // any amount of bytes, in little memory
		if _, err := io.Copy(sum, r.Body); err != nil {
			watt.WriteError(w, err)
			return
		}
		req, _ := http.NewRequestWithContext(r.Context(), http.MethodPost, fmt.Sprintf("http://store.watt.local/sums?sum=%x", sum.Sum(nil)), http.NoBody)
		req.Header = http.Header{"Idempotency-Key": r.Header["Idempotency-Key"], "X-Watt-User": r.Header["X-Watt-User"]} // done once, for each user
		resp, err := env.Client.Do(req)
		if err != nil {
			watt.WriteError(w, err)
			return
		}
		defer resp.Body.Close()
		maps.Copy(w.Header(), resp.Header) // store's answer, or why it refuses
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}), nil
}

func newStore(file string) func(context.Context, *watt.Env) (http.Handler, error) {
	return func(ctx context.Context, env *watt.Env) (http.Handler, error) {
		db, err := sql.Open("sqlite", "file:"+file+"?_pragma=journal_mode(wal)&_pragma=busy_timeout(5000)&_txlock=immediate")
		if err != nil {
			return nil, err
		}
		env.Cleanup(db.Close)
		batch := &funnel.Batch{DB: db} // many writers, one transaction
		once := &funnel.Idempotency{Batch: batch, Required: true}
		env.Metrics.MustRegister(batch, once)
		_, err = db.ExecContext(ctx, `create table if not exists sums (id integer primary key, sum text)`)
		return once.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var id int64
			err := batch.Do(r.Context(), func(ctx context.Context, tx *sql.Tx) error {
				return tx.QueryRowContext(ctx, `insert into sums (sum) values (?) returning id`, r.FormValue("sum")).Scan(&id)
			})
			if err != nil {
				watt.WriteError(w, err)
				return
			}
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, "sum %d is stored\n", id)
		})), err
	}
}
