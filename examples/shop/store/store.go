// Package store is the application that keeps the shop's data. No other touches the database.
package store

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
)

// document describes what other programs may ask of the app.
//
//go:embed openapi.yaml
var document embed.FS

// Connections is how many connections to the database store opens. Give the app as many workers: a
// request then never waits for a connection, and what is too much waits, or is shed, at the door.
const Connections = 8

type store struct {
	db    *sql.DB
	batch *funnel.Batch // of all writes: SQLite has one writer at a time
	log   *zap.Logger
}

// New returns what makes the handler of the store app, which keeps its data in file. It takes slow more time for each
// request, to show what a slow backend does.
func New(file string, slow time.Duration) func(context.Context, *watt.Env) (http.Handler, error) {
	return func(ctx context.Context, env *watt.Env) (http.Handler, error) {
		db, err := open(ctx, file)
		if err != nil {
			return nil, fmt.Errorf("database %s: %w", file, err)
		}
		env.Cleanup(db.Close)
		s := &store{db: db, batch: &funnel.Batch{DB: db}, log: env.Logger}
		once := &funnel.Idempotency{Batch: s.batch, MaxBytes: maxUpload}
		if err := errors.Join(env.Metrics.Register(s.batch), env.Metrics.Register(once)); err != nil {
			return nil, err
		}

		r := chi.NewRouter()
		if slow > 0 {
			r.Use(slower(slow))
		}
		r.Get("/users/{id:[0-9]+}", s.user)
		r.Get("/orders", s.orders)
		r.With(once.Handler).Post("/pictures", s.addPicture)
		r.Get("/pictures", s.pictures)
		r.Get("/pictures/{id:[0-9]+}", s.picture)
		r.Get("/pictures/{id:[0-9]+}/{width:[0-9]+}", s.thumbnail)
		r.Handle("/openapi.yaml", http.FileServerFS(document))
		return r, nil
	}
}

func slower(by time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(by):
			case <-r.Context().Done():
			}
			next.ServeHTTP(w, r)
		})
	}
}

type user struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

func (s *store) user(w http.ResponseWriter, r *http.Request) {
	var u user
	row := s.db.QueryRowContext(r.Context(), `select id, name from users where id = ?`, r.PathValue("id"))
	if err := row.Scan(&u.ID, &u.Name); err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, u)
}

type order struct {
	ID    int64  `json:"id"`
	Item  string `json:"item"`
	Cents int64  `json:"cents"`
}

func (s *store) orders(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.FormValue("user"), 10, 64)
	if err != nil {
		refuse(w, http.StatusBadRequest, "user is not a number")
		return
	}
	all := []order{}
	rows, err := s.db.QueryContext(r.Context(), `select id, item, cents from orders where user_id = ? order by id`, id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var o order
		if err := rows.Scan(&o.ID, &o.Item, &o.Cents); err != nil {
			s.fail(w, r, err)
			return
		}
		all = append(all, o)
	}
	if err := rows.Err(); err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, all)
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// refuse tells what is wrong with a request, in the form that [watt.WriteError] has.
func refuse(w http.ResponseWriter, status int, reason string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": reason})
}

// fail answers a request whose query failed. The client does not learn why, the log does.
func (s *store) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, sql.ErrNoRows) {
		refuse(w, http.StatusNotFound, "no such thing")
		return
	}
	if r.Context().Err() == nil { // else the client is gone, or its time is up
		s.log.Error("query failed", zap.String("path", r.URL.Path), zap.Error(err))
	}
	watt.WriteError(w, err)
}
