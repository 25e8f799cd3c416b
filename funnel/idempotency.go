package funnel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/org/watt"
)

// Idempotency does once what clients repeat: requests with the same Idempotency-Key header
// (draft-ietf-httpapi-idempotency-key-header) run their handler once, and all get its answer. A client that has not
// got one sends its request again, with the same key, until it has.
//
// The key is a string in quotes, as the draft has it, or without; at most 255 bytes, and 1 KiB with parameters. It
// belongs to one caller app, one Principal, one method and one path, as the client has sent it, of one app: elsewhere
// the same key is another. GET, HEAD, OPTIONS and TRACE pass untouched, and so do requests without a key, unless
// Required is set.
//
// Refused are, each with a problem document: a key that is missing or malformed (400), a key whose first request is
// still in progress, or just being looked up in the database (409 with Retry-After), and one that came with another
// query or body before (422): an app in between that computes these must come to the same each time.
//
// # Where answers are kept
//
// With a Batch, in a table of its database, watt_idempotency, which makes itself. The handler runs in a transaction of
// the Batch's, and what it does with Batch.Do, on its request's context, joins that: key, work and answer are committed
// together, before the first byte of the answer is sent. Whatever happens in between repeats nothing and loses nothing,
// over restarts too, and any number of instances and processes may share the database. So the handler should do nothing
// but work with the database: all writes of the Batch wait for it. What it has begun with Batch.Do is finished, even if
// its client leaves, unless it then answers with an error.
//
// The database is SQLite or PostgreSQL. There, a request waits for one of another process that has its key; where
// transactions would wait for each other, one request is answered with 503. An app that may not create tables needs
// this one to be there, and select, insert, update and delete:
//
//	create table watt_idempotency (id text primary key, digest text not null,
//		status integer not null, header bytea not null, body bytea not null, since bigint not null);
//	create index watt_idempotency_since on watt_idempotency (since);
//
// Without, in memory, for one instance, and as long as that lives. What a handler has done when the program dies, or
// panics, may be done again.
//
// # Which answers are kept
//
// Not those that tell the client to change something or to come again: 401, 408, 409, 422, 429, 503 and 504. A handler
// that has done what must not be done twice answers with something else. Nor is an error (4xx or 5xx) of a request
// whose context has ended, and 499: its client has not got it, and the handler has likely given up. With a Batch, no 5xx
// is kept either, and what is not kept undoes what the handler did. Without, where nothing can be undone, 5xx are kept.
// After a panic nothing is kept. An answer in whose middle [watt.WriteError] is called becomes a 500, and so does one that
// is shorter than its Content-Length.
//
// The first client gets the answer as the handler gave it. Those that follow get its status, its body, the headers that
// the handler has set or changed, but for Date, Set-Cookie, trailers and those of the connection, and
// Idempotent-Replayed: true.
//
// # What a handler has to know
//
// A request with a key is read before its handler runs, and answered when that has returned: 1xx are lost, flushing
// does nothing (the writer is no [http.Flusher]), and no connection can be hijacked. With a Batch, handlers run one
// after another. What they read past Batch.Do, by its DB, takes a second connection and does not see what they have
// written; where there is no second, with SetMaxOpenConns(1), it hangs until its request ends. What they write past
// Batch.Do, in SQLite, waits for the lock that their own transaction has, for busy_timeout, and fails as locked. All
// other writers of the Batch wait meanwhile.
//
// The fields may be set until the first request, or until it is registered. It is a [prometheus.Collector], for
// env.Metrics.Register.
type Idempotency struct {
	// Batch says where answers are kept. If nil, in memory.
	Batch *Batch

	// Name tells several apart: it is the label name of the metrics, where an app registers more than one, and
	// separates the keys of apps that share a database and have the same paths. Apps that are called by their names in
	// the mesh need none for that.
	Name string

	// Required refuses requests without a key.
	Required bool

	// TTL is how long answers are kept. In a database that is shared, the shortest counts. If zero, 24 h.
	TTL time.Duration

	// MaxBytes bounds a request's body, which is read before its handler runs (413 if it is larger), and an answer's
	// body and headers together: all that is held in memory. An answer that gets larger becomes a 500, kept like any
	// other. In memory, 64 times as much is kept; then the oldest go. If zero, 1 MiB.
	MaxBytes int64

	// Principal returns whose key it is, so that nobody is shown the answer of somebody else who chose the same. If
	// nil, that is the header X-Watt-User, which only the program itself can set. It has to come along: apps in
	// between, such as the instances of a funnel, copy it as they copy the key, or else all users are one. It must be
	// the same when the client comes again.
	Principal func(*http.Request) string

	table  table
	memory memory

	mu     sync.Mutex
	flying map[string]bool // requests in progress, by id

	once    sync.Once
	metrics *prometheus.CounterVec
}

var (
	// errNotKept takes back what a handler has done whose answer is not kept.
	errNotKept    = errors.New("funnel: the answer is not kept")
	errInProgress = errors.New("funnel: the first request is in progress")
)

// Handler returns next behind the keys. It may be called for several routes, and all may be used concurrently.
func (i *Idempotency) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, err := keyOf(r)
		switch {
		case err != nil:
			i.refuse(w, http.StatusBadRequest, 0, err.Error())
		case key != "":
			i.serve(w, r, key, next)
		case i.Required && !safe(r.Method):
			i.refuse(w, http.StatusBadRequest, 0, "the header Idempotency-Key is missing")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// serve answers a request that has a key.
func (i *Idempotency) serve(w http.ResponseWriter, r *http.Request, key string, next http.Handler) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, i.maxBytes()))
	if err != nil {
		i.unread(w, r, err)
		return
	}
	rewind(r, body)
	id, digest := i.identify(r, key, body)
	rewind(r, body) // Principal may have read it
	kept, first, err := i.answer(w, r, id, digest, next)
	switch {
	case errors.Is(err, errInProgress):
		i.refuse(w, http.StatusConflict, time.Second, "the first request with this Idempotency-Key is still in progress")
	case err != nil:
		i.count("failed")
		watt.WriteError(w, err)
	case first != nil:
		i.count("first")
		first.write()
	case kept.digest != digest:
		i.refuse(w, http.StatusUnprocessableEntity, 0, "this Idempotency-Key came with another request before")
	default:
		i.count("replayed")
		w.Header().Set("Idempotent-Replayed", "true")
		kept.write(w)
	}
}

// rewind makes body the request's.
func rewind(r *http.Request, body []byte) {
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
}

// unread answers a request whose body could not be read: it is too large, has not come in time, or its client has left.
func (i *Idempotency) unread(w http.ResponseWriter, r *http.Request, err error) {
	if late := context.Cause(r.Context()); errors.Is(late, context.DeadlineExceeded) {
		err = late
	} else if _, large := errors.AsType[*http.MaxBytesError](err); !large {
		i.refuse(w, http.StatusBadRequest, 0, "the body broke off")
		return
	}
	i.count("refused")
	watt.WriteError(w, err)
}

// identify returns what stands for the key in its scope, and for what came with it.
func (i *Idempotency) identify(r *http.Request, key string, body []byte) (id, digest string) {
	principal := r.Header.Get("X-Watt-User")
	if i.Principal != nil {
		principal = i.Principal(r)
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%q %q %q %q %q %q", i.Name, watt.Caller(r.Context()), principal, r.Method, routeOf(r), key)
	id = hex.EncodeToString(hash.Sum(nil))
	hash.Reset()
	fmt.Fprintf(hash, "%q ", r.URL.RawQuery)
	_, _ = hash.Write(body)
	return id, hex.EncodeToString(hash.Sum(nil))
}

// answer returns the answer that was kept, or the first that next gives. When it has returned, that is in progress no
// more: a client that reads it slowly, or not at all, keeps nobody from asking again.
func (i *Idempotency) answer(w http.ResponseWriter, r *http.Request, id, digest string, next http.Handler) (kept *answer, first *recorder, err error) {
	if kept = i.memory.get(id, i.ttl()); kept != nil {
		return kept, nil, nil
	}
	if !i.begin(id) {
		return nil, nil, errInProgress
	}
	defer i.end(id)
	if i.Batch != nil {
		return i.record(w, r, id, digest, next)
	}
	kept, first = i.remember(w, r, id, digest, next)
	return kept, first, nil
}

// remember runs next, unless memory has its answer.
func (i *Idempotency) remember(w http.ResponseWriter, r *http.Request, id, digest string, next http.Handler) (kept *answer, first *recorder) {
	if kept = i.memory.get(id, i.ttl()); kept != nil { // in the meantime
		return kept, nil
	}
	first = i.recorder(w)
	next.ServeHTTP(first, r)
	a, err := first.answer(digest)
	if err != nil {
		first = i.recorder(w)
		first.most = math.MaxInt64 // this one has to fit
		watt.WriteError(first, err)
		a, _ = first.answer(digest)
	}
	if !again(a.status) && !late(r, a.status) {
		i.memory.put(id, a, 64*min(i.maxBytes(), math.MaxInt64/64))
	}
	return nil, first
}

// record runs next in a transaction, unless the table has its answer.
func (i *Idempotency) record(w http.ResponseWriter, r *http.Request, id, digest string, next http.Handler) (kept *answer, first *recorder, err error) {
	if err := i.table.ready(r.Context(), i.Batch); err != nil {
		return nil, nil, err
	}
	err = i.Batch.Do(r.Context(), func(ctx context.Context, tx *sql.Tx) (err error) {
		kept, err = i.table.claim(ctx, tx, id, digest, time.Now().Add(-i.ttl()))
		if kept != nil || err != nil {
			return err
		}
		first = i.recorder(w)
		joined := r.WithContext(i.Batch.joining(r.Context(), ctx))
		defer func() { // those in front look at r: for the route, and for files that are to be removed
			r.Pattern, r.MultipartForm = joined.Pattern, joined.MultipartForm
		}()
		next.ServeHTTP(first, joined)
		a, err := first.answer(digest)
		switch {
		case err != nil:
			return err
		case a.status >= http.StatusInternalServerError || again(a.status) || late(r, a.status):
			return errNotKept
		}
		return i.table.keep(ctx, tx, id, a)
	})
	if errors.Is(err, errNotKept) {
		err = nil
	}
	return kept, first, err
}

const gone = 499 // with which [watt.WriteError] answers a client that has gone, in place of any 5xx

// again reports whether an answer says to change something or to come again.
func again(status int) bool {
	switch status {
	case http.StatusUnauthorized, gone, http.StatusRequestTimeout, http.StatusConflict,
		http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// late reports whether an answer is an error that its client has not got, and that the handler may have given for that
// alone.
func late(r *http.Request, status int) bool {
	return status >= http.StatusBadRequest && r.Context().Err() != nil
}

// begin notes that a request is in progress, unless it is already.
func (i *Idempotency) begin(id string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.flying[id] {
		return false
	}
	if i.flying == nil {
		i.flying = make(map[string]bool)
	}
	i.flying[id] = true
	return true
}

func (i *Idempotency) end(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.flying, id)
}

func (i *Idempotency) refuse(w http.ResponseWriter, status int, after time.Duration, why string) {
	i.count("refused")
	refuse(w, status, after, why)
}

func (i *Idempotency) recorder(w http.ResponseWriter) *recorder {
	return &recorder{w: w, header: w.Header().Clone(), most: i.maxBytes()}
}

func (i *Idempotency) ttl() time.Duration {
	if i.TTL > 0 {
		return i.TTL
	}
	return 24 * time.Hour
}

func (i *Idempotency) maxBytes() int64 {
	if i.MaxBytes > 0 {
		return i.MaxBytes
	}
	return 1 << 20
}

// Describe implements [prometheus.Collector].
func (i *Idempotency) Describe(c chan<- *prometheus.Desc) { i.counted().Describe(c) }

// Collect implements [prometheus.Collector].
func (i *Idempotency) Collect(c chan<- prometheus.Metric) { i.counted().Collect(c) }

func (i *Idempotency) count(outcome string) { i.counted().WithLabelValues(outcome).Inc() }

func (i *Idempotency) counted() *prometheus.CounterVec {
	i.once.Do(func() {
		i.metrics = prometheus.NewCounterVec(prometheus.CounterOpts{
			Name:        "watt_idempotency_requests_total",
			Help:        "Requests with an Idempotency-Key, or without one where it is required, by what became of them.",
			ConstLabels: prometheus.Labels{"name": i.Name},
		}, []string{"outcome"})
	})
	return i.metrics
}
