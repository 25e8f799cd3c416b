package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"

	wattlib "github.com/org/watt"
	"github.com/org/watt/funnel"
)

// workedHeader says that the work was done which is not kept.
const workedHeader = "Worked"

// funnelling is a runtime with instances that compute, in processes of their own, and an app that keeps what they
// have found. A child of this program finds itself in it: see play.
func funnelling(hash wattlib.App, keep func(context.Context, *wattlib.Env) (http.Handler, error), workers int) *wattlib.Runtime {
	hash.Name, hash.Listen, hash.New = "hash", "127.0.0.1:0", newHash
	if hash.Isolation == 0 {
		hash.Isolation = wattlib.OwnProcess
	}
	return quiet(funnel.New(hash, wattlib.App{Name: "keep", New: keep, Workers: workers}))
}

func startFunnel(ctx context.Context, hash wattlib.App, keep http.Handler, workers int) (rt *wattlib.Runtime, end func(), err error) {
	rt = funnelling(hash, func(context.Context, *wattlib.Env) (http.Handler, error) { return keep, nil }, workers)
	return rt, func() { _ = rt.Shutdown(context.WithoutCancel(ctx)) }, rt.Start(ctx)
}

// newHash sums up what it is sent, does jobs, and passes on what is too large for either.
func newHash(_ context.Context, env *wattlib.Env) (http.Handler, error) {
	mux := http.NewServeMux()
	own := picture(megabyte)
	mux.HandleFunc("POST /sum/{seed}", func(w http.ResponseWriter, r *http.Request) {
		keep(w, r, env, seeded(r.PathValue("seed"), own))
	})
	mux.HandleFunc("POST /sum", func(w http.ResponseWriter, r *http.Request) {
		sum, err := sumOf(r.Body)
		if err != nil {
			wattlib.WriteError(w, err)
			return
		}
		keep(w, r, env, sum)
	})
	mux.HandleFunc("POST /grind/{turns}", func(w http.ResponseWriter, r *http.Request) {
		turns, _ := strconv.ParseInt(r.PathValue("turns"), 10, 64)
		if proof, err := job(turns).do(r.Context()); err == nil { // else nobody is there
			keep(w, r, env, proof)
		}
	})
	mux.HandleFunc("POST /stream", func(w http.ResponseWriter, r *http.Request) {
		pass(w, r, env, "/stream", r.Body)
	})
	return mux, nil
}

func sumOf(r io.Reader) (string, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// seeded is the sum of a seed and a megabyte behind it.
func seeded(seed string, rest []byte) string {
	hash := sha256.New()
	_, _ = io.WriteString(hash, seed) // a hash takes everything
	_, _ = hash.Write(rest)
	return hex.EncodeToString(hash.Sum(nil))
}

// keep has the result of a request kept.
func keep(w http.ResponseWriter, r *http.Request, env *wattlib.Env, what string) {
	w.Header().Set(workedHeader, "1")
	pass(w, r, env, "/sums?sum="+what, http.NoBody)
}

// pass asks the keeping app, and answers as it does.
func pass(w http.ResponseWriter, r *http.Request, env *wattlib.Env, path string, body io.Reader) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://keep.watt.local"+path, body)
	if err != nil {
		wattlib.WriteError(w, err)
		return
	}
	if key := r.Header.Get("Idempotency-Key"); key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := env.Client.Do(req)
	if err != nil {
		wattlib.WriteError(w, err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // the client sees it if that fails
}

// keeper keeps sums in a database, each once for its key.
func keeper(db *sql.DB) http.Handler {
	batch := &funnel.Batch{DB: db}
	once := &funnel.Idempotency{Batch: batch}
	mux := http.NewServeMux()
	mux.Handle("POST /sums", once.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := batch.Do(r.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, insertSum, r.FormValue("sum"), r.Header.Get("Idempotency-Key"))
			return err
		})
		if err != nil {
			wattlib.WriteError(w, err)
			return
		}
		_, _ = io.WriteString(w, r.FormValue("sum"))
	})))
	return mux
}

// sums are how many ask for sums at the same time.
const sums = 16

// summing has sums of a megabyte computed and kept: of one that is sent, or of one that is there.
func summing(hash wattlib.App, sent bool) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		db, drop, err := openDatabase(ctx)
		if err != nil {
			return session{}, err
		}
		rt, end, err := startFunnel(ctx, hash, keeper(db), 32)
		if err != nil {
			drop()
			return session{}, err
		}
		data, body, path := picture(megabyte), []byte(nil), "/sum/seed"
		want := seeded("seed", data)
		if sent {
			want, body, path = seeded("", data), data, "/sum"
		}
		do, closeIdle := overTCP(rt.Status()[0].Addr)
		ops := make([]op, sums)
		for i := range ops {
			ops[i] = func(ctx context.Context) error {
				return call(ctx, do, http.MethodPost, "http://hash"+path, bytes.NewReader(body), func(body io.Reader) error {
					if got, err := io.ReadAll(body); err != nil || string(got) != want {
						return fmt.Errorf("%w: %q, %w", errWrongAnswer, got, err)
					}
					return nil
				})
			}
		}
		return repeat(ops, func() { closeIdle(); end(); drop() }), nil
	}
}

// sumsAlone is the same loop on all processors, with nothing sent nor kept.
func sumsAlone(context.Context) (session, error) {
	body := picture(megabyte)
	ops := make([]op, runtime.GOMAXPROCS(0))
	for i := range ops {
		ops[i] = func(context.Context) error { seeded("seed", body); return nil }
	}
	return repeat(ops, func() {}), nil
}

// insertSum keeps a sum.
const insertSum = `insert into sums (sum, client) values (?, ?)`
