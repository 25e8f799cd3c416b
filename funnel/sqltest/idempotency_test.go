package sqltest_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
)

// store is an app that keeps notes, each once per key.
type store struct {
	db     *sql.DB
	batch  *funnel.Batch
	once   *funnel.Idempotency
	status int           // of the answer, if it is not 201
	gate   chan struct{} // a handler waits for it, if there is one
	inside chan struct{}
}

func newStore(db *sql.DB) *store {
	b := &funnel.Batch{DB: db}
	return &store{db: db, batch: b, once: &funnel.Idempotency{Batch: b, Required: true}, inside: make(chan struct{}, 16)}
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		watt.WriteError(w, err)
		return
	}
	var id int64
	err = s.batch.Do(r.Context(), func(ctx context.Context, tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `insert into notes (text) values ($1) returning id`, string(body)).Scan(&id)
	})
	if err != nil {
		watt.WriteError(w, err)
		return
	}
	if s.gate != nil {
		s.inside <- struct{}{}
		<-s.gate
	}
	switch s.status {
	case 0:
		w.Header().Set("Location", fmt.Sprint("/notes/", id))
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "note %d", id)
	case -1:
		panic("on purpose")
	case -2:
		w.Write(make([]byte, 2<<20))
	case -3:
		io.WriteString(w, "half")
		watt.WriteError(w, errors.New("on purpose"))
	case -4:
		w.Header().Set("Content-Length", "8")
		io.WriteString(w, "half") // of what it passes on
	default:
		w.WriteHeader(s.status)
	}
}

// post sends a note, as a client of the store's handler.
func (s *store) post(ctx context.Context, key, body string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/notes", strings.NewReader(body))
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	s.once.Handler(s).ServeHTTP(rec, req)
	return rec
}

func (s *store) notes(tb testing.TB) int {
	tb.Helper()
	return count(tb, s.db, `select count(*) from notes`)
}

func TestAKeyIsRememberedOverARestart(t *testing.T) {
	name := file(t)
	first := newStore(open(t, name)).post(t.Context(), `"k"`, "tea")
	if first.Code != http.StatusCreated || first.Body.String() != "note 1" {
		t.Fatalf("got %d %s", first.Code, first.Body)
	}
	again := newStore(open(t, name))
	got := again.post(t.Context(), `"k"`, "tea")
	if got.Code != first.Code || got.Body.String() != first.Body.String() || got.Header().Get("Location") != "/notes/1" || got.Header().Get("Idempotent-Replayed") != "true" {
		t.Errorf("got %d %s %v, want the same answer", got.Code, got.Body, got.Header())
	}
	if got := again.post(t.Context(), `"k"`, "coffee"); got.Code != http.StatusUnprocessableEntity {
		t.Errorf("got %d, want 422", got.Code)
	}
	if got := again.post(t.Context(), "", "tea"); got.Code != http.StatusBadRequest {
		t.Errorf("got %d, want 400", got.Code)
	}
	if n := again.notes(t); n != 1 {
		t.Errorf("got %d notes, want 1", n)
	}
}

func TestAnswersThatAreNotKeptTakeTheWorkBack(t *testing.T) {
	s := newStore(open(t, file(t)))
	for _, status := range []int{401, 409, 422, 429, 500, 503, -2, -3, -4} {
		s.status = status
		want := status
		if status < 0 {
			want = http.StatusInternalServerError
		}
		if got := s.post(t.Context(), "k", "tea"); got.Code != want || s.notes(t) != 0 {
			t.Errorf("got %d and %d notes, want %d and none", got.Code, s.notes(t), want)
		}
	}
	s.status = -1
	func() {
		defer func() {
			if got := recover(); got != "on purpose" {
				t.Errorf("got %v of the panic", got)
			}
		}()
		s.post(t.Context(), "k", "tea")
	}()
	if n := s.notes(t); n != 0 {
		t.Errorf("got %d notes after a panic", n)
	}
	s.status = http.StatusAccepted
	if got := s.post(t.Context(), "k", "tea"); got.Code != http.StatusAccepted || s.notes(t) != 1 {
		t.Errorf("got %d and %d notes, want 202 and one", got.Code, s.notes(t))
	}
	s.status = http.StatusNotFound
	if got := s.post(t.Context(), "k2", "coffee"); got.Code != http.StatusNotFound {
		t.Errorf("got %d", got.Code)
	}
	s.status = 0
	if got := s.post(t.Context(), "k2", "coffee"); got.Code != http.StatusNotFound {
		t.Errorf("got %d, want the 404 again", got.Code)
	}
}

func TestWorkWhoseCommitFailsIsNotAnsweredAsDone(t *testing.T) {
	s := newStore(open(t, file(t)))
	must(t, s.db, `create table replies (note integer references notes deferrable initially deferred)`)
	must(t, s.db, `create trigger reply after insert on notes begin insert into replies values (999); end`)
	if got := s.post(t.Context(), "k", "tea"); got.Code != http.StatusInternalServerError || s.notes(t) != 0 {
		t.Errorf("got %d %s and %d notes, want 500 and none", got.Code, got.Body, s.notes(t))
	}
	must(t, s.db, `drop trigger reply`)
	if got := s.post(t.Context(), "k", "tea"); got.Code != http.StatusCreated {
		t.Errorf("got %d, want 201 once it works", got.Code)
	}
}

func TestKeysThatComeTogetherShareATransaction(t *testing.T) {
	s := newStore(open(t, file(t)))
	s.post(t.Context(), "before", "before")
	h := hold(t, s.batch, write("held"))
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if got := s.post(context.Background(), strconv.Itoa(i), strconv.Itoa(i)); got.Code != http.StatusCreated {
				t.Errorf("got %d %s", got.Code, got.Body)
			}
		})
	}
	waiting(t, s.batch, 20)
	h.letGo()
	all.Wait()
	if calls, times := metric(t, s.batch, "watt_batch_calls"); calls != 22 || times != 2 {
		t.Errorf("got %v calls in %d transactions, want 22 in 2", calls, times)
	}
	if n := s.notes(t); n != 22 {
		t.Errorf("got %d notes, want 22", n)
	}
}

func TestAKeyInProgressIsRefusedOrWaitsAndIsDoneOnce(t *testing.T) {
	name := file(t)
	one, two := newStore(open(t, name)), newStore(open(t, name)) // as in two processes
	one.gate = make(chan struct{})
	first, elsewhere := make(chan *httptest.ResponseRecorder, 1), make(chan *httptest.ResponseRecorder, 1)
	go func() { first <- one.post(context.Background(), "k", "tea") }()
	<-one.inside
	if got := one.post(t.Context(), "k", "tea"); got.Code != http.StatusConflict || got.Header().Get("Retry-After") == "" {
		t.Errorf("got %d, want 409 with Retry-After", got.Code)
	}
	go func() { elsewhere <- two.post(context.Background(), "k", "tea") }()
	close(one.gate)
	a, b := <-first, <-elsewhere
	if a.Code != http.StatusCreated || b.Code != http.StatusCreated || a.Body.String() != b.Body.String() || one.notes(t) != 1 {
		t.Errorf("got %d %s and %d %s, %d notes, want one, told to both", a.Code, a.Body, b.Code, b.Body, one.notes(t))
	}
}

func TestAClientThatLeavesWhileItsWorkIsDoneFindsItDone(t *testing.T) {
	s := newStore(open(t, file(t)))
	s.gate = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan *httptest.ResponseRecorder, 1)
	go func() { done <- s.post(ctx, "k", "tea") }()
	<-s.inside
	cancel()
	close(s.gate)
	<-done
	if got := s.post(t.Context(), "k", "tea"); got.Code != http.StatusCreated || got.Header().Get("Idempotent-Replayed") == "" || s.notes(t) != 1 {
		t.Errorf("got %d, %d notes, want the answer of the one", got.Code, s.notes(t))
	}
}

func TestAnErrorForAClientThatHasLeftIsNotKept(t *testing.T) {
	s := newStore(open(t, file(t)))
	s.gate, s.status = make(chan struct{}), http.StatusNotFound
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan *httptest.ResponseRecorder, 1)
	go func() { done <- s.post(ctx, "k", "tea") }()
	<-s.inside
	cancel()
	close(s.gate)
	if got := <-done; got.Code != http.StatusNotFound || s.notes(t) != 0 {
		t.Errorf("got %d and %d notes, want 404 and none", got.Code, s.notes(t))
	}
	s.status = 0
	if got := s.post(t.Context(), "k", "tea"); got.Code != http.StatusCreated || s.notes(t) != 1 {
		t.Errorf("got %d and %d notes of the client that came again, want 201 and 1", got.Code, s.notes(t))
	}
}

func TestAClientThatLeavesWhileItWaitsHasDoneNothing(t *testing.T) {
	s := newStore(open(t, file(t)))
	h := hold(t, s.batch, write("held"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if got := s.post(ctx, "k", "tea"); got.Code != http.StatusGatewayTimeout {
		t.Errorf("got %d, want 504", got.Code)
	}
	h.letGo()
	if err := result(t, h.done); err != nil || s.notes(t) != 1 {
		t.Errorf("got %v and %d notes, want none and the one that was held", err, s.notes(t))
	}
}

func TestAnswersExpire(t *testing.T) {
	s := newStore(open(t, file(t)))
	s.once.TTL = time.Hour
	s.post(t.Context(), "old", "tea")
	s.post(t.Context(), "older", "coffee")
	must(t, s.db, `update watt_idempotency set since = since - 3601`)
	if got := s.post(t.Context(), "old", "milk"); got.Code != http.StatusCreated || got.Header().Get("Idempotent-Replayed") != "" {
		t.Errorf("got %d %v of a key that has expired", got.Code, got.Header())
	}
	if got := s.post(t.Context(), "old", "milk"); got.Header().Get("Idempotent-Replayed") == "" {
		t.Error("got a key that has expired not kept again")
	}
	fresh := newStore(s.db) // sweeps at once
	fresh.once.TTL = time.Hour
	fresh.post(t.Context(), "new", "water")
	if got := count(t, s.db, `select count(*) from watt_idempotency`); got != 2 {
		t.Errorf("got %d rows, want those that have not expired", got)
	}
}

func TestExpiredAnswersGoFasterThanNewOnesCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that all come in the same second
		s := newStore(open(t, file(t), "_pragma=synchronous(off)"))
		s.post(t.Context(), "k", "tea")
		must(t, s.db, `with recursive n(i) as (select 1 union all select i+1 from n where i < 1000)
			insert into watt_idempotency (id, digest, status, header, body, since) select i, '', 200, '', '', 0 from n`)
		for range 500 {
			s.post(t.Context(), "k", "tea")
		}
		if got := count(t, s.db, `select count(*) from watt_idempotency`); got != 1 {
			t.Errorf("got %d rows, want what has not expired", got)
		}
	})
}

func TestTheTableIsMadeWhenItsTurnHasCome(t *testing.T) { // beside others, SQLite would have it poll
	s := newStore(open(t, file(t)))
	h := hold(t, s.batch, write("held"))
	first := make(chan *httptest.ResponseRecorder, 1)
	go func() { first <- s.post(context.Background(), "k", "tea") }()
	waiting(t, s.batch, 1)
	after := doing(s.batch, write("after"))
	waiting(t, s.batch, 2)
	h.letGo()
	if err := errors.Join(result(t, h.done), result(t, after)); err != nil {
		t.Error(err)
	}
	if got := <-first; got.Code != http.StatusCreated || s.notes(t) != 3 {
		t.Errorf("got %d and %d notes, want 201 and 3", got.Code, s.notes(t))
	}
}

func TestTheTableIsMadeAgain(t *testing.T) {
	s := newStore(open(t, file(t)))
	s.post(t.Context(), "a", "tea")
	must(t, s.db, `drop table watt_idempotency`)
	if got := s.post(t.Context(), "b", "coffee"); got.Code != http.StatusInternalServerError || s.notes(t) != 1 {
		t.Errorf("got %d and %d notes, want 500 and none more", got.Code, s.notes(t))
	}
	if got := s.post(t.Context(), "b", "coffee"); got.Code != http.StatusCreated {
		t.Errorf("got %d %s, want 201", got.Code, got.Body)
	}
}

func TestHeadersAreKeptByteByByte(t *testing.T) {
	want := http.Header{"Content-Disposition": {"attachment; filename=\"caf\xe9\"", "\x01"}, "Content-Type": nil}
	b := &funnel.Batch{DB: open(t, file(t))}
	h := (&funnel.Idempotency{Batch: b}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), want)
	}))
	for range 2 {
		rec := httptest.NewRecorder()
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
		req.Header.Set("Idempotency-Key", "k")
		h.ServeHTTP(rec, req)
		got := rec.Header()
		if kind, there := got["Content-Type"]; !there || len(kind) > 0 || !slices.Equal(got["Content-Disposition"], want["Content-Disposition"]) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestFilesOfAFormAreGoneAfterTheRequest(t *testing.T) {
	db, dir := open(t, file(t)), t.TempDir()
	t.Setenv("TMPDIR", dir)
	left := func() []string {
		found, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for _, batch := range []*funnel.Batch{nil, {DB: db}} {
		once := &funnel.Idempotency{Batch: batch}
		rt := watt.New(watt.App{Name: "store", Handler: once.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if err := r.ParseMultipartForm(1); err != nil || len(left()) != 1 {
				t.Errorf("got %v and %v, want a file", err, left())
			}
			if r.FormValue("then") == "panic" {
				panic(http.ErrAbortHandler)
			}
		}))})
		if err := rt.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, then := range []string{"answer", "panic"} {
			var body bytes.Buffer
			form := multipart.NewWriter(&body)
			part, err := form.CreateFormFile("picture", "picture.jpg")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = part.Write(make([]byte, 1<<10))
			_ = errors.Join(form.WriteField("then", then), form.Close())
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://store.watt.local/", &body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", form.FormDataContentType())
			req.Header.Set("Idempotency-Key", then)
			if resp, err := rt.Env().Client.Do(req); err == nil {
				resp.Body.Close()
			}
		}
		rt.Shutdown(t.Context())
		if got := left(); len(got) > 0 {
			t.Errorf("got %v left, with a Batch: %v", got, batch != nil)
		}
	}
}

func TestTheRouteOfAKeyedRequestIsKnownInFrontToo(t *testing.T) { // as package tracing wants it
	mux := http.NewServeMux()
	mux.HandleFunc("POST /notes/{id}", func(http.ResponseWriter, *http.Request) {})
	db := open(t, file(t))
	for _, batch := range []*funnel.Batch{nil, {DB: db}} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/notes/7", http.NoBody)
		req.Header.Set("Idempotency-Key", "k")
		(&funnel.Idempotency{Batch: batch}).Handler(mux).ServeHTTP(httptest.NewRecorder(), req)
		if req.Pattern != "POST /notes/{id}" {
			t.Errorf("got %q, with a Batch: %v", req.Pattern, batch != nil)
		}
	}
}

func TestAHandlerThatIsStuckEndsWithItsRequest(t *testing.T) {
	db := open(t, file(t))
	db.SetMaxOpenConns(1)
	b := &funnel.Batch{DB: db}
	for name, stuck := range map[string]func(context.Context) error{
		"in Do inside of Do, on the request's context": func(request context.Context) error {
			return b.Do(request, func(context.Context, *sql.Tx) error { return b.Do(request, write("a")) })
		},
		"waiting for the connection that its transaction has": db.PingContext,
	} {
		h := (&funnel.Idempotency{Batch: b}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := stuck(r.Context()); err != nil {
				watt.WriteError(w, err)
			}
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		rec := httptest.NewRecorder()
		req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", http.NoBody)
		req.Header.Set("Idempotency-Key", "k")
		h.ServeHTTP(rec, req)
		if rec.Code != http.StatusGatewayTimeout {
			t.Errorf("%s: got %d, want 504", name, rec.Code)
		}
		if err := b.Do(t.Context(), write(name)); err != nil {
			t.Errorf("after it: %v", err)
		}
	}
}

func TestADatabaseInTroubleIsAnsweredAndNothingIsDone(t *testing.T) {
	name := file(t)
	s := newStore(open(t, name, "_pragma=busy_timeout(50)"))
	lock, err := open(t, name).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.post(t.Context(), "k", "tea"); got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") == "" {
		t.Errorf("locked: got %d, want 503 with Retry-After", got.Code)
	}
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	if got := s.post(t.Context(), "k", "tea"); got.Code != http.StatusCreated || s.notes(t) != 1 {
		t.Errorf("afterwards: got %d and %d notes, want 201 and 1", got.Code, s.notes(t))
	}
	s.db.Close()
	if got := s.post(t.Context(), "k", "tea"); got.Code != http.StatusServiceUnavailable {
		t.Errorf("closed: got %d, want 503", got.Code)
	}
	if failed, _ := metric(t, s.once, "watt_idempotency_requests_total"); failed != 3 {
		t.Errorf("got %v requests counted, want all three, those that have failed included", failed)
	}

	s = newStore(open(t, file(t), "_pragma=max_page_count(30)"))
	s.once.MaxBytes = 8 << 20
	large := strings.Repeat("x", 1<<20)
	if got := s.post(t.Context(), "k", large); got.Code < 500 || s.notes(t) != 0 {
		t.Errorf("full: got %d %s and %d notes, want none", got.Code, got.Body, s.notes(t))
	}
	if got := s.post(t.Context(), "k", "small"); got.Code != http.StatusCreated {
		t.Errorf("what fits: got %d %s, want 201", got.Code, got.Body)
	}
}

func TestADatabaseThatIsNoneIsAnErrorOfEveryCall(t *testing.T) {
	name := file(t)
	db := open(t, name)
	db.Close()
	corrupt(t, name)
	bad, err := sql.Open("sqlite", "file:"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	b := &funnel.Batch{DB: bad}
	for range 2 {
		if err := b.Do(t.Context(), write("a")); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want an error", err)
		}
	}
}

func TestAppsThatShareADatabaseHaveKeysOfTheirOwn(t *testing.T) {
	db := open(t, file(t))
	for _, name := range []string{"orders", "payments"} {
		s := newStore(db)
		s.once.Name = name
		if got := s.post(t.Context(), "k", name); got.Code != http.StatusCreated || got.Header().Get("Idempotent-Replayed") != "" {
			t.Errorf("%s: got %d %s, want it done", name, got.Code, got.Body)
		}
	}
}
