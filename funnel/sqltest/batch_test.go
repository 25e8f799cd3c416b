package sqltest_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
)

var errOnPurpose = errors.New("on purpose")

// metric returns a metric of a collector's: a counter or gauge as it is, of a histogram how much was observed how
// often.
func metric(tb testing.TB, c prometheus.Collector, name string) (value float64, times uint64) {
	tb.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				value += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
				times += m.GetHistogram().GetSampleCount()
			}
		}
	}
	return value, times
}

// waiting waits until n calls wait for their turn.
func waiting(tb testing.TB, b *funnel.Batch, n int) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		is, _ := metric(tb, b, "watt_batch_waiting")
		if int(is) == n {
			return
		}
		if time.Since(began) > patience {
			tb.Fatalf("got %v calls that wait, want %d", is, n)
		}
	}
}

// behind gathers calls of fns behind one that is held, in order, and returns their results, and the held one's.
func behind(tb testing.TB, b *funnel.Batch, fns ...func(context.Context, *sql.Tx) error) (rest []error, first error) {
	tb.Helper()
	h := hold(tb, b, write("first"))
	results := make([]chan error, len(fns))
	for i, fn := range fns {
		results[i] = doing(b, fn)
		waiting(tb, b, i+1)
	}
	h.letGo()
	for _, c := range results {
		rest = append(rest, result(tb, c))
	}
	return rest, result(tb, h.done)
}

func TestCallsThatComeTogetherShareATransactionInOrder(t *testing.T) {
	db := open(t, file(t))
	b := &funnel.Batch{DB: db}
	var fns []func(context.Context, *sql.Tx) error
	for i := range 9 {
		fns = append(fns, write(strconv.Itoa(i)))
	}
	rest, first := behind(t, b, fns...)
	if err := errors.Join(append(rest, first)...); err != nil {
		t.Error(err)
	}
	if calls, times := metric(t, b, "watt_batch_calls"); calls != 10 || times != 1 {
		t.Errorf("got %v calls in %d transactions, want 10 in 1", calls, times)
	}
	for i := range 9 {
		if got := count(t, db, `select id from notes where text = ?`, strconv.Itoa(i)); got != i+2 {
			t.Errorf("got call %d as number %d, want %d", i, got, i+2)
		}
	}
}

func TestOneBadCallDoesNotFailTheOthers(t *testing.T) {
	db := open(t, file(t))
	b := &funnel.Batch{DB: db}
	both := func(ctx context.Context, tx *sql.Tx) error {
		if err := write("half")(ctx, tx); err != nil {
			return err
		}
		return errOnPurpose
	}
	rest, first := behind(t, b, write("a"), both, write("a"), write("b"))
	if first != nil || rest[0] != nil || rest[3] != nil {
		t.Errorf("got %v and %v of those that were good", first, rest)
	}
	if !errors.Is(rest[1], errOnPurpose) || rest[2] == nil || !strings.Contains(rest[2].Error(), "UNIQUE") {
		t.Errorf("got %v and %v, want their own errors", rest[1], rest[2])
	}
	if got := count(t, db, `select count(*) from notes`); got != 3 {
		t.Errorf("got %d notes, want 3", got)
	}
}

func TestAPanicGoesToItsCallerAndUndoesOneCall(t *testing.T) {
	db := open(t, file(t))
	b := &funnel.Batch{DB: db}
	for what, end := range map[string]func(){"panic": func() { panic("on purpose") }, "Goexit": runtime.Goexit} {
		h := hold(t, b, write("before "+what))
		ended := make(chan any)
		go func() {
			defer func() { ended <- recover() }()
			_ = b.Do(context.Background(), func(ctx context.Context, tx *sql.Tx) error {
				err := write("half")(ctx, tx)
				end()
				return err
			})
		}()
		waiting(t, b, 1)
		after := doing(b, write("after "+what))
		waiting(t, b, 2)
		h.letGo()
		if got := <-ended; what == "panic" && got != "on purpose" {
			t.Errorf("got %v of the panic", got)
		}
		if err := errors.Join(result(t, h.done), result(t, after)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := count(t, db, `select count(*) from notes`); got != 4 {
		t.Errorf("got %d notes, want 4", got)
	}
}

func TestALostTransactionIsToldToEveryoneInIt(t *testing.T) {
	db := open(t, file(t))
	b := &funnel.Batch{DB: db}
	undo := func(ctx context.Context, tx *sql.Tx) error { // as SQLite does on its own account when the disk is full
		if _, err := tx.ExecContext(ctx, `rollback`); err != nil {
			return err
		}
		return errOnPurpose
	}
	rest, first := behind(t, b, write("a"), undo, write("later"))
	for _, err := range []error{first, rest[0]} {
		if !errors.Is(err, watt.ErrUnavailable) || !errors.Is(err, errOnPurpose) {
			t.Errorf("got %v, want unavailable, and why", err)
		}
	}
	if !errors.Is(rest[1], errOnPurpose) || errors.Is(rest[1], watt.ErrUnavailable) {
		t.Errorf("got %v, want the call's own error", rest[1])
	}
	if rest[2] != nil {
		t.Errorf("got %v of a call that was not in it", rest[2])
	}
	if got := count(t, db, `select count(*) from notes`); got != 1 {
		t.Errorf("got %d notes, want the one that came later", got)
	}
	if lost, _ := metric(t, b, "watt_batch_lost_total"); lost != 1 {
		t.Errorf("got %v lost, want 1", lost)
	}
}

func TestACallThatGoesOnAfterTheLossIsToldThatSomethingMayBeKept(t *testing.T) {
	db := open(t, file(t), "_pragma=max_page_count(20)")
	b := &funnel.Batch{DB: db}
	goOn := func(ctx context.Context, tx *sql.Tx) error {
		_ = write(strings.Repeat("x", 1<<20))(ctx, tx) // the disk is full, and everything undone
		return write("in no transaction")(ctx, tx)
	}
	rest, first := behind(t, b, write("a"), goOn)
	for _, err := range []error{first, rest[0]} {
		if !errors.Is(err, watt.ErrUnavailable) {
			t.Errorf("got %v, want unavailable", err)
		}
	}
	if errors.Is(rest[1], watt.ErrUnavailable) || !strings.Contains(fmt.Sprint(rest[1]), "may be kept") {
		t.Errorf("got %v, want the truth", rest[1])
	}
	if got := count(t, db, `select count(*) from notes`); got != 1 {
		t.Errorf("got %d notes, want the one that the database has kept", got)
	}
}

func TestAFullDiskFailsWhatDoesNotFitAndNothingElse(t *testing.T) {
	db := open(t, file(t), "_pragma=max_page_count(20)")
	b := &funnel.Batch{DB: db}
	large := strings.Repeat("x", 1<<20)
	rest, first := behind(t, b, write("a"), write(large), write("b"))
	if rest[1] == nil || !strings.Contains(rest[1].Error(), "full") {
		t.Errorf("got %v, want the disk to be full", rest[1])
	}
	kept := count(t, db, `select count(*) from notes`)
	told := 0
	for _, err := range []error{first, rest[0], rest[2]} {
		if err == nil {
			told++
		} else if !errors.Is(err, watt.ErrUnavailable) {
			t.Errorf("got %v, want unavailable", err)
		}
	}
	if kept != told {
		t.Errorf("got %d notes, and %d calls that were told so", kept, told)
	}
	if err := b.Do(t.Context(), write("c")); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestAnErrorOfTheCommitIsEverybodys(t *testing.T) {
	db := open(t, file(t))
	must(t, db, `create table replies (note integer references notes deferrable initially deferred)`)
	b := &funnel.Batch{DB: db}
	rest, first := behind(t, b, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `insert into replies values (999)`)
		return err
	})
	for _, err := range []error{first, rest[0]} {
		if err == nil || !strings.Contains(err.Error(), "commit: ") {
			t.Errorf("got %v, want an error of the commit", err)
		}
	}
	if err := b.Do(t.Context(), write("after")); err != nil {
		t.Errorf("after it: %v", err)
	}
	if got := count(t, db, `select count(*) from notes`); got != 1 {
		t.Errorf("got %d notes, want 1", got)
	}
}

func TestADatabaseThatIsLockedIsToldToAllWhoWaitAtOnce(t *testing.T) {
	name := file(t)
	db := open(t, name, "_pragma=busy_timeout(1000)") // in which all have to come
	other := open(t, name)
	b := &funnel.Batch{DB: db}
	lock, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	results := []chan error{doing(b, write("0"))}
	for i := range 20 {
		results = append(results, doing(b, write(strconv.Itoa(i))))
		waiting(t, b, i+1)
	}
	for _, c := range results {
		if err := result(t, c); !errors.Is(err, watt.ErrUnavailable) || !strings.Contains(err.Error(), "locked") {
			t.Errorf("got %v, want unavailable, since it is locked", err)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v, want about a second for all", took)
	}
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := b.Do(t.Context(), write("after")); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestACallThatHasNotBegunEndsWithItsContext(t *testing.T) {
	db := open(t, file(t))
	b := &funnel.Batch{DB: db}
	h := hold(t, b, write("held"))
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := make(chan error, 1)
	go func() { gone <- b.Do(ctx, write("gone")) }()
	waiting(t, b, 1)
	after := doing(b, write("after"))
	waiting(t, b, 2)
	cancel(errOnPurpose)
	if err := result(t, gone); !errors.Is(err, errOnPurpose) {
		t.Errorf("got %v, want the cause", err)
	}
	h.letGo()
	if err := errors.Join(result(t, h.done), result(t, after)); err != nil {
		t.Error(err)
	}
	if err := b.Do(ctx, write("gone")); !errors.Is(err, errOnPurpose) {
		t.Errorf("got %v of one that was late from the start", err)
	}
	if got := count(t, db, `select count(*) from notes where text <> 'gone'`); got != 2 {
		t.Errorf("got %d notes, want 2", got)
	}
}

func TestATurnThatComesTogetherWithTheEndOfTheContextIsGivenOn(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that who waits sees both at once
	b := &funnel.Batch{DB: open(t, file(t))}
	for i := range 20 { // and takes either
		ctx, cancel := context.WithCancel(t.Context())
		h := hold(t, b, func(context.Context, *sql.Tx) error { cancel(); return nil })
		both := make(chan error, 1)
		go func() { both <- b.Do(ctx, write(strconv.Itoa(i))) }()
		waiting(t, b, 1)
		h.letGo()
		if err := result(t, both); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := errors.Join(result(t, h.done), result(t, doing(b, write("after "+strconv.Itoa(i))))); err != nil {
			t.Error(err)
		}
	}
}

func TestACallThatHasBegunIsFinishedAfterItsContext(t *testing.T) {
	db := open(t, file(t))
	b := &funnel.Batch{DB: db}
	ctx, cancel := context.WithCancel(t.Context())
	err := b.Do(ctx, func(ctx context.Context, tx *sql.Tx) error {
		cancel()
		return errors.Join(ctx.Err(), write("a")(ctx, tx))
	})
	if got := count(t, db, `select count(*) from notes`); err != nil || got != 1 {
		t.Errorf("got %v and %d notes, want none and 1", err, got)
	}
}

// engaged returns a Batch on a database with one connection, and that connection, which is in use until it is closed.
func engaged(t *testing.T) (*funnel.Batch, *sql.Conn) {
	t.Helper()
	db := open(t, file(t))
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &funnel.Batch{DB: db}, conn
}

func TestAWaitForAConnectionEndsWithTheContext(t *testing.T) {
	b, conn := engaged(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := b.Do(ctx, write("a")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
	conn.Close()
	if err := b.Do(t.Context(), write("b")); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestACallThatCouldNotBeginIsNotHeldByTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, conn := engaged(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		gone := make(chan error, 1)
		go func() { gone <- b.Do(ctx, write("gone")) }()
		synctest.Wait()
		next := doing(b, write("next"))
		if err := result(t, gone); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of the context", err)
		}
		conn.Close()
		if err := result(t, next); err != nil {
			t.Errorf("the next: %v", err)
		}
	})
}

func TestAWaitForALockEndsWithTheContext(t *testing.T) {
	name := file(t)
	b := &funnel.Batch{DB: open(t, name)}
	lock, err := open(t, name).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := b.Do(ctx, write("a")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := b.Do(t.Context(), write("b")); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestADoThatWaitsForItselfEndsWithTheRequest(t *testing.T) {
	b := &funnel.Batch{DB: open(t, file(t))}
	for name, wrong := range map[string]func(request, outer context.Context) context.Context{
		"the request's":  func(request, _ context.Context) context.Context { return request },
		"the outer fn's": func(_, outer context.Context) context.Context { return outer },
	} {
		request, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		err := b.Do(request, func(outer context.Context, _ *sql.Tx) error {
			return b.Do(outer, func(context.Context, *sql.Tx) error { return b.Do(wrong(request, outer), write("a")) })
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("on %s context: got %v, want its end", name, err)
		}
	}
	request, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := b.Do(request, func(outer context.Context, _ *sql.Tx) error {
		return b.Do(outer, func(inner context.Context, _ *sql.Tx) error {
			return b.Do(inner, func(context.Context, *sql.Tx) error { return b.Do(inner, write("a")) })
		})
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("on an inner fn's context: got %v, want the end of the request's", err)
	}
	if err := b.Do(t.Context(), write("b")); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestDoInsideOfDoJoins(t *testing.T) {
	db := open(t, file(t))
	b := &funnel.Batch{DB: db}
	var leaked context.Context
	err := b.Do(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		leaked = ctx //nolint:fatcontext // to see what becomes of it
		if err := b.Do(ctx, write("kept")); err != nil {
			return err
		}
		if err := b.Do(ctx, func(ctx context.Context, tx *sql.Tx) error {
			return errors.Join(b.Do(ctx, write("undone")), errOnPurpose)
		}); !errors.Is(err, errOnPurpose) {
			t.Errorf("got %v", err)
		}
		var both sync.WaitGroup // at the same time, for one database connection
		for i := range 2 {
			both.Go(func() {
				if err := b.Do(ctx, write(strconv.Itoa(i))); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		return write("last")(ctx, tx)
	})
	if got := count(t, db, `select count(*) from notes where text <> 'undone'`); err != nil || got != 4 {
		t.Errorf("got %v and %d notes, want none and 4", err, got)
	}
	if err := b.Do(leaked, write("late")); err == nil || !strings.Contains(err.Error(), "over") {
		t.Errorf("got %v of a context whose transaction is over", err)
	}
}

func TestACallThatJoinsAfterTheContextIsFinishedToo(t *testing.T) {
	b := &funnel.Batch{DB: open(t, file(t))}
	ctx, cancel := context.WithCancel(t.Context())
	err := b.Do(ctx, func(ctx context.Context, _ *sql.Tx) (err error) {
		cancel()
		for i := range 20 {
			err = errors.Join(err, b.Do(ctx, write(strconv.Itoa(i))))
		}
		return err
	})
	if got := count(t, b.DB, `select count(*) from notes`); err != nil || got != 20 {
		t.Errorf("got %v and %d notes, want none and 20", err, got)
	}
}

func TestACallThatJoinsWithAContextThatHasEndedIsNotBegun(t *testing.T) {
	b := &funnel.Batch{DB: open(t, file(t))}
	err := b.Do(t.Context(), func(ctx context.Context, _ *sql.Tx) error {
		late, cancel := context.WithCancelCause(ctx)
		cancel(errOnPurpose)
		if err := b.Do(late, write("late")); !errors.Is(err, errOnPurpose) {
			t.Errorf("got %v, want the cause", err)
		}
		return nil
	})
	if got := count(t, b.DB, `select count(*) from notes`); err != nil || got != 0 {
		t.Errorf("got %v and %d notes, want none", err, got)
	}
}

func TestACallThatHasJoinedIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &funnel.Batch{DB: open(t, file(t))}
		inside, release, joined := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		outer := doing(b, func(ctx context.Context, _ *sql.Tx) error {
			go func() {
				joined <- b.Do(ctx, func(ctx context.Context, tx *sql.Tx) error {
					close(inside)
					<-release
					return write("joined")(ctx, tx)
				})
			}()
			<-inside
			return nil
		})
		synctest.Wait()
		close(release)
		if err := errors.Join(result(t, joined), result(t, outer)); err != nil {
			t.Error(err)
		}
		if got := count(t, b.DB, `select count(*) from notes`); got != 1 {
			t.Errorf("got %d notes, want 1", got)
		}
	})
}

func TestMaxSizeAndMaxDelay(t *testing.T) {
	b := &funnel.Batch{DB: open(t, file(t)), MaxSize: 2}
	rest, first := behind(t, b, write("a"), write("b"), write("c"))
	if err := errors.Join(append(rest, first)...); err != nil {
		t.Error(err)
	}
	if calls, times := metric(t, b, "watt_batch_calls"); calls != 4 || times != 2 {
		t.Errorf("got %v calls in %d transactions, want 4 in 2", calls, times)
	}

	b = &funnel.Batch{DB: open(t, file(t)), MaxSize: 2, MaxDelay: time.Hour}
	ran := make(chan struct{})
	one := doing(b, func(context.Context, *sql.Tx) error { close(ran); return nil })
	<-ran
	<-time.After(10 * time.Millisecond) // it waits
	two := doing(b, write("b"))
	if err := errors.Join(result(t, one), result(t, two)); err != nil {
		t.Error(err)
	}
	if calls, times := metric(t, b, "watt_batch_calls"); calls != 2 || times != 1 {
		t.Errorf("got %v calls in %d transactions, want the first to wait for the second", calls, times)
	}
	b = &funnel.Batch{DB: open(t, file(t)), MaxDelay: time.Millisecond}
	if err := result(t, doing(b, write("a"))); err != nil { // nobody else comes
		t.Error(err)
	}
}

func TestATransactionHas128CallsAtMostUnlessToldOtherwise(t *testing.T) {
	b := &funnel.Batch{DB: open(t, file(t))}
	nothing := make([]func(context.Context, *sql.Tx) error, 128)
	for i := range nothing {
		nothing[i] = func(context.Context, *sql.Tx) error { return nil }
	}
	behind(t, b, nothing...)
	if calls, times := metric(t, b, "watt_batch_calls"); calls != 129 || times != 2 {
		t.Errorf("got %v calls in %d transactions, want 129 in 2", calls, times)
	}
}

func TestADatabaseThatIsLockedIsTriedAgainForThoseWhoCameLater(t *testing.T) {
	name := file(t)
	lock, err := open(t, name).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback() }()
	b := &funnel.Batch{DB: open(t, name, "_pragma=busy_timeout(200)"), MaxSize: 2}
	results := []chan error{doing(b, write("0"))}
	for i := range 4 {
		results = append(results, doing(b, write(strconv.Itoa(i))))
		waiting(t, b, i+1)
	}
	for _, c := range results {
		if err := result(t, c); !errors.Is(err, watt.ErrUnavailable) {
			t.Errorf("got %v, want unavailable", err)
		}
	}
	if tries, _ := metric(t, b, "watt_batch_lost_total"); tries != 3 {
		t.Errorf("got %v tries for 5 calls, want one for each 2", tries)
	}
}

func TestWhateverHappensIsToldToTheRightCaller(t *testing.T) {
	db := open(t, file(t))
	b := &funnel.Batch{DB: db, MaxSize: 16}
	var all sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for w := range 16 {
		all.Go(func() {
			for i := range 60 {
				ctx, cancel := context.WithCancel(context.Background())
				if rand.N(4) == 0 {
					time.AfterFunc(rand.N(time.Millisecond), cancel)
				}
				fail := rand.N(4) == 0
				err := b.Do(ctx, func(ctx context.Context, tx *sql.Tx) error {
					if err := write(fmt.Sprint(w, " ", i))(ctx, tx); err != nil || !fail {
						return err
					}
					return errOnPurpose
				})
				cancel()
				if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errOnPurpose) {
					t.Error(err)
				}
				found := 0
				mu.Lock()
				if err == nil {
					found, done = 1, done+1
				}
				mu.Unlock()
				if got := count(t, db, `select count(*) from notes where text = ?`, fmt.Sprint(w, " ", i)); got != found {
					t.Errorf("got %v, and %d notes", err, got)
				}
			}
		})
	}
	all.Wait()
	if got := count(t, db, `select count(*) from notes`); got != done {
		t.Errorf("got %d notes, want %d", got, done)
	}
}

// restarting is a server that can be restarted, after which its connections are bad.
type (
	restarting struct{ restarts int }
	connection struct {
		to   *restarting
		made int // after how many restarts
	}
)

func (r *restarting) Connect(context.Context) (driver.Conn, error) {
	return &connection{r, r.restarts}, nil
}
func (r *restarting) Driver() driver.Driver { return nil }

func (c *connection) Begin() (driver.Tx, error) {
	if c.made != c.to.restarts {
		return nil, driver.ErrBadConn
	}
	return c, nil
}
func (c *connection) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }
func (c *connection) Close() error                        { return nil }
func (c *connection) Commit() error                       { return nil }
func (c *connection) Rollback() error                     { return nil }

func (c *connection) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.ResultNoRows, nil
}

func TestABadConnectionIsReplaced(t *testing.T) {
	server := &restarting{}
	b := &funnel.Batch{DB: sql.OpenDB(server)}
	defer b.DB.Close()
	for range 3 {
		if err := b.Do(t.Context(), write("a")); err != nil {
			t.Errorf("got %v after %d restarts", err, server.restarts)
		}
		server.restarts++
	}
}

func TestWhatCannotWorkIsAnError(t *testing.T) {
	if err := new(funnel.Batch).Do(t.Context(), write("a")); err == nil {
		t.Error("got no error without DB")
	}
}
