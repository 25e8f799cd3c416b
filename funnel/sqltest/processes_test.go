//go:build linux

package sqltest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/org/watt"
	"github.com/org/watt/funnel"
	"github.com/org/watt/pyramid"
	"github.com/org/watt/watttest"
)

func TestMain(m *testing.M) { watttest.Main(m, mill, mills) }

// database tells the store, which lives in the first process, where its file is.
const database = "SQLTEST_DATABASE"

// mill is a funnel: two instances hash what they are sent, and keep the result in a store.
func mill() *watt.Runtime {
	return watt.New(funnel.New(
		watt.App{Name: "hash", Listen: "127.0.0.1:0", New: newHash, Isolation: watt.OwnProcess, Instances: 2, Workers: 4, Queue: 64},
		watt.App{Name: "store", New: openStore, Workers: 16},
	))
}

func newHash(_ context.Context, env *watt.Env) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hash", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		if _, err := io.Copy(sum, r.Body); err != nil {
			watt.WriteError(w, err)
			return
		}
		result := strings.NewReader(hex.EncodeToString(sum.Sum(nil)))
		pass(w, r, env, "/notes", result)
	})
	mux.HandleFunc("POST /stream", func(w http.ResponseWriter, r *http.Request) { pass(w, r, env, "/sink", r.Body) })
	mux.HandleFunc("POST /refused", func(w http.ResponseWriter, r *http.Request) { pass(w, r, env, "/refused", r.Body) })
	return mux, nil
}

// pass sends body to the store, and passes its answer on, unless the process is to die in between.
func pass(w http.ResponseWriter, r *http.Request, env *watt.Env, path string, body io.Reader) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://store.watt.local"+path, body)
	if err != nil {
		watt.WriteError(w, err)
		return
	}
	req.Header.Set("Idempotency-Key", r.Header.Get("Idempotency-Key"))
	resp, err := env.Client.Do(req)
	if err != nil {
		watt.WriteError(w, err)
		return
	}
	defer resp.Body.Close()
	if r.Header.Get("Die") != "" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		<-r.Context().Done()
	}
	for _, name := range []string{"Idempotent-Replayed", "Retry-After"} {
		w.Header().Set(name, resp.Header.Get(name))
	}
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

// openStore runs in the first process alone.
func openStore(ctx context.Context, env *watt.Env) (http.Handler, error) {
	db, err := sql.Open("sqlite", "file:"+os.Getenv(database)+options)
	if err != nil {
		return nil, err
	}
	env.Cleanup(db.Close)
	if _, err := db.ExecContext(ctx, `create table if not exists notes (id integer primary key, text text)`); err != nil {
		return nil, err
	}
	s := newStore(db)
	env.Metrics.MustRegister(s.batch, s.once)
	mux := http.NewServeMux()
	mux.Handle("POST /notes", s.once.Handler(s))
	mux.HandleFunc("POST /sink", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			_, _ = db.ExecContext(context.WithoutCancel(ctx), `insert into notes (text) values ('cut')`)
			watt.WriteError(w, err)
			return
		}
		fmt.Fprint(w, n)
	})
	mux.HandleFunc("POST /refused", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	})
	return mux, nil
}

// plant is a mill that runs, and its clients.
type plant struct {
	*testing.T
	rt  *watt.Runtime
	url string
	db  *sql.DB
}

func startMill(t *testing.T, change func(*watt.App)) *plant {
	t.Helper()
	name := file(t)
	t.Setenv(database, name)
	db := open(t, name)
	rt := mill()
	if change != nil {
		if err := rt.Update("hash", change); err != nil {
			t.Fatal(err)
		}
	}
	top := watttest.Start(t, rt)
	return &plant{t, rt, top.URL("hash"), db}
}

// client returns a client with connections of its own.
func (p *plant) client() *http.Client {
	transport := &http.Transport{}
	p.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (p *plant) request(ctx context.Context, path, key string, body io.Reader) *http.Request {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+path, body)
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Idempotency-Key", key)
	req.GetBody = nil // net/http's own retries would hide failures
	return req
}

// insist sends a request until it is answered with 201, as a client should.
func (p *plant) insist(client *http.Client, key, body string) (tries int) {
	for began := time.Now(); ; {
		tries++
		resp, err := client.Do(p.request(context.Background(), "/hash", key, strings.NewReader(body)))
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusCreated {
				return tries
			}
			if resp.StatusCode != http.StatusConflict && resp.StatusCode < 500 {
				p.Errorf("%s: got %s", key, resp.Status)
				return tries
			}
		}
		if time.Since(began) > patience {
			p.Errorf("%s: not within %v: %v", key, patience, err)
			return tries
		}
		await(5 * time.Millisecond)
	}
}

func await(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// pids returns the processes of the instances.
func (p *plant) pids() (all []int) {
	for _, s := range p.rt.Status() {
		for _, in := range s.PerInstance {
			if in.PID > 1 {
				all = append(all, in.PID)
			}
		}
	}
	return all
}

// buried waits until the runtime knows that a process has ended: its shutdown would tell otherwise.
func (p *plant) buried(pid int) {
	p.Helper()
	for began := time.Now(); slices.Contains(p.pids(), pid); await(time.Millisecond) {
		if time.Since(began) > patience {
			p.Fatalf("process %d is not missed", pid)
		}
	}
}

// insistOn has n clients send m requests each.
func (p *plant) insistOn(n, m int) (tries int64) {
	var all sync.WaitGroup
	var total atomic.Int64
	for c := range n {
		all.Go(func() {
			client := p.client()
			for i := range m {
				total.Add(int64(p.insist(client, fmt.Sprintf("%d-%d", c, i), fmt.Sprintf("%d %d", c, i))))
			}
		})
	}
	all.Wait()
	if got := count(p, p.db, `select count(*) from notes`); got != n*m {
		p.Errorf("got %d notes, want %d", got, n*m)
	}
	if got := count(p, p.db, `select count(distinct text) from notes`); got != n*m {
		p.Errorf("got %d different notes, want %d", got, n*m)
	}
	return total.Load()
}

func TestAnInstanceThatDiesBetweenWorkAndAnswerHasDoneItOnce(t *testing.T) {
	p := startMill(t, nil)
	before := p.pids()
	req := p.request(t.Context(), "/hash", "k", strings.NewReader("tea"))
	req.Header.Set("Die", "1")
	if resp, err := p.client().Do(req); err == nil {
		resp.Body.Close()
		t.Fatalf("got %s of an instance that has died", resp.Status)
	}
	for began := time.Now(); slices.Equal(before, p.pids()); await(time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatal("nobody misses the instance")
		}
	}
	resp, err := p.client().Do(p.request(t.Context(), "/hash", "k", strings.NewReader("tea")))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated || resp.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("got %s, replayed: %q, want the answer of the first", resp.Status, resp.Header.Get("Idempotent-Replayed"))
	}
	if got := count(t, p.db, `select count(*) from notes`); got != 1 {
		t.Errorf("got %d notes, want 1", got)
	}
}

func TestKeysAreDoneOnceWhileInstancesAreKilled(t *testing.T) {
	p := startMill(t, func(a *watt.App) { a.MaxRestarts = -1 })
	ctx, cancel := context.WithCancel(t.Context())
	killed, last := make(chan int), 0
	go func() { // few enough for the backoff of the restarts to stay short
		n := 0
		defer func() { killed <- n }()
		for ; n < 6 && ctx.Err() == nil; await(150 * time.Millisecond) {
			if pids := p.pids(); len(pids) > 0 {
				last = pids[n%len(pids)]
				_ = syscall.Kill(last, syscall.SIGKILL)
				n++
			}
		}
	}()
	p.insistOn(8, 300)
	cancel()
	if n := <-killed; n < 4 {
		t.Errorf("got %d killed, too few to mean anything", n)
	}
	p.buried(last)
}

func TestTheStoreCanRestartUnderLoad(t *testing.T) {
	p := startMill(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	restarted := make(chan int)
	go func() {
		n := 0
		defer func() { restarted <- n }()
		for ; ctx.Err() == nil; n++ {
			if err := p.rt.Restart("store", 0); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	tries := p.insistOn(8, 60)
	cancel()
	if n := <-restarted; n < 2 || tries != 8*60 {
		t.Errorf("got %d tries for %d requests over %d restarts, want one each", tries, 8*60, n)
	}
}

// TestASlowDatabaseSendsWorkAwayBeforeItBegins has somebody else hold the database most of the time, so that hardly
// anything can be stored.
func TestASlowDatabaseSendsWorkAwayBeforeItBegins(t *testing.T) {
	p := startMill(t, nil)
	if err := p.rt.Update("store", func(a *watt.App) { a.Workers, a.Queue, a.QueueTimeout = 1, 1, 100*time.Millisecond }); err != nil {
		t.Fatal(err)
	}
	conn, err := p.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := conn.ExecContext(context.Background(), `begin immediate`); err != nil {
				t.Error(err)
				return
			}
			await(150 * time.Millisecond)
			if _, err := conn.ExecContext(context.Background(), `commit`); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	var clients sync.WaitGroup
	var refused, untold atomic.Int64
	for c := range 8 {
		clients.Go(func() {
			client := p.client()
			for i := range 10 {
				what := fmt.Sprintf("%d-%d", c, i)
				resp, err := client.Do(p.request(context.Background(), "/hash", what, strings.NewReader(what)))
				if err != nil {
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				switch {
				case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "":
					untold.Add(1)
				case resp.StatusCode == http.StatusServiceUnavailable:
					refused.Add(1)
				case resp.StatusCode != http.StatusCreated:
					t.Errorf("got %s %s", resp.Status, body)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	<-done
	stored := count(t, p.db, `select count(*) from notes`)
	if refused.Load() < 20 || untold.Load() > 0 || stored != 80-int(refused.Load()) {
		t.Errorf("got %d refused, %d without being told when to come again, %d stored", refused.Load(), untold.Load(), stored)
	}
	worked := uint64(0)
	for _, s := range p.rt.Status() {
		if s.Name == "store" {
			worked = s.Admitted + s.QueueFull + s.WaitTooLong + s.PushedOut + s.Deadline
		}
	}
	if worked >= 80 { // else each was hashed, and sent away only then
		t.Errorf("%d requests got to the store, want fewer than came", worked)
	}
}

func TestAKeyInProgressOnAnotherInstanceIsDoneOnce(t *testing.T) {
	p := startMill(t, nil)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() { p.insist(p.client(), "k", "tea") })
	}
	all.Wait()
	if got := count(t, p.db, `select count(*) from notes`); got != 1 {
		t.Errorf("got %d notes, want 1", got)
	}
}

// idle waits until no instance is busy.
func (p *plant) idle() {
	p.Helper()
	for began := time.Now(); ; await(time.Millisecond) {
		busy := 0
		for _, s := range p.rt.Status() {
			busy += s.Busy + s.Queued
		}
		if busy == 0 {
			return
		}
		if time.Since(began) > patience {
			p.Fatalf("got %d workers that stay busy", busy)
		}
	}
}

func TestAnUploadThatStallsOrBreaksOffLeavesNothing(t *testing.T) {
	p := startMill(t, func(a *watt.App) { a.Timeout = 300 * time.Millisecond })
	for _, stalls := range []bool{true, false} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "POST /hash HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nIdempotency-Key: k\r\n\r\nhalf")
		if stalls {
			conn.SetReadDeadline(time.Now().Add(patience))
			answer, err := io.ReadAll(conn)
			if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 504")) {
				t.Errorf("got %q, %v, want 504 after Timeout", answer, err)
			}
		}
		conn.Close()
		p.idle()
	}
	if got := count(t, p.db, `select count(*) from notes`); got != 0 {
		t.Errorf("got %d notes, want none", got)
	}
	p.insist(p.client(), "k", "tea")
}

// zeros are n bytes, and count how many were read.
type zeros struct {
	left int64
	read atomic.Int64
	stop <-chan struct{} // after it, reading waits no more, but fails
	at   int64           // where it waits for stop
}

func (z *zeros) Read(b []byte) (int, error) {
	if z.stop != nil && z.read.Load() >= z.at {
		<-z.stop
		return 0, errors.New("the client has changed its mind")
	}
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(b)), z.left)
	z.left -= n
	z.read.Add(n)
	return int(n), nil
}

// memory returns the most that a process has had in memory, in bytes.
func memory(tb testing.TB, pid int) (peak int64) {
	tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(rest, &peak); err != nil {
		tb.Fatal(err)
	}
	return peak << 10
}

func TestLargeBodiesStreamThroughWithBoundedMemory(t *testing.T) {
	p := startMill(t, nil)
	const size = 256 << 20
	all := append(p.pids(), os.Getpid())
	send := func(n int64) {
		t.Helper()
		resp, err := p.client().Do(p.request(t.Context(), "/stream", "", &zeros{left: n}))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got, _ := io.ReadAll(resp.Body); string(got) != strconv.FormatInt(n, 10) {
			t.Errorf("got %s %s, want %d bytes", resp.Status, got, n)
		}
	}
	for range 8 {
		send(1 << 20)
	}
	before := make(map[int]int64)
	for _, pid := range all {
		before[pid] = memory(t, pid)
	}
	send(size)
	for _, pid := range all {
		if more := memory(t, pid) - before[pid]; more > 32<<20 {
			t.Errorf("process %d: got %d MiB more, want 32 at most", pid, more>>20)
		}
	}
}

func TestStreamsEndInBothDirections(t *testing.T) {
	p := startMill(t, nil)
	stop := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	body := &zeros{left: 64 << 20, at: 8 << 20, stop: stop}
	done := make(chan error, 1)
	go func() {
		resp, err := p.client().Do(p.request(ctx, "/stream", "", body))
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	await(50 * time.Millisecond)
	cancel()
	close(stop)
	if err := result(t, done); err == nil {
		t.Error("got no error of a client that has left")
	}
	p.idle()
	if got := count(t, p.db, `select count(*) from notes where text = 'cut'`); got != 1 {
		t.Errorf("got %d bodies cut at the store, want 1", got)
	}

	large := &zeros{left: 1 << 30}
	resp, err := p.client().Do(p.request(t.Context(), "/refused", "", large))
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("got %s, want 413", resp.Status)
		}
	}
	if err != nil || large.read.Load() > 256<<20 {
		t.Errorf("got %v and %d MiB sent to a store that has refused them", err, large.read.Load()>>20)
	}
	p.idle()
}

// mills are two funnels that end in the same store, behind a gateway.
func mills() *watt.Runtime {
	cpu := func(name string) watt.App {
		return watt.App{Name: name, New: newHash, Isolation: watt.OwnProcess, Instances: 1}
	}
	hash, store := funnel.New(cpu("hash"), watt.App{Name: "store", New: openStore})
	digest, store := funnel.New(cpu("digest"), store)
	return watt.New(pyramid.New(watt.App{Name: "gateway", Listen: "127.0.0.1:0"}, hash, digest, store)...)
}

func TestTwoFunnelsMayEndInOneStoreBehindAGateway(t *testing.T) {
	name := file(t)
	t.Setenv(database, name)
	db, rt := open(t, name), mills()
	top := watttest.Start(t, rt)
	p := &plant{t, rt, top.URL("gateway"), db}
	ask := func(path string) (status int, replayed bool) {
		t.Helper()
		resp, err := p.client().Do(p.request(t.Context(), path, "k", strings.NewReader(path)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Idempotent-Replayed") == "true"
	}
	for _, again := range []bool{false, true} {
		for _, path := range []string{"/hash/hash", "/digest/hash"} { // to each its own keys
			if status, replayed := ask(path); status != http.StatusCreated || replayed != again {
				t.Errorf("%s: got %d, replayed: %v, want 201, replayed: %v", path, status, replayed, again)
			}
		}
	}
	store := func() watt.Status {
		all := rt.Status()
		return all[slices.IndexFunc(all, func(s watt.Status) bool { return s.Name == "store" })]
	}
	if err := rt.Update("store", func(a *watt.App) { a.Workers, a.Queue = 1, -1 }); err != nil {
		t.Fatal(err)
	}
	body, end := io.Pipe() // keeps the only worker
	defer end.Close()
	go func() {
		req, _ := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://store.watt.local/sink", body)
		if resp, err := rt.Env().Client.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	for began := time.Now(); store().Busy == 0; await(time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatal("nobody got to the store")
		}
	}
	for _, path := range []string{"/hash/hash", "/digest/hash"} {
		if status, _ := ask(path); status != http.StatusServiceUnavailable {
			t.Errorf("%s: got %d while the store is full, want 503", path, status)
		}
	}
	if s := store(); s.QueueFull > 0 {
		t.Errorf("got %d requests at the store, which were hashed for nothing", s.QueueFull)
	}
}
